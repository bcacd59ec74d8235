"""Several workers, in real processes: the same bits however many there are, and what happens when one of them ends."""

from __future__ import annotations

import os

import pytest

from sparsezo_gui import recipe
from sparsezo_gui.engine import training
from sparsezo_gui.engine.runs import journal
from sparsezo_gui.engine.runs.folder import open_run
from sparsezo_gui.engine.workers import shares
from sparsezo_gui.recipe import events as e
from sparsezo_gui.recipe.registry import ESTIMATORS

pytestmark = pytest.mark.skipif(os.name == "nt", reason="processes are forked")
ROWS = 48  # of a pass, so that even these tiny batches are several


@pytest.mark.parametrize(
    ("rows", "workers", "expected"),
    [
        ([], 2, [0, 0]), ([7], 2, [0, 1]), ([5, 5], 2, [1, 1]), ([5, 5, 5], 2, [1, 2]), ([9, 1, 1, 1], 2, [1, 3]),
        ([5] * 8, 4, [2, 2, 2, 2]), ([5] * 8, 1, [8]), ([5], 4, [0, 0, 1, 0]),
    ],
)  # fmt: skip
def test_neighbours_are_shared_by_their_rows(rows, workers, expected):
    found = shares(rows, workers)
    assert [len(units) for units in found] == expected
    assert [unit for units in found for unit in units] == list(range(len(rows)))


@pytest.fixture
def alone(make, tmp_path):
    """``alone(**tables)``: a recipe file, and the run of it in this process alone."""

    def made(**tables):
        tables["loop"] = {"steps": 6, "batch_size": 6, "pass_rows": ROWS, **tables.get("loop", {})}
        chosen = make(**tables)
        file = tmp_path / "recipe.toml"
        file.write_text(recipe.dump(chosen))
        list(training.train(chosen, folder=tmp_path / "alone"))
        return file, open_run(tmp_path / "alone")

    return made


@pytest.fixture
def workers(tmp_path):
    """``workers(size, *arguments)``: started workers, killed after the test."""
    from tests.workers import Workers

    started = []

    def start(size, *arguments, **others):
        folder = tmp_path / f"workers{len(started)}"
        started.append(Workers(size, [*arguments, "--json"], folder, **others).start())
        return started[-1]

    yield start
    for group in started:
        for process in group.processes:
            process.kill()
            process.join()


def same_bits(one, other):
    """Whether all that two runs measured is the same, and so are their values."""
    first, second = (journal.read(run.journal).steps for run in (one, other))
    ends = [[event for event in run.events() if isinstance(event, e.Finished)][-1] for run in (one, other)]
    metrics = [[event.metrics for event in run.events() if isinstance(event, e.Evaluation)] for run in (one, other)]
    assert first["values"].tolist() == second["values"].tolist() and first["loss"].tolist() == second["loss"].tolist()
    assert first["tokens"].tolist() == second["tokens"].tolist()
    assert ends[0].hash == ends[1].hash and len(first) > 1
    assert metrics[0] == metrics[1] and metrics[0]


SHARED = {
    "several points": {"estimator": {"rule": "two-sided", "directions": 3}},
    "exact gradients": {"estimator": {"rule": "first-order"}, "update": {"rule": "adam"}},
}
MORE = {
    **{rule: {"estimator": {"rule": rule}} for rule in ESTIMATORS if rule not in ("auto", "two-sided", "first-order")},
    "decisions of the update": {"update": {"rule": "conservative"}},
    "a space of low rank": {"mask": {"rule": "subspace"}},
    "an adapter": {"mask": {"rule": "lora"}, "estimator": {"rule": "first-order"}},
    "all weights": {"mask": {"rule": "all"}, "model": {"bits": 32}},
    "a learning rate that is found": {"update": {"find_rate": True}, "loop": {"steps": 200, "evaluate_every": 0}},
    "the last blocks": {"mask": {"rule": "random", "blocks": "half"}},
    "eight bits": {"model": {"bits": 8, "compute": "int8"}},
}


def check(workers, tmp_path, file, run, size):
    group = workers(size, "train", file, "--run", tmp_path / f"run{size}")
    assert group.end() == [0] * size, group.error()
    assert [group.error(rank) + group.out(rank).read_text() for rank in range(1, size)] == [""] * (size - 1)
    same_bits(run, open_run(tmp_path / f"run{size}"))
    return group


@pytest.mark.parametrize("what", SHARED)
def test_two_workers_have_the_bits_of_one(alone, workers, tmp_path, what):
    group = check(workers, tmp_path, *alone(**SHARED[what]), 2)
    told = [event["text"] for event in group.events() if event["event"] == "notice"]
    assert any("2 workers share" in text for text in told)
    assert any("bytes per step" in text and "Work of workers 0 to 1" in text for text in told)


@pytest.mark.slow
@pytest.mark.parametrize("what", SHARED)
def test_four_workers_have_the_bits_of_one(alone, workers, tmp_path, what):
    check(workers, tmp_path, *alone(**SHARED[what]), 4)


@pytest.mark.slow
@pytest.mark.parametrize("what", MORE)
def test_whatever_can_be_shared_has_the_bits_of_one(alone, workers, tmp_path, what):
    check(workers, tmp_path, *alone(**MORE[what]), 3)
