"""The list of runs: quick and small, whatever lies in the folders."""

from __future__ import annotations

import os
import shutil

import pytest

from sparsezo_gui.engine.runs import listing
from sparsezo_gui.engine.runs.branch import branch
from sparsezo_gui.engine.runs.folder import create
from sparsezo_gui.engine.runs.lineage import lineage_of
from sparsezo_gui.engine.runs.listing import list_runs
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe import events as e
from tests.engine.runs.made import FACTS, long_run_of, run_of
from tests.work import calls, peak

NOTHING = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # SHA-256 of no records


def evaluation(step, accuracy=0.5):
    return e.Evaluation(step, "validation", {"accuracy": accuracy, "loss": 1.0})


def test_branches_within_each_other_are_listed_in_linear_time(home):
    """Somewhat more, since paths become longer; where each level looked at all others, 9 times more."""
    path, count = home / "runs" / "r", 150
    run = create(path, Recipe(), FACTS)
    listed, led = [], []
    for number in range(1, count + 1):
        path = path / "branches" / "b"
        run = create(path, Recipe(), {**FACTS, "branched": {"step": 0, "records": 0, "hash": NOTHING}})
        if number in (count // 3, count):
            listed.append(calls(list_runs))
            led.append(calls(lambda run=run: lineage_of(run)))
    assert len(list_runs()) == count + 1
    assert listed[1] < 6 * listed[0] and led[1] < 6 * led[0], (listed, led)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(listing, "DEEPEST", 10)
        assert len(list_runs()) == 10


def test_many_runs_are_listed_in_a_moment(home):
    """At 5000 calls each, a thousand take less than two seconds."""
    run = run_of(home / "runs" / "run", 40)
    for step in range(0, 50, 10):
        run.record(evaluation(step))
    for number in range(99):
        shutil.copytree(run.path, home / "runs" / f"run{number}")
    list_runs()
    assert calls(list_runs) < 5000 * 100
    assert len(list_runs()) == 100


def test_links_lead_nowhere_twice(home, tmp_path):
    run = run_of(home / "runs" / "run")
    branch(run, 3, name="branch")
    (run.path / "branches" / "loop").symlink_to(run.path)
    (run.path / "branches" / "branch" / "branches").symlink_to(run.path / "branches")
    (home / "runs" / "again").symlink_to(run.path)
    (home / "runs" / "circle").symlink_to("circle")
    elsewhere = run_of(tmp_path / "elsewhere")
    (home / "runs" / "linked").symlink_to(elsewhere.path)
    assert sorted(each.name for each in list_runs()) == ["branch", "elsewhere", "run"]
    assert {each.path for each in list_runs()} >= {str(elsewhere.path)}


def test_a_run_of_many_steps_is_listed_by_its_end(home):
    took = []
    for steps in (400, 400_000):
        shutil.rmtree(home / "runs", ignore_errors=True)
        long_run_of(home / "runs" / "run", steps).record(e.Evaluation(steps, "test", {"accuracy": 0.75}))
        assert peak(list_runs) < 2**21
        took.append(calls(list_runs))
        assert [(each.step, each.metrics) for each in list_runs()] == [(steps, {"accuracy": 0.75})]
    assert abs(took[1] - took[0]) < 10, took


@pytest.mark.parametrize("what", ["one line", "many lines", "zeros"])
def test_a_run_that_told_too_much_is_listed_all_the_same(home, what):
    run = run_of(home / "runs" / "run")
    line_of = b'{"event": "evaluation", "step": 1, "split": "validation", "metrics": {"accuracy": 1.0}}\n'
    with (run.path / "events.jsonl").open("wb") as file:
        if what == "one line":
            file.write(line_of[:-1] + b" " * 2**24 + line_of)
        elif what == "many lines":
            file.write(line_of * 200_000)
        else:
            file.truncate(2**36)
            file.seek(0, os.SEEK_END)
            file.write(b"\n")
    run.record(evaluation(2, 0.25))
    assert peak(list_runs) < 2**24
    assert calls(list_runs) < 7 * 200_000  # a few for each line at most, and none for most of a large file
    assert list_runs()[0].metrics == {"accuracy": 0.25, "loss": 1.0}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
@pytest.mark.parametrize("name", ["run.json", "recipe.toml", "journal.bin", "events.jsonl", "notes.md", "lock"])
def test_a_pipe_in_a_run_is_not_waited_for(home, name):
    run_of(home / "runs" / "other")
    run = run_of(home / "runs" / "run")
    (run.path / name).unlink(missing_ok=True)
    os.mkfifo(run.path / name)
    states = {each.name: each.state for each in list_runs()}
    whole = name in ("notes.md", "lock")
    assert states == {"other": "stopped", **({} if name == "run.json" else {"run": "stopped" if whole else "damaged"})}


def test_what_a_summary_says_of_thousands_of_evaluations(home):
    run = run_of(home / "runs" / "run", 40)
    for step in range(41):
        run.record(evaluation(step, 1 - abs(step - 7) / 100))
        run.record(e.Examples(step, "validation", [{"number": 1, "prompt": "x" * 5000}], []))
    run.record(e.Returned(30))
    assert list_runs()[0].best == 7 and list_runs()[0].metrics["accuracy"] == pytest.approx(0.77)
