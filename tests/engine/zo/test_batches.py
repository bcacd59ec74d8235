"""Data order."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from sparsezo_gui.engine.zo.batches import batch_indices


@given(seed=st.integers(0, 2**63 - 1), size=st.integers(1, 50), count=st.integers(1, 60))
def test_every_epoch_shows_every_example_once(seed, size, count):
    epochs = 3
    stream = [i for step in range(1, epochs * count + 1) for i in batch_indices(seed, step, size, count)]
    for epoch in range(epochs):
        assert sorted(stream[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_epochs_and_seeds_differ():
    orders = {tuple(batch_indices(seed, step, 32, 32)) for seed in range(3) for step in (1, 2, 3)}
    assert len(orders) == 9


def test_a_batch_larger_than_the_data_repeats_evenly():
    assert set(Counter(batch_indices(0, 1, 40, 10)).values()) == {4}
