"""Several workers, in real processes: the same bits however many there are, and what happens when one of them ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from sparsezo_gui import recipe
from sparsezo_gui.engine import device as devices
from sparsezo_gui.engine import training
from sparsezo_gui.engine.runs import journal
from sparsezo_gui.engine.runs.folder import open_run
from sparsezo_gui.engine.workers import shares
from sparsezo_gui.recipe import events as e
from sparsezo_gui.recipe.registry import ESTIMATORS
from tests.own_code import own_code

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
    "directions found again": {"mask": {"rule": "gradient-subspace", "directions": 2, "examples": 12, "refresh": 2,
                                        "sequences": 2, "tokens": 32}},
    "the last blocks": {"mask": {"rule": "random", "blocks": "half"}},
    "eight bits": {"model": {"bits": 8, "compute": "int8" if devices.has_int8() else "auto"}},
}  # fmt: skip


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


LONG = {"loop": {"steps": 60, "evaluate_every": 20}, "update": {"learning_rate": 1e-3}}


def stopped_and_resumed(workers, tmp_path, run, size):
    """Whether the run in 'run', resumed on ``size`` workers, ends with the bits of one that was never stopped."""
    there = journal.read(tmp_path / "run" / "journal.bin").step
    assert 0 < there < 60
    group = workers(size, "resume", tmp_path / "run") if size else workers(1, "resume", tmp_path / "run", alone=True)
    assert group.end() == [0] * len(group.processes), group.error()
    assert group.events()[-1]["hash"] == [event for event in run.events() if isinstance(event, e.Finished)][-1].hash
    same_bits(run, open_run(tmp_path / "run"))


@pytest.mark.slow
@pytest.mark.parametrize("exact", [False, True])
def test_a_killed_helper_ends_the_step_and_the_run_resumes(alone, workers, tmp_path, exact):
    file, run = alone(**LONG, **({"estimator": {"rule": "first-order"}} if exact else {}))
    group = workers(3, "train", file, "--run", tmp_path / "run")
    group.at_step(3)
    group.kill(1)
    codes = group.end()
    assert codes[0] == 1 and codes[1] == -signal.SIGKILL and codes[2] in (0, 1)
    assert "is lost" in group.error() and "Resume the run" in group.error() and "Traceback" not in group.error()
    assert group.error(2) == ""
    stopped_and_resumed(workers, tmp_path, run, 2)


@pytest.mark.slow
def test_a_killed_leader_ends_all_and_the_run_resumes_alone(alone, workers, tmp_path):
    file, run = alone(**LONG)
    group = workers(3, "train", file, "--run", tmp_path / "run")
    group.at_step(3)
    group.kill(0)
    assert group.end() == [-signal.SIGKILL, 1, 1]
    assert group.error(1) + group.error(2) == ""
    stopped_and_resumed(workers, tmp_path, run, 0)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_stops_them_at_the_same_step(alone, workers, tmp_path, number):
    file, run = alone(**LONG)
    group = workers(2, "train", file, "--run", tmp_path / "run")
    group.at_step(3)
    group.kill(1, number)
    group.kill(0, number)
    assert group.end() == [0, 0], group.error()
    assert group.events()[-1]["reason"] == "stopped"
    stopped_and_resumed(workers, tmp_path, run, 4)


@pytest.mark.slow
def test_a_run_that_was_being_prepared_is_resumed_on_all(alone, workers, tmp_path):
    file, run = alone()
    events = training.train(recipe.load(file), folder=tmp_path / "run")
    next(event for event in events if isinstance(event, e.Preparing))
    events.close()
    group = workers(2, "resume", tmp_path / "run")
    assert group.end() == [0, 0], group.error()
    assert any("2 workers share" in event["text"] for event in group.events() if event["event"] == "notice")
    same_bits(run, open_run(tmp_path / "run"))


@pytest.mark.slow
def test_a_slow_link_changes_nothing(alone, workers, tmp_path):
    from tests.workers import Cable

    file, run = alone(estimator={"rule": "elastic"})
    group = workers(2, "train", file, "--run", tmp_path / "run", cable=Cable(delay=0.02))
    assert group.end() == [0, 0], group.error()
    same_bits(run, open_run(tmp_path / "run"))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["cut", "silent"])
def test_a_broken_link_ends_the_step_and_the_run_resumes(alone, workers, tmp_path, how):
    from tests.workers import Cable

    file, run = alone(**LONG)
    cable = Cable()
    patience = {"SPARSEZO_PATIENCE": "20"} if how == "silent" else {}
    group = workers(2, "train", file, "--run", tmp_path / "run", cable=cable, environment=patience)
    group.at_step(3)
    getattr(cable, how).set()
    if how == "silent":  # a helper waits for as long as it takes, which ends with torchrun
        group.ended(0)
        group.kill(1)
    codes = group.end()
    assert codes[0] == 1 and codes[1] in (1, -signal.SIGKILL)
    assert "is lost" in group.error() and "Traceback" not in group.error()
    assert group.error(1) == ""
    stopped_and_resumed(workers, tmp_path, run, 2)


@pytest.mark.slow
def test_a_worker_that_lacks_the_users_consent_says_so(make, workers, tmp_path):
    folder = own_code(tmp_path / "own", tmp_path / "marker")
    chosen = make(model={"id": str(folder), "trust_remote_code": True}, loop={"steps": 2, "pass_rows": ROWS})
    file = tmp_path / "recipe.toml"
    file.write_text(recipe.dump(chosen))
    group = workers(2, "train", file, "--run", tmp_path / "run", "--trust-remote-code", without_trust={1})
    assert group.end()[0] == 2
    assert "Worker 1 of 2 cannot go on" in group.error() and "--trust-remote-code" in group.error()
    assert not (tmp_path / "run" / "run.json").exists()
    group = workers(2, "train", file, "--run", tmp_path / "run", "--trust-remote-code")
    assert group.end() == [0, 0], group.error()


HUGE = {"do": "begin", "tensors": [["float32", [1 << 40, 1 << 40]]]}
NO_ORDERS = {
    "a negative length": -1, "a huge length": 1 << 60, "no JSON": b"{", "no object": b"[]", "nothing to do": b"{}",
    "another method": b'{"do": "_init__", "tensors": []}', "a huge tensor": json.dumps(HUGE).encode(),
    "an unknown dtype": b'{"do": "begin", "tensors": [["object", [1]]]}', "deeply nested": b"[" * 100_000,
    "a negative size": b'{"do": "begin", "tensors": [["float32", [-1]]]}',
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("what", NO_ORDERS)
def test_a_helper_refuses_what_is_no_order(what):
    from tests.workers import leaders_words

    found = leaders_words(NO_ORDERS[what])
    assert found.startswith("Worker 1 of 2 cannot go on. ") and "The leader's order cannot be read." in found


@pytest.mark.slow
@pytest.mark.parametrize("head", [(0, 1 << 60), (0, 2), (0, -1), (1, 1 << 60), (1, 0), (1, -1)])
def test_the_leader_refuses_what_it_did_not_ask_for(head):
    from tests.workers import leaders_words

    assert leaders_words(answer=head).startswith("Worker 1 of 2 did not answer what it was asked.")


REFUSED = {
    "objective": {"objective": {"rule": "f1"}, "data": {"task": "completion"}},
    "selection": {"selection": {"rule": "coreset"}},
}


@pytest.mark.slow
@pytest.mark.parametrize("table", REFUSED)
def test_what_cannot_be_shared_is_refused(make, workers, tmp_path, table):
    file = tmp_path / "recipe.toml"
    file.write_text(recipe.dump(make(**REFUSED[table])))
    group = workers(2, "train", file, "--run", tmp_path / "run")
    assert group.end() == [2, 0]
    assert f"[{table}] rule = " in group.error() and "several workers" in group.error()
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_other_commands_run_in_one_process(workers, tmp_path):
    group = workers(2, "methods")
    assert group.end() == [2, 2]
    assert "start it without torchrun" in group.error() and group.error(1) == ""


@pytest.mark.slow
def test_torchrun_restarts_a_run_that_it_resumes(alone, tmp_path):
    """The command of the guide, as it is; a worker is killed, and the run goes on by itself."""
    file, run = alone(**LONG)
    command = [
        "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "1",
        "-m", "sparsezo_gui.cli", "train", str(file), "--json", "--set", f"run.folder={tmp_path / 'run'}",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        agent = subprocess.Popen([sys.executable, "-m", *command], env=environment, stdout=out, stderr=err)
    try:
        wait_for(lambda: '"event": "step"' in (tmp_path / "out").read_text(), agent)
        helpers = [each for each in psutil.Process(agent.pid).children() if each.environ().get("RANK") == "1"]
        helpers[0].kill()
        assert agent.wait(300) == 0, (tmp_path / "err").read_text()
    finally:
        for each in psutil.Process(agent.pid).children(recursive=True) if agent.poll() is None else ():
            each.kill()
        agent.kill()
        agent.wait()
    told = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    assert sum(event["event"] == "started" for event in told) == 2
    same_bits(run, open_run(tmp_path / "run"))


def wait_for(happened, process, seconds=300.0):
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.05)
