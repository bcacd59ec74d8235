"""Runs with exact gradients: any step is reached from the recorded ones alone, and without them as before."""

from __future__ import annotations

import json
import os

import pytest

from sparsezo_gui import cli
from sparsezo_gui.engine.loop import writing
from sparsezo_gui.engine.probe import ModelProbe
from sparsezo_gui.engine.runs import checkpoints, gradients, journal
from sparsezo_gui.engine.runs import share as shares
from sparsezo_gui.engine.runs.branch import branch
from sparsezo_gui.engine.runs.facts import Facts
from sparsezo_gui.engine.runs.folder import open_run
from sparsezo_gui.engine.runs.share import receive, share
from sparsezo_gui.engine.session.opening import loaded, open_session, restore
from sparsezo_gui.errors import DiskFull, UserError
from sparsezo_gui.recipe import events as e
from tests.engine.conftest import finish, of
from tests.engine.test_loop import at, resume, train
from tests.engine.test_replay import tables

EXACT = ("first-order", "elastic", "addax")


@pytest.fixture
def run(trained):
    return trained("exact", **tables("first-order", "adam"))


@pytest.fixture
def blind(tmp_path, monkeypatch):
    """``blind()``: from then on there is no data, and a forward pass is an error."""

    def no_pass(*arguments):
        raise AssertionError("a forward pass")

    def made():
        for split in ("train", "validation", "test"):
            (tmp_path / f"{split}.jsonl").unlink()
        for name in ("losses", "gradient"):
            monkeypatch.setattr(ModelProbe, name, no_pass)

    return made


def replayed(path, step=None, use=False):
    """The hash of the values of a run at ``step``, and how they were found."""
    run = open_run(path)
    session = finish(loaded(run))
    how = finish(restore(session, run, step, use))
    return session.tuned.hash(), (how.recorded, how.again)


def told(events):
    return [event.text for event in of(e.Notice, events)]


def lose(run):
    """Removes what was recorded, and all checkpoints."""
    run.gradients.unlink()
    for each in checkpoints.listed(run.path):
        each.path.unlink()


@pytest.mark.parametrize(
    ("estimator", "update"),
    [("first-order", "scalar-normalised"), ("first-order", "adam"), ("elastic", "adam"), ("addax", "momentum")],
)
def test_a_replay_from_records_needs_no_data_and_gives_the_same_bits(make, tmp_path, blind, estimator, update):
    hashes = {}
    for steps in (3, 6):
        events = train(make(**tables(estimator, update)), tmp_path / f"run{steps}", at(steps, e.Stop()))
        hashes[steps] = events[-1].hash
    blind()
    for step, hash in hashes.items():
        assert replayed(tmp_path / "run6", step) == (hash, (step, 0))
    run = open_run(tmp_path / "run6")
    most = 52 + 6 * (40 + 2 * run.facts.tuned)
    assert (run.gradients.stat().st_size == most) == (estimator == "first-order")


@pytest.mark.parametrize("estimator", EXACT)
def test_what_is_missing_is_computed_again_to_the_same_bits(make, tmp_path, estimator):
    hash = train(make(**tables(estimator)), tmp_path / "run")[-1].hash
    run = open_run(tmp_path / "run")
    content = run.gradients.read_bytes()
    run.gradients.write_bytes(content[: len(content) // 2])
    found, (read, again) = replayed(run.path)
    assert found == hash and read and again and read + again == 6
    lose(run)
    assert replayed(run.path) == (hash, (0, 6))


def test_damage_in_the_middle_is_told_and_costs_only_time(run):
    content = bytearray(run.gradients.read_bytes())
    end = 52 + 2 * (40 + 2 * run.facts.tuned)
    content[end + 3] ^= 1
    run.gradients.write_bytes(content)
    events = []
    work = open_session(run, from_checkpoints=False)
    with pytest.raises(StopIteration) as stop:
        while True:
            events.append(next(work))
    assert any("gradients.bin: damaged or incomplete after 2 gradients" in text for text in told(events))
    assert stop.value.value.tuned.hash() == of(e.Finished, run.events())[-1].hash
    train_more = resume(run.path)  # the writer cuts it off
    assert train_more[-1].hash == of(e.Finished, run.events())[-1].hash
    assert run.gradients.stat().st_size == end


def test_steps_that_were_rolled_back_do_not_stand_in_for_those_taken_since(make, tmp_path, blind):
    chosen, went = make(**tables("addax", loop={"steps": 6, "evaluate_every": 0, "guard": False})), []

    def script(event):
        if isinstance(event, e.Step) and event.step == 4 and not went:
            went.append(event)
            return e.SetRate(0.5), e.GoBack(2), e.SetRate(0.5)
        return ()

    hash = train(chosen, tmp_path / "run", script)[-1].hash
    made = branch(open_run(tmp_path / "run"), 5, ["loop.seed=9"])
    other = resume(made.path)[-1].hash
    assert hash != other and open_run(tmp_path / "run").gradients.exists() and made.gradients.exists()
    blind()
    assert replayed(tmp_path / "run") == (hash, (6, 0))
    assert replayed(made.path) == (other, (6, 0))
    assert journal.read(open_run(tmp_path / "run").journal).count == 4 + 1 + 4


def test_beyond_the_budget_steps_are_computed_again_from_near_checkpoints(make, tmp_path, monkeypatch):
    fits = gradients.GradientWriter.has_space
    monkeypatch.setattr(gradients.GradientWriter, "has_space", lambda self, each: self._left > gradients.MOST - 3)
    asked = []
    monkeypatch.setattr(checkpoints, "spacing", lambda size, again=False: [asked.append(again), 2][1])
    events = train(make(**tables("first-order", run={"gradients": 7})), tmp_path / "run")
    (sentence,) = [text for text in told(events) if "gradients" in text]
    assert sentence.startswith("From step 4 on, no gradients are recorded: [run] gradients = 7 (MiB) is used up.")
    assert asked == [False] * 3 + [True] * 3
    assert replayed(tmp_path / "run") == (events[-1].hash, (3, 3))
    monkeypatch.setattr(gradients.GradientWriter, "has_space", fits)
    whole = train(make(**tables("first-order")), tmp_path / "whole")
    none = train(make(**tables("first-order", run={"gradients": 0})), tmp_path / "none")
    assert whole[-1].hash == none[-1].hash == events[-1].hash
    assert not (tmp_path / "none" / "gradients.bin").exists() and "gradient" not in str(told(none))


def test_runs_without_exact_gradients_have_no_such_file(make, tmp_path):
    train(make(), tmp_path / "run")
    assert not (tmp_path / "run" / "gradients.bin").exists()


def test_a_run_of_an_earlier_version_opens_and_goes_on_as_it_did(make, tmp_path, monkeypatch):
    chosen = make(**tables("first-order", "adam"))
    new = train(chosen, tmp_path / "new")[-1].hash
    with monkeypatch.context() as before:
        before.setattr(Facts, "rounds", property(lambda facts: False))
        whole = train(chosen, tmp_path / "whole")[-1].hash
        train(chosen, tmp_path / "run", at(3, e.Stop()))
    for name in ("run", "whole"):
        path = tmp_path / name / "run.json"
        facts = json.loads(path.read_text())
        path.write_text(json.dumps({**facts, "version": 4}))
    assert resume(tmp_path / "run")[-1].hash == whole != new
    assert not open_run(tmp_path / "run").gradients.exists()
    assert replayed(tmp_path / "run") == (whole, (0, 6))
    made = branch(open_run(tmp_path / "run"), 3, ["loop.seed=9"])
    hash = resume(made.path)[-1].hash
    assert made.facts.version == 5 and replayed(made.path) == (hash, (3, 3))


def test_a_step_that_is_not_finite_is_skipped_and_has_no_gradient(make, tmp_path, monkeypatch):
    right = ModelProbe.gradient

    def wrong(self, *arguments):
        gradient, loss = right(self, *arguments)
        return gradient / (0 if len(made) == 2 else 1), made.append(loss) or loss

    made: list[float] = []
    monkeypatch.setattr(ModelProbe, "gradient", wrong)
    events = train(make(**tables("first-order")), tmp_path / "run")
    assert "Step 3 had no finite gradient" in str(told(events))
    assert replayed(tmp_path / "run") == (events[-1].hash, (5, 0))


# Disks


def test_a_full_disk_pauses_the_run_and_loses_no_gradient(make, tmp_path, monkeypatch):
    append, failed = gradients.GradientWriter.append, []

    def full(self, step, at, gradient):
        if step == 3 and len(failed) < 2:
            failed.append(step)
            raise DiskFull("the disk is full")
        append(self, step, at, gradient)

    monkeypatch.setattr(gradients.GradientWriter, "append", full)
    monkeypatch.setattr("sparsezo_gui.engine.loop.running.POLL", 0.01)
    events = train(make(**tables("first-order")), tmp_path / "run")
    assert of(e.Paused, events) and of(e.Resumed, events) and len(failed) == 2
    assert replayed(tmp_path / "run") == (events[-1].hash, (6, 0))
    failed.clear()
    with pytest.raises(DiskFull):
        train(make(**tables("first-order", run={"pause_on": []})), tmp_path / "other")
    assert journal.read(tmp_path / "other" / "journal.bin").step == 2
    failed.append(0)
    assert resume(tmp_path / "other")[-1].hash == events[-1].hash


@pytest.mark.parametrize("when", ["opened", "written"])
def test_gradients_that_cannot_be_written_are_told_once_and_end_nothing(make, tmp_path, monkeypatch, when):
    def fails(*arguments):
        raise UserError("gradients.bin: cannot be written (Input/output error).")

    if when == "opened":
        monkeypatch.setattr(writing, "GradientWriter", fails)
    else:
        monkeypatch.setattr(gradients.GradientWriter, "append", fails)
    events = train(make(**tables("first-order")), tmp_path / "run")
    (sentence,) = [text for text in told(events) if "gradients" in text]
    assert "cannot be written" in sentence and sentence.endswith("computed again from the data.")
    assert replayed(tmp_path / "run") == (events[-1].hash, (0, 6))


# Sharing


def here(tmp_path, settings=()):
    places = [f"model.id={tmp_path / 'llama'}", f"data.source={tmp_path}"]
    return receive(tmp_path / "given.zip", tmp_path / "here", [*places, *settings])


def test_a_shared_run_is_rebuilt_without_the_data(run, tmp_path, blind):
    hashes = [replayed(run.path, step)[0] for step in (0, 3, 6)]
    shared = share(run, tmp_path / "given.zip")
    assert (shared.again, shared.lacks) == (0, "") and "gradients.bin" in {each.file for each in shared.contents}
    assert "reconstructed" in str(shared.contents) and shared.contents == shares.contents(run)
    blind()
    got = here(tmp_path)
    assert [replayed(got.path, step) for step in (0, 3, 6)] == [
        (hash, (step, 0)) for hash, step in zip(hashes, (0, 3, 6), strict=True)
    ]


def test_of_a_parent_only_gradients_of_steps_before_the_branch_are_shared(run, tmp_path, blind):
    made = branch(run, 3, ["loop.seed=9"], "other")
    hash = resume(made.path)[-1].hash
    share(made, tmp_path / "given.zip")
    blind()
    got = here(tmp_path)
    sizes = [each.gradients.stat().st_size for each in (open_run(tmp_path / "here"), got)]
    assert sizes == [52 + 3 * (40 + 2 * run.facts.tuned)] * 2
    assert replayed(got.path) == (hash, (6, 0))


def test_gradients_that_are_too_large_are_left_out_and_told(run, tmp_path, monkeypatch):
    monkeypatch.setattr(shares, "GRADIENTS_BYTES", 100)
    shared = share(run, tmp_path / "given.zip")
    assert shared.again == 6 and "lacks the exact gradients of 6 steps" in shared.lacks
    assert "gradients.bin" not in {each.file for each in shared.contents}
    got = here(tmp_path)
    assert replayed(got.path) == (replayed(run.path)[0], (0, 6))


@pytest.mark.parametrize("what", ["damaged", "another", "huge"])
def test_gradients_from_someone_else_are_checked(run, tmp_path, monkeypatch, what):
    content = run.gradients.read_bytes()
    hash = replayed(run.path)[0]
    bad = {"damaged": content[:-1] + bytes([content[-1] ^ 1]), "another": gradients.header(5, "ab" * 32),
           "huge": content}[what]  # fmt: skip
    with monkeypatch.context() as patched:
        patched.setattr(gradients.Gradients, "packed", lambda self, records: bad)
        share(run, tmp_path / "given.zip")
    if what == "huge":
        monkeypatch.setitem(shares.LIMITS, "gradients.bin", 100)
        with pytest.raises(UserError, match=r"its 'gradients\.bin' is too large"):
            here(tmp_path)
        return
    got = here(tmp_path)
    assert replayed(got.path) == (hash, (5, 1) if what == "damaged" else (0, 6))


# What verify says


@pytest.fixture
def verify(run, capsys):
    """``verify(*flags)``: the exit code and what is printed."""

    def called(*flags):
        code = cli.main(["verify", str(run.path), *flags])
        return code, capsys.readouterr().out

    return called


def test_verify_says_how_exact_it_is(run, verify, monkeypatch):
    code, out = verify()
    assert code == 0 and "bit-identical" in out and "Recorded exact gradients: 6 steps, replayed bit for bit." in out
    lose(run)
    code, out = verify()
    assert code == 0 and "bit-identical" in out and "computed again: 6 steps" in out and "at most 0.0e+00" in out
    events = (run.path / "events.jsonl").read_text()
    (run.path / "events.jsonl").write_text(events.replace(of(e.Finished, run.events())[-1].hash, "0" * 64))
    code, out = verify()
    assert code == 1 and "were changed" in out and "to rounding" not in out, "the steps are the same, the hash is not"
    (run.path / "events.jsonl").write_text(events)
    factor, right = 1.001, ModelProbe.gradient

    def other(self):
        gradient, loss = right(self)
        return gradient * factor, loss

    monkeypatch.setattr(ModelProbe, "gradient", other)
    code, out = verify("--json")
    found = json.loads(out)
    assert (code, found["same"], found["recorded"], found["again"]) == (0, False, 0, 6)
    assert 5e-4 < found["difference"] < 5e-3
    assert "to rounding, not bit for bit" in verify()[1]
    factor = 1.5
    code, out = verify()
    assert code == 1 and "were changed" in out and "to rounding" not in out


def test_verify_of_other_runs_says_nothing_of_gradients(trained, verify, tmp_path):
    os.rename(tmp_path / "run", tmp_path / "exact")
    trained("plain")
    code, out = verify()
    assert code == 0 and "gradients" not in out
