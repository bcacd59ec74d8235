"""Batches: in order, and chosen for a pool."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsezo_gui.engine import training
from sparsezo_gui.engine.objective import count_tokens
from sparsezo_gui.engine.runs.folder import open_run
from sparsezo_gui.engine.selection.coreset import facility_location
from sparsezo_gui.engine.session.opening import open_session
from sparsezo_gui.engine.zo.batches import batch_indices
from sparsezo_gui.engine.zo.generator import Stream, normal
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import Recipe, with_settings
from sparsezo_gui.recipe import events as e
from tests.engine.conftest import finish, of
from tests.engine.test_correctness import example
from tests.engine.test_objectives import session_of


def worth(features, chosen):
    """Facility location, written down plainly: of every row, how much nearer than the farthest its nearest one is."""
    distances = np.abs(features[:, None] - features[None]).sum(axis=2)
    return sum(distances.max() - distances[i, list(chosen)].min() for i in range(len(features)))


@settings(max_examples=60)
@given(st.integers(3, 8), st.integers(1, 3), st.integers(0, 10**6))
def test_a_greedy_choice_is_near_the_best_one(size, count, seed):
    features = np.random.default_rng(seed).normal(size=(size, 2))
    chosen = facility_location(features, count)
    assert len(set(chosen)) == count
    values = [worth(features, each) for each in itertools.combinations(range(size), count)]
    assert worth(features, chosen) >= (1 - 1 / np.e) * max(values) - 1e-9
    before: list[int] = []  # and every pick is the best one after those before it
    for pick in chosen:
        gains = [worth(features, [*before, other]) for other in range(size) if other not in before]
        assert worth(features, [*before, pick]) == pytest.approx(max(gains))
        before.append(pick)


def test_one_is_chosen_of_each_cluster():
    centres = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 30.0]])
    features = np.concatenate([centre + np.array([[0.1, 0], [0, 0], [0, -0.2]]) for centre in centres])
    assert sorted(place // 3 for place in facility_location(features, 3)) == [0, 1, 2]
    assert facility_location(np.zeros((5, 2)), 3) == [0, 1, 2], "ties go to the first"


def examples(count=24):
    return [example([5, 9, 7 + i], [2, 2], [8, 11 + i], [0, 1], 2, i % 2) for i in range(count)]


def test_the_batch_stands_for_its_pool(frozen_tiny):
    session = session_of(frozen_tiny("llama", 32), "selection.rule=coreset", "selection.pool=3",
                         "selection.features=2", "loop.batch_size=4", "loop.seed=7")  # fmt: skip
    data = examples()
    batch, tokens = session.choose(data)
    pool = [data[place] for place in batch_indices(7, 1, 12, 24)]
    assert tokens == 2 * 2 * sum(map(count_tokens, pool))
    epsilon, columns = session.recipe.estimator.epsilon, []
    for probe in range(2):
        z = normal(7, 1, probe, session.tuned.values.numel(), stream=Stream.FEATURES)
        losses = session.probe(pool, z[None]).examples(torch.tensor([[epsilon], [-epsilon]]))
        columns.append(((losses[0] - losses[1]) / (2 * epsilon)).numpy())
    assert batch == [pool[place] for place in facility_location(np.stack(columns, axis=1), 4)]
    assert session.choose(data) == (batch, tokens)
    assert session.choose(data[:4]) == ([data[place] for place in batch_indices(7, 1, 4, 4)], 0)
    assert session.choose(data[:3]) == ([data[place] for place in batch_indices(7, 1, 4, 3)], 0), "as many, some twice"


def test_shuffled_batches_are_those_of_the_order(frozen_tiny):
    session = session_of(frozen_tiny("llama", 32), "loop.batch_size=5", "loop.seed=3")
    session.step, data = 6, examples()
    assert session.choose(data) == ([data[place] for place in batch_indices(3, 7, 5, 24)], 0)


def test_a_run_on_core_sets_is_resumed_and_replayed(make, tmp_path):
    chosen = make(selection={"rule": "coreset"})
    whole = list(training.train(chosen, folder=tmp_path / "whole"))
    plain = list(training.train(make(), folder=tmp_path / "plain"))
    assert of(e.Step, whole)[0].tokens > 5 * of(e.Step, plain)[0].tokens
    for event in training.train(chosen, folder=tmp_path / "parts"):
        if isinstance(event, e.Step) and event.step == 3:
            break
    assert list(training.resume(tmp_path / "parts"))[-1].hash == whole[-1].hash
    assert finish(open_session(open_run(tmp_path / "whole"), from_checkpoints=False)).tuned.hash() == whole[-1].hash


def test_a_pool_that_is_too_large_is_refused():
    with pytest.raises(UserError, match="makes a pool of 8,192 examples"):
        with_settings(Recipe(), ["loop.batch_size=128", "selection.rule=coreset", "selection.pool=64"])
