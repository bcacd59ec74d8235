"""The generator against published vectors, a second implementation and its own specification."""

import hashlib
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsezo_gui.engine.spaces.low_rank import orthonormal, start_basis
from sparsezo_gui.engine.zo import generator
from sparsezo_gui.engine.zo.generator import FIRST, Source, Stream


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        # Known answers of Philox4x32-10, published with Random123 (Salmon et al. 2011).
        ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_second_implementation_gives_the_published_vectors(counter, key, expected):
    assert [f"{word:08x}" for word in philox(counter, key)] == expected.split()


def philox(counter, key):
    """Philox4x32-10 in plain integers, straight from the paper's figure."""
    c, k = list(counter), list(key)
    for _ in range(10):
        p0, p1 = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & 0xFFFFFFFF, (p0 >> 32) ^ c[3] ^ k[1], p0 & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


@given(
    seed=st.integers(0, 2**63 - 1),
    stream=st.sampled_from([stream for stream in Stream if stream not in (Stream.APART, Stream.CHOICE)]),
    step=st.integers(0, 2**32 - 2),
    probe=st.integers(0, 63),
    count=st.integers(1, 40),
)
def test_words_equal_the_second_implementation(seed, stream, step, probe, count):
    key, (number, _, perturbations) = (seed & 0xFFFFFFFF, seed >> 32), stream.value
    counters = ((block, step, perturbations.start + probe, number) for block in range(10))
    expected = [word for counter in counters for word in philox(counter, key)][:count]
    assert generator.words(seed, stream, step, probe, count).tolist() == expected


def test_no_two_uses_share_a_word():
    for one, other in itertools.combinations(Stream, 2):
        (number, *ranges), (other_number, *others) = one.value, other.value
        apart = (max(a.start, b.start) >= min(a.stop, b.stop) for a, b in zip(ranges, others, strict=True))
        assert number != other_number or any(apart), (one, other)


def test_a_place_outside_of_a_stream_is_refused():
    for stream, step, probe in ((Stream.DIRECTIONS, 1, 2**31), (Stream.CHOICE, 1, 1), (Stream.ORDER, 2**32 - 1, 0)):
        with pytest.raises(IndexError):
            generator.words(0, stream, step, probe, 1)


def test_where_each_use_draws():
    """A change here breaks runs that began before it: a new use takes a new number."""
    last = 2**32 - 1
    assert {stream.name: stream.at(0, 0) for stream in Stream} == {
        "DIRECTIONS": (0, 0, 0), "FEATURES": (0, 2**31, 0), "ORDER": (0, 0, 1), "APART": (last, 0, 1),
        "MASK": (0, 0, 2), "SAMPLES": (0, 0, 3), "CHOICE": (0, last, 3), "ROUNDING": (0, 0, 4), "BASES": (0, 0, 5),
        "STATES": (0, 0, 6), "SEARCHES": (0, 0, 7), "ADAPTERS": (0, 0, 8), "LORA": (0, 0, 9),
    }  # fmt: skip
    moved = {stream: stream.of(FIRST) for stream in Stream if stream.of(FIRST) is not stream}
    assert moved == {Stream.STATES: Stream.BASES, Stream.SEARCHES: Stream.BASES}
    assert all(stream.of(generator.GENERATOR) is stream.of(None) is stream for stream in Stream)


def test_what_begins_is_independent_of_the_first_random_subspace():
    """States and the bases of searches; in version 1 both were its basis."""
    subspace = generator.normal(0, 0, 0, 4096, stream=Stream.BASES)
    for found in (Source(0, 0, 4096).state(), generator.normal(0, 0, 0, 4096, stream=Stream.SEARCHES)):
        assert abs(float(found @ subspace)) / 4096 < 5 / 4096**0.5
    assert not torch.equal(Source(0, 0, 64).state(), Source(1, 0, 64).state())
    assert torch.equal(Source(9, 0, 4096, generator=FIRST).state(), subspace)
    first = start_basis(0, 0, 1024, 4, Stream.SEARCHES.of(FIRST))
    assert torch.equal(first, orthonormal(subspace.view(1024, 4)))


def test_normal_values_have_the_moments_of_a_normal_law():
    z = generator.normal(1, 1, 0, 2_000_000).double()
    error = 2_000_000**-0.5
    assert abs(z.mean()) < 4 * error
    assert abs(z.var() - 1) < 4 * error * 2**0.5
    assert abs((z**3).mean()) < 4 * error * 15**0.5
    assert abs((z**4).mean() - 3) < 4 * error * 96**0.5
    assert z.abs().max() < 4.4


def test_the_table_has_exact_mean_and_unit_variance():
    table = generator._quantiles(torch.device("cpu")).double()
    assert table.sum() == 0
    assert abs((table**2).mean() - 1) < 1e-7


def test_a_prefix_does_not_depend_on_how_much_is_drawn():
    assert torch.equal(generator.normal(3, 9, 1, 1001)[:77], generator.normal(3, 9, 1, 77))


def test_steps_probes_and_seeds_are_uncorrelated():
    first = generator.normal(3, 9, 1, 100_000)
    for other in (
        generator.normal(4, 9, 1, 100_000),
        generator.normal(3, 10, 1, 100_000),
        generator.normal(3, 9, 2, 100_000),
    ):
        assert abs(float(first @ other)) / 100_000 < 5 / 100_000**0.5


def test_golden_direction():
    """A change here breaks every journal ever written: it needs a new generator id."""
    digest = hashlib.sha256(generator.normal(12345, 678, 9, 10_000).numpy().astype("<f4").tobytes()).hexdigest()
    assert generator.KNOWN == ("philox4x32-10/normal16/1", "philox4x32-10/normal16/2")
    assert generator.KNOWN[-1] == generator.GENERATOR
    assert digest == "ebe9fa90a85919fafaaeee8192fabafb1ec55149243f37dc0c163b1b19264db8"


@given(seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 1000), count=st.integers(1, 200))
def test_a_permutation_holds_everything_once(seed, epoch, count):
    assert sorted(generator.permutation(seed, epoch, count)) == list(range(count))


def test_permutations_are_fair():
    firsts = np.bincount([generator.permutation(0, epoch, 5)[0] for epoch in range(2000)], minlength=5)
    assert abs(firsts - 400).max() < 4.5 * (2000 * 0.2 * 0.8) ** 0.5


def test_no_global_state_is_touched():
    before = torch.random.get_rng_state()
    generator.normal(1, 2, 3, 100)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_gpus_arithmetic_gives_the_same_words():
    """Signed 64-bit tensors, as on a GPU, where NumPy's unsigned ones run on a CPU."""
    counters = [torch.tensor([0, 1, 2**31, 2**32 - 1]), *(torch.full((4,), word) for word in (7, 2**32 - 1, 2))]
    signed = torch.stack(generator._philox(2**63 - 1, *counters))
    unsigned = generator._philox(2**63 - 1, *(each.numpy().astype("u8") for each in counters))
    assert signed.tolist() == [word.tolist() for word in unsigned]
