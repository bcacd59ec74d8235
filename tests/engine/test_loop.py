"""What a run can be asked: going back, past steps, answers, branches, letting go of memory, waiting by itself."""

from __future__ import annotations

import gc
import json
import re
import shutil
import threading
import weakref
from dataclasses import replace
from functools import partial
from queue import SimpleQueue

import pytest
import torch

from sparsezo_gui.engine import training
from sparsezo_gui.engine.data.prompts import encode_prompt
from sparsezo_gui.engine.generate import reply
from sparsezo_gui.engine.loop import control, evaluation, loading, running
from sparsezo_gui.engine.runs import checkpoints, journal
from sparsezo_gui.engine.runs.branch import branch
from sparsezo_gui.engine.runs.folder import RunFolder, open_run
from sparsezo_gui.engine.runs.history import history
from sparsezo_gui.engine.runs.journal_writer import JournalWriter
from sparsezo_gui.engine.runs.lineage import lineage_of
from sparsezo_gui.engine.runs.listing import list_runs
from sparsezo_gui.engine.session import opening
from sparsezo_gui.engine.session import replay as replays
from sparsezo_gui.engine.session.loading import load_data, load_model
from sparsezo_gui.engine.session.opening import open_session
from sparsezo_gui.engine.zo import generator
from sparsezo_gui.engine.zo.estimators import Estimate
from sparsezo_gui.engine.zo.estimators.fzoo import FZOO
from sparsezo_gui.engine.zo.estimators.two_sided import TwoSided
from sparsezo_gui.errors import DiskFull, UserError
from sparsezo_gui.recipe import events as e
from sparsezo_gui.recipe import outcome
from sparsezo_gui.recipe.registry import UPDATES
from tests.engine.conftest import finish, of


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Key frames every two steps, and short waits."""
    monkeypatch.setattr(checkpoints, "spacing", lambda size, again=False: 2)
    monkeypatch.setattr(running, "POLL", 0.01)


def drive(events, script):
    """Pulls events; ``script(event)`` gives commands to put into the queue."""
    told, commands = [], events[1]
    for event in events[0]:
        told.append(event)
        for command in script(event) or ():
            commands.put(command)
    return told


def train(chosen, folder, script=lambda event: None):
    commands = SimpleQueue()
    return drive((training.train(chosen, commands, folder=folder), commands), script)


def resume(folder, script=lambda event: None, paused=False):
    commands = SimpleQueue()
    return drive((training.resume(folder, commands, paused), commands), script)


def at(step, *commands):
    """A script that gives ``commands`` after ``step``."""
    return lambda event: commands if isinstance(event, e.Step) and event.step == step else ()


def loaded(run, session):
    """The run with the model of a session at any of its steps."""
    data = finish(load_data(session.recipe, session.model))
    return running.Running(run, SimpleQueue(), running.Loaded(session, data))


def hashes(path, count):
    """Of the values at each step, restored in one session."""
    run = open_run(path)
    session = finish(opening.loaded(run))
    return [(finish(opening.restore(session, run, step)), session.tuned.hash())[1] for step in range(count + 1)]


def same(mine, theirs):
    """Whether two states are the same bits."""
    if isinstance(mine, torch.Tensor):
        return torch.equal(mine, theirs)
    if isinstance(mine, tuple):
        return len(mine) == len(theirs) and all(map(same, mine, theirs))
    return mine == theirs


QUICK = ("scalar-normalised", "adam")  # whose states are a number, and tensors
EACH = [each if each in QUICK else pytest.param(each, marks=pytest.mark.slow) for each in UPDATES]


@pytest.mark.parametrize("update", EACH)
def test_any_step_is_the_same_from_a_key_frame_and_from_the_beginning(make, tmp_path, update):
    train(make(update={"rule": update, "learning_rate": 1e-3}), tmp_path / "run")
    run = open_run(tmp_path / "run")
    assert [frame.step for frame in checkpoints.listed(run.path)] == [2, 4, 6]
    with_frames, without = (finish(open_session(run, 6, use)) for use in (True, False))
    for step in reversed(range(7)):
        for session, use in ((with_frames, True), (without, False)):
            finish(opening.restore(session, run, step, use))
        assert with_frames.tuned.hash() == without.tuned.hash()
        assert same(tuple(with_frames.state), tuple(without.state)) and with_frames.step == step


def test_directions_drawn_ahead_are_the_same(make, tmp_path, monkeypatch):
    told = train(make(estimator={"directions": 2}), tmp_path / "run")
    monkeypatch.setattr(replays, "DRAWN_AHEAD", 1)
    for threads in (1, 3):
        monkeypatch.setattr(replays.torch, "get_num_threads", lambda threads=threads: threads)
        assert finish(open_session(open_run(tmp_path / "run"), from_checkpoints=False)).tuned.hash() == told[-1].hash


def test_a_damaged_key_frame_costs_only_time(make, tmp_path):
    told = train(make(), tmp_path / "run")
    for frame in checkpoints.listed(tmp_path / "run")[1:]:
        frame.path.write_bytes(frame.path.read_bytes()[:-7])
    assert finish(open_session(open_run(tmp_path / "run"))).tuned.hash() == told[-1].hash


def test_undo_in_a_running_loop(make, tmp_path):
    whole = train(make(), tmp_path / "whole")
    left = [e.GoBack(3)]
    told = train(make(), tmp_path / "run", lambda event: [left.pop()] if left and at(5, 1)(event) else ())
    assert [event.step for event in of(e.Step, told)] == [1, 2, 3, 4, 5, 4, 5, 6]
    assert [event.step for event in of(e.Returned, told)] == [3]
    assert told[-1].hash == whole[-1].hash == finish(open_session(open_run(tmp_path / "run"))).tuned.hash()
    found = journal.read(tmp_path / "run" / "journal.bin")
    assert (len(found.records), found.step, found.fault) == (9, 6, "")
    # Evaluations of steps that were gone back over do not count any more.
    counted = of(e.Evaluation, outcome.on_lineage(open_run(tmp_path / "run").events()))
    assert [(each.step, each.split) for each in counted] == [
        (0, "validation"), (4, "validation"), (6, "validation"), (0, "test"), (6, "test"),
    ]  # fmt: skip


def test_undo_is_kept_when_nothing_follows_it(make, tmp_path):
    left = [e.GoBack(2), e.Stop()]
    told = train(make(), tmp_path / "run", lambda event: [left.pop(0), left.pop(0)] if left and at(5, 1)(event) else ())
    assert (told[-1].step, told[-1].reason) == (2, "stopped")
    run = open_run(tmp_path / "run")
    assert lineage_of(run).step == 2 and finish(open_session(run)).tuned.hash() == told[-1].hash
    rest = resume(tmp_path / "run")
    assert of(e.Started, rest)[0].first == 3
    assert rest[-1].hash == train(make(), tmp_path / "whole")[-1].hash


def test_a_return_that_was_journalled_and_not_told_is_told_later(make, tmp_path):
    train(make(), tmp_path / "run", at(5, e.Stop()))
    run = open_run(tmp_path / "run")
    with JournalWriter(run.journal, run.header) as writer:
        writer.go_back(3)
    resume(tmp_path / "run")
    assert [event.step for event in of(e.Returned, run.events())] == [3]


def test_a_step_that_is_not_there_is_a_sentence_and_the_run_goes_on(make, tmp_path):
    told = train(make(), tmp_path / "run", at(2, e.GoBack(40), e.EvaluateNow(step=9)))
    texts = [event.text for event in of(e.Notice, told)]
    assert [text for text in texts if "there is no step 40" in text] and [t for t in texts if "no step 9" in t]
    assert told[-1].reason == "done"


def test_past_steps_are_evaluated_and_answer_while_the_run_goes_on(make, tmp_path):
    whole = train(make(), tmp_path / "whole")
    asked = (e.EvaluateNow("test", 2), e.EvaluateNow("test"), e.Ask("the cat", 6, 0), e.Ask("the cat", 6, 3))
    told = train(make(), tmp_path / "run", at(5, *asked))
    assert told[-1].hash == whole[-1].hash
    run = open_run(tmp_path / "run")
    tested = [event for event in of(e.Evaluation, told) if event.split == "test"]
    assert [event.step for event in tested] == [0, 2, 5, 6]  # the base model once, before the first that was asked for
    for event in tested:
        session = finish(open_session(run, event.step))
        now = loaded(run, session)
        assert of(e.Evaluation, evaluation.evaluated(now, now.model, "test"))[0].metrics == event.metrics
    answers = of(e.Answer, told)
    assert [event.step for event in answers if event.last] == [0, 3]
    for step in (0, 3):
        session = finish(open_session(run, step))
        with session.tuned.applied():
            asked = encode_prompt(session.recipe.data, session.model.tokenizer, "the cat", ("no", "yes"))
            plain = "".join(reply(session.model, asked, 6))
        assert "".join(event.text for event in answers if event.step == step) == plain


def test_a_run_that_is_done_can_be_opened_to_look_at_it(make, tmp_path):
    done = train(make(), tmp_path / "run")
    size = (tmp_path / "run" / "journal.bin").stat().st_size

    def script(event):
        if isinstance(event, e.Paused):
            return (e.Stop(),) if any(isinstance(each, e.Evaluation) for each in seen) else (e.EvaluateNow("test", 3),)
        seen.append(event)
        return ()

    seen = []
    told = resume(tmp_path / "run", script, paused=True)
    assert not of(e.Step, told) and told[-1].hash == done[-1].hash
    assert (tmp_path / "run" / "journal.bin").stat().st_size == size
    assert list_runs(tmp_path / "run")[0].state == "done"
    assert of(e.Finished, open_run(tmp_path / "run").events()) == [done[-1]]


def test_what_was_asked_before_it_is_open_is_done_before_it_waits(make, tmp_path):
    train(make(), tmp_path / "run")
    commands = SimpleQueue()
    commands.put(e.EvaluateNow("test", 3))
    told = []
    for event in training.resume(tmp_path / "run", commands, paused=True):
        told.append(event)
        if isinstance(event, e.Paused) and commands.empty():  # whoever pulls waits here for what is asked next
            commands.put(e.Stop())
    assert [type(event) for event in told if isinstance(event, e.Evaluation | e.Paused)] == [e.Evaluation, e.Paused]


def test_a_paused_loop_lets_go_of_the_model_and_takes_it_up_again(make, tmp_path, monkeypatch):
    whole = train(make(), tmp_path / "whole")
    models = []  # weakly, all that were loaded

    def load(table):
        model = yield from load_model(table)
        models.append(weakref.ref(model))
        return model

    monkeypatch.setattr(training, "load_model", load)

    def script(event):
        if isinstance(event, e.Step) and event.step == 3:
            assert models[0]() is not None
            return (e.SetRate(1.0), e.Release())
        if isinstance(event, e.Released) and models:
            gc.collect()
            assert models.pop()() is None and not models
            return (e.Ask("the cat", 2), e.Release(), e.Resume())
        return ()

    told = train(make(), tmp_path / "run", script)
    assert len(of(e.Released, told)) == 2
    assert told[-1].hash == whole[-1].hash


def test_a_model_that_is_gone_when_it_is_wanted_again_ends_the_run_with_a_sentence(make, tmp_path):
    chosen = make()

    def script(event):
        if isinstance(event, e.Step) and event.step == 3:
            return (e.Release(),)
        if isinstance(event, e.Released):
            (tmp_path / "llama").rename(tmp_path / "elsewhere")
            return (e.Resume(),)
        return ()

    with pytest.raises(UserError, match="llama"):
        train(chosen, tmp_path / "run", script)
    (tmp_path / "elsewhere").rename(tmp_path / "llama")
    assert resume(tmp_path / "run")[-1].hash == train(chosen, tmp_path / "whole")[-1].hash


def test_a_rate_that_was_changed_survives_letting_go(make, tmp_path):
    told = train(make(), tmp_path / "run", at(3, e.SetRate(0.5), e.Release(), e.Resume()))
    rates = [event.rate for event in of(e.Step, told)]
    assert rates[3:] == [rates[0] / 2] * 3


def test_where_losses_are_rounded_otherwise_a_run_ends_nearly_the_same(make, tmp_path):
    """As on another device: the steps before are the same bits, those taken there differ by rounding."""
    chosen = make(update={"rule": "sgd", "learning_rate": 1e-3})
    train(chosen, tmp_path / "whole")
    train(chosen, tmp_path / "moved", at(3, e.Stop()))
    facts = tmp_path / "moved" / "run.json"
    facts.write_text(facts.read_text().replace('"pack_rows": 1024', '"pack_rows": 40'))
    resume(tmp_path / "moved")
    here, there = (finish(open_session(open_run(tmp_path / name))).tuned for name in ("whole", "moved"))
    assert here.hash() != there.hash()
    assert (here.values - there.values).norm() < 1e-3 * (here.values - here.start).norm()
    assert hashes(tmp_path / "whole", 3) == hashes(tmp_path / "moved", 3)


# Branches


def test_a_branch_goes_on_from_its_step_and_shares_what_was_before(make, tmp_path):
    train(make(), tmp_path / "run")
    parent = open_run(tmp_path / "run")
    made = branch(parent, 3, ["loop.seed=9", "update.learning_rate=1e-3"], "other seed")
    assert (made.path.parent.parent, made.name, made.mask) == (parent.path, "other seed", parent.mask)
    told = resume(made.path)
    assert [event.step for event in of(e.Step, told)] == [4, 5, 6]
    assert made.journal.stat().st_size == 128 + 3 * 60
    # Plainly: three steps of the parent, then three with the branch's seed and rate.
    session = finish(open_session(parent, 3))
    for record in journal.read(made.journal).records:
        z = generator.Source(9, session.step + 1, session.tuned.values.numel()).normal(1)
        session.advance(z, record["values"].tolist(), float(record["rate"]), recipe=made.recipe)
    assert session.tuned.hash() == told[-1].hash == finish(open_session(made, from_checkpoints=False)).tuned.hash()
    mine, theirs = hashes(made.path, 6), hashes(tmp_path / "run", 6)
    assert mine[:4] == theirs[:4] and mine[4:] != theirs[4:]
    assert [len(part) for part in history(made.path).steps] == [3, 3]
    assert [event.step for event in of(e.Evaluation, history(made.path).events)][:2] == [0, 0]


def test_a_branch_without_changes_ends_where_its_parent_ends(make, tmp_path):
    told = train(make(), tmp_path / "run")
    assert resume(branch(open_run(tmp_path / "run"), 4).path)[-1].hash == told[-1].hash


def test_what_the_parent_does_later_does_not_touch_a_branch(make, tmp_path):
    train(make(), tmp_path / "run", at(5, e.Stop()))
    made = branch(open_run(tmp_path / "run"), 5, ["loop.steps=8"])
    told = resume(made.path)
    rest = [e.GoBack(1), e.SetRate(3.0)]
    commands = SimpleQueue()
    for command in rest:
        commands.put(command)
    list(training.resume(tmp_path / "run", commands))
    assert finish(open_session(made, from_checkpoints=False)).tuned.hash() == told[-1].hash
    assert [len(part) for part in history(made.path).steps] == [5, 3]


def test_branches_of_branches_and_of_steps_before_a_branch(make, tmp_path):
    train(make(loop={"steps": 9}), tmp_path / "run")
    first = branch(open_run(tmp_path / "run"), 4, ["loop.seed=9"], "first")
    resume(first.path)
    second = branch(first, 7, ["update.rule=scalar-normalised"], "second")
    assert second.path.parent.parent == first.path
    told = resume(second.path)
    assert finish(open_session(second, from_checkpoints=False)).tuned.hash() == told[-1].hash
    early = branch(second, 2, name="early")
    assert early.path.parent.parent == open_run(tmp_path / "run").path
    assert early.recipe.update.rule == "scalar-normalised"
    resume(early.path)
    session = finish(open_session(early))
    now = loaded(early, session)
    evaluate = partial(evaluation.evaluated, now)
    list(control.at(now, 1, lambda model: evaluate(model, "validation")))  # does not count as the result
    runs = list_runs(tmp_path / "run")
    assert runs[1].metrics == outcome.last_metrics(e for e in early.events() if getattr(e, "step", 0) == 9)
    assert [(run.name, run.start) for run in runs] == [("tiny", 0), ("early", 2), ("first", 4), ("second", 7)]
    assert [run.parent for run in runs][1:] == [runs[0].path, runs[0].path, runs[2].path]
    assert list_runs(second.path) == runs
    (second.path / "journal.bin").write_bytes(b"x")
    damaged = list_runs(tmp_path / "run")[-1]
    assert (damaged.state, damaged.parent) == ("damaged", str(first.path)) and "journal" in damaged.problem


def test_what_cannot_be_branched_is_told(make, tmp_path):
    train(make(), tmp_path / "run")
    run = open_run(tmp_path / "run")
    with pytest.raises(UserError, match="there is no step 40"):
        branch(run, 40)
    with pytest.raises(UserError, match="cannot change in a branch"):
        branch(run, 3, ["mask.density=0.5"])
    with pytest.raises(UserError, match="cannot change in a branch"):
        branch(run, 3, ["model.bits=8"])
    with pytest.raises(UserError, match="needs more steps"):
        branch(run, 6)
    assert not list((tmp_path / "run" / "branches").glob("*/run.json"))
    made = branch(run, 3)
    told = resume(made.path, at(5, e.GoBack(2)))
    assert [t for t in of(e.Notice, told) if "branched off at step 3" in t.text]


def test_a_branch_without_its_parent_says_so(make, tmp_path):
    train(make(), tmp_path / "run")
    made = branch(open_run(tmp_path / "run"), 3)
    shutil.copytree(made.path, tmp_path / "alone")
    with pytest.raises(UserError, match="no longer inside the folder"):
        lineage_of(open_run(tmp_path / "alone"))
    (tmp_path / "run" / "journal.bin").unlink()
    with pytest.raises(UserError, match="missing, but a branch starts from it"):
        lineage_of(made)


def test_other_data_in_a_branch(make, tmp_path):
    train(make(), tmp_path / "run")
    made = branch(open_run(tmp_path / "run"), 3, ["data.train=12"])
    assert made.facts.data_hash is None
    told = resume(made.path, at(4, e.Stop()))
    assert len(open_run(made.path).facts.data_hash) == 64
    resumed = resume(made.path)[-1].hash
    assert resumed == finish(open_session(made, from_checkpoints=False)).tuned.hash() != told[-1].hash


def test_a_changed_rate_stays_changed_in_a_branch_unless_it_has_its_own(make, tmp_path):
    train(make(), tmp_path / "run", at(2, e.SetRate(0.25)))
    rate = make().update.learning_rate
    for settings, expected in (([], 0.25 * rate), (["update.learning_rate=1e-3"], 1e-3)):
        told = resume(branch(open_run(tmp_path / "run"), 4, settings).path)
        assert of(e.Step, told)[0].rate == pytest.approx(expected)


# Best step, early end


def test_the_best_step_is_known_and_a_run_that_gets_no_better_ends_early(make, tmp_path):
    hopeless = {"rule": "sgd", "learning_rate": 1e-12}
    told = train(make(update=hopeless, loop={"steps": 40, "evaluate_every": 2, "patience": 3}), tmp_path / "run")
    assert (told[-1].reason, told[-1].step) == ("early", 8)
    assert [n for n in of(e.Notice, told) if "no better than that of step 2" in n.text]
    (run,) = list_runs(tmp_path / "run")
    assert (run.state, run.best) == ("done", 2)
    again = resume(tmp_path / "run")  # has its patience anew
    assert (again[-1].reason, again[-1].step) == ("early", 14)


def test_a_run_without_a_finite_loss_has_no_best_step(make, tmp_path, monkeypatch):
    real = evaluation.evaluate

    def broken(*arguments):
        found = yield from real(*arguments)
        return replace(found, metrics={**found.metrics, "loss": float("nan"), "accuracy": 1.0})

    monkeypatch.setattr(evaluation, "evaluate", broken)
    told = train(make(loop={"steps": 40, "evaluate_every": 2, "patience": 3}), tmp_path / "run")
    assert told[-1].reason == "early" and list_runs(tmp_path / "run")[0].best is None
    assert [n for n in of(e.Notice, told) if "The last 3 evaluations had no finite loss" in n.text]
    assert not [n for n in of(e.Notice, told) if "best" in n.text]


def test_the_best_and_the_worst_examples_are_told(make, tmp_path):
    told = train(make(), tmp_path / "run")
    shown = of(e.Examples, told)[-1]
    assert (shown.step, shown.split, len(shown.best), len(shown.worst)) == (6, "test", 5, 5)
    best, worst = ([each["loss"] for each in part] for part in (shown.best, shown.worst))
    assert best == sorted(best) and worst == sorted(worst, reverse=True) and best[0] < worst[0]
    first = shown.worst[0]
    assert "is it good?" in first["prompt"] and first["expected"] in ("yes", "no") and first["answer"] in ("yes", "no")


def test_an_evaluation_that_a_crash_came_before_is_made_up_for(make, tmp_path):
    whole = train(make(), tmp_path / "whole")
    part = training.train(make(), folder=tmp_path / "run")
    while not (isinstance(event := next(part), e.Step) and event.step == 4):
        pass
    part.close()
    told = [*open_run(tmp_path / "run").events(), *resume(tmp_path / "run")]
    for events in (whole, told):
        assert [event.step for event in of(e.Evaluation, events) if event.split == "validation"] == [0, 4, 6]


def test_a_rate_of_steps_gone_back_over_does_not_come_back(make, tmp_path):
    train(make(), tmp_path / "run", at(4, e.SetRate(3.0)))
    run = open_run(tmp_path / "run")
    with JournalWriter(run.journal, run.header) as writer:
        writer.go_back(2)  # and a crash before it is told
    now = running.Running(run, SimpleQueue())
    list(loading.load(now))
    assert (now.step, now.model.factor) == (2, 1.0)


def test_slopes_that_are_no_numbers_are_told_and_end_the_run(make, tmp_path, monkeypatch):
    monkeypatch.setattr(TwoSided, "estimate", lambda *args: Estimate((float("inf"),), 1.0))
    chosen = make(loop={"steps": 20})
    with pytest.raises(UserError, match="loss or gradient was not finite for 10 steps in a row"):
        train(chosen, tmp_path / "run")
    notices = of(e.Notice, open_run(tmp_path / "run").events())
    assert sum("had no finite gradient and was skipped" in notice.text for notice in notices) == 10


def test_an_update_that_measures_is_not_asked_where_nothing_was_measured(make, tmp_path, monkeypatch):
    monkeypatch.setattr(FZOO, "estimate", lambda *args: Estimate((float("nan"),) * 8, float("nan")))
    chosen = make(estimator={"rule": "fzoo"}, update={"rule": "conservative"}, loop={"steps": 20})
    with pytest.raises(UserError, match="10 steps in a row"):
        train(chosen, tmp_path / "run")


# Waiting by itself


def test_a_full_disk_pauses_the_run_and_nothing_is_lost(make, tmp_path, monkeypatch):
    whole = train(make(), tmp_path / "whole")
    tries = []
    write = JournalWriter._write

    def full(self, step, *rest):
        if step == 3 and len(tries) < 4:
            tries.append(step)
            raise DiskFull("the disk is full")
        write(self, step, *rest)

    monkeypatch.setattr(JournalWriter, "_write", full)
    told = train(make(), tmp_path / "run")
    assert len(tries) == 4 and told[-1].hash == whole[-1].hash
    paused = next(event for event in of(e.Paused, told))
    assert paused.reason == "the disk is full" and of(e.Resumed, told)


def test_a_full_disk_ends_the_run_where_the_user_wants_that(make, tmp_path, monkeypatch):
    def full(self, step, *rest):
        raise DiskFull("the disk is full")

    monkeypatch.setattr(JournalWriter, "_write", full)
    with pytest.raises(UserError, match="the disk is full"):
        train(make(run={"pause_on": []}), tmp_path / "run")


def test_a_run_that_waits_for_room_can_be_stopped(make, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:

        def full(self, step, *rest):
            raise DiskFull("the disk is full")

        patched.setattr(JournalWriter, "_write", full)
        with pytest.raises(UserError, match="the disk is full"):
            train(make(), tmp_path / "run", lambda event: (e.Stop(),) if isinstance(event, e.Paused) else ())
    assert resume(tmp_path / "run")[-1].hash == train(make(), tmp_path / "whole")[-1].hash


@pytest.mark.parametrize("ends_by", ["itself", "the user"])
def test_on_battery_the_run_waits(make, tmp_path, monkeypatch, ends_by):
    from types import SimpleNamespace

    from sparsezo_gui.engine import watch

    plugged = [True]
    monkeypatch.setattr(watch, "EVERY", 0.0)
    monkeypatch.setattr(
        watch.psutil, "sensors_battery", lambda: SimpleNamespace(power_plugged=plugged[0]), raising=False
    )

    def script(event):
        if isinstance(event, e.Step) and event.step == 2:
            plugged[0] = False
        if isinstance(event, e.Paused) and ends_by == "itself":
            plugged[0] = True
        if isinstance(event, e.Paused) and ends_by == "the user":
            return (e.Resume(),)
        return ()

    told = train(make(run={"pause_on": ["battery"]}), tmp_path / "run", script)
    names = [type(event).__name__ for event in told]
    assert names.count("Paused") == names.count("Resumed") == 1
    assert of(e.Paused, told)[0].reason == "the computer is on battery power"
    assert told[-1].hash == train(make(), tmp_path / "whole")[-1].hash


def test_no_thread_is_left(make, tmp_path):
    before = threading.active_count()
    train(make(), tmp_path / "run", at(2, e.Release(), e.Resume()))
    assert threading.active_count() == before


# What a tester broke


@pytest.mark.parametrize("first", [(e.Pause(),), (e.Release(),), (e.Pause(), e.EvaluateNow())])
def test_a_stop_during_a_pause_ends_without_another_pause(make, tmp_path, first):
    """Who pulls the events waits for a command at each pause, and would wait for ever."""
    commands, told = SimpleQueue(), []
    for event in training.train(make(), commands, folder=tmp_path / "run"):
        told.append(event)
        if isinstance(event, e.Step) and event.step == 2:
            for command in first:
                commands.put(command)
        if isinstance(event, e.Paused | e.Released) and commands.empty():
            commands.put(e.Stop())
            told.clear()
    assert not of(e.Paused, told) and not of(e.Released, told)
    assert (told[-1].reason, told[-1].step) == ("stopped", 2)


@pytest.mark.parametrize("settings", [["loop.seed=9"], ["update.rule=sgd"], ["estimator.directions=2"]])
def test_a_branch_that_goes_back_to_its_beginning_stays_itself(make, tmp_path, settings):
    train(make(update={"rule": "scalar-normalised", "learning_rate": 1e-3}), tmp_path / "run")
    made = branch(open_run(tmp_path / "run"), 3, settings)
    told = resume(made.path)
    commands = SimpleQueue()
    commands.put(e.GoBack(3))
    again = list(training.resume(made.path, commands))
    assert again[-1].hash == told[-1].hash == finish(open_session(made, from_checkpoints=False)).tuned.hash()
    twin = branch(made, 3)
    assert twin.path.parent.parent == made.path
    assert resume(twin.path)[-1].hash == told[-1].hash


def test_a_key_frame_of_steps_that_were_lost_is_not_taken_for_others(make, tmp_path, monkeypatch):
    train(make(), tmp_path / "run", at(4, e.Stop()))
    run = open_run(tmp_path / "run")
    content = bytearray(run.journal.read_bytes())
    content[128 + 2 * 60 + 9] ^= 1
    run.journal.write_bytes(content)
    monkeypatch.setattr(checkpoints, "spacing", lambda size, again=False: 100)
    commands = SimpleQueue()
    commands.put(e.SetRate(3.0))
    list(training.resume(run.path, commands))
    for step in (3, 4, 5):
        with_frames, without = (finish(open_session(run, step, use)).tuned.hash() for use in (True, False))
        assert with_frames == without


@pytest.mark.parametrize("prompt", ["", "x " * 3000, "half \ud83d"])
@pytest.mark.parametrize("family", [pytest.param("gpt2", marks=pytest.mark.slow), "llama"])
def test_no_question_ends_a_run(make, tmp_path, family, prompt):
    told = train(make(family), tmp_path / "run", at(2, e.Ask(prompt, 3), e.Ask("the cat", 3, 99), e.Ask("the cat", 3)))
    assert told[-1].reason == "done"
    assert [event.last for event in of(e.Answer, told)].count(True) == 3


def test_questions_are_put_as_the_runs_examples_or_raw(make, tmp_path):
    asked = (e.Ask("the cat", 4), e.Ask("the cat", 4, raw=True))
    told = of(e.Answer, train(make(), tmp_path / "run", at(2, *asked)))
    first = next(index for index, event in enumerate(told) if event.last)
    chosen, raw = ("".join(event.text for event in part) for part in (told[:first], told[first:]))
    assert re.fullmatch(r"(yes \d+ %\nno \d+ %)|(no \d+ %\nyes \d+ %)", chosen)
    assert raw and "%" not in raw


def test_answers_are_sampled_with_a_seed_and_can_be_stopped(make, tmp_path):
    warm = [e.Ask("the cat", 12, raw=True, temperature=2.0, seed=seed) for seed in (1, 1, 2)]
    told = of(e.Answer, train(make(), tmp_path / "run", at(2, *warm)))
    texts = [""]
    for event in told:
        texts[-1] += event.text
        texts += [""] * event.last
    assert texts[0] == texts[1] != texts[2] and texts[0]
    long = e.Ask("the cat", 40, raw=True)
    told = of(
        e.Answer, train(make(), tmp_path / "other", at(2, long, long, e.StopAnswer(), e.Ask("the cat", 3, raw=True)))
    )
    ends = [index for index, event in enumerate(told) if event.last]
    assert len(ends) == 3 and ends[:2] == [0, 1], "those before the command are not begun, the one after it is"


def test_a_question_that_lacks_columns_is_answered_by_a_sentence(make, tmp_path):
    data = {"template": "{{ text }} {{ more }}?", "answers": ("yes", "no")}
    chosen = make(data=data)
    for path in tmp_path.glob("*.jsonl"):
        rows = [{**json.loads(lineage_of), "more": "is it"} for lineage_of in path.read_text().splitlines()]
        path.write_text("\n".join(map(json.dumps, rows)))
    told = train(chosen, tmp_path / "run", at(2, e.Ask("the cat"), e.Ask('{"text": "the cat", "more": "is it"}')))
    sentence, answer, last = of(e.Answer, told)
    assert sentence.last and 'Write them as a JSON object: {"more": "…", "text": "…"}' in sentence.text
    assert "%" in answer.text and last.last


def test_a_stop_while_the_disk_is_full_stops_and_commands_keep_their_order(make, tmp_path, monkeypatch):
    record, full = RunFolder.record, [True]

    def refuse(self, event):
        if full and isinstance(event, e.Evaluation) and event.step == 2:
            raise DiskFull("the disk is full")
        record(self, event)

    monkeypatch.setattr(RunFolder, "record", refuse)

    def script(event):
        if isinstance(event, e.Step) and event.step == 2 and not of(e.Returned, seen):
            return (e.EvaluateNow(),)
        if isinstance(event, e.Paused) and event.reason:
            return (e.SetRate(0.5), e.GoBack(1), e.SetRate(0.5), e.Stop())
        return ()

    seen = []
    told = train(make(), tmp_path / "run", lambda event: (seen.append(event), script(event))[1])
    assert (told[-1].reason, told[-1].step) == ("stopped", 2)
    full.clear()
    assert resume(tmp_path / "run")[-1].hash == train(make(), tmp_path / "whole")[-1].hash


def test_a_rate_that_was_changed_is_kept_to_the_last_bit(make, tmp_path):
    chosen = make(update={"schedule": "cosine"}, loop={"steps": 8})
    train(chosen, tmp_path / "run", at(2, e.SetRate(0.3), e.Stop()))
    first = resume(tmp_path / "run", at(5, e.Stop()))
    rates = [event.rate for event in of(e.Step, first) + of(e.Step, resume(tmp_path / "run"))]
    assert rates == [chosen.update.rate(step, 8) * 0.3 for step in range(3, 9)]


def test_evaluating_by_hand_does_not_use_up_patience(make, tmp_path):
    hopeless = {"rule": "sgd", "learning_rate": 1e-12}
    chosen = make(update=hopeless, loop={"steps": 12, "evaluate_every": 4, "patience": 3})
    told = train(chosen, tmp_path / "run", at(5, e.EvaluateNow(), e.EvaluateNow(), e.EvaluateNow()))
    assert (told[-1].reason, told[-1].step) == ("done", 12)
