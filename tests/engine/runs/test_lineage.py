"""The way to a step: what a branch refers to is what it was, and no more is read than it takes."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from queue import SimpleQueue

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsezo_gui.engine import training
from sparsezo_gui.engine.runs import checkpoints, journal
from sparsezo_gui.engine.runs.branch import branch
from sparsezo_gui.engine.runs.folder import open_run
from sparsezo_gui.engine.runs.journal import position, read
from sparsezo_gui.engine.runs.journal_writer import JournalWriter
from sparsezo_gui.engine.runs.lineage import lineage_of
from sparsezo_gui.engine.runs.share import receive, share
from sparsezo_gui.engine.session import Session
from sparsezo_gui.engine.session.opening import open_session
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import events as e
from tests.engine.conftest import finish, of
from tests.engine.runs.made import STEP, long_run_of, run_of


def older(run):
    """Makes the branch one of version 2, which did not note what it began from."""
    facts = json.loads((run.path / "run.json").read_text())
    del facts["branched"]["hash"]
    (run.path / "run.json").write_text(json.dumps({**facts, "version": 2}))
    return open_run(run.path)


def other_history(run, steps, kept=0):
    """What is in the journal after a backup of ``kept`` steps is put back and run on."""
    records = read(run.journal).records[:kept]
    run.journal.write_bytes(run.header.pack() + records.tobytes())
    with JournalWriter(run.journal, run.header) as writer:
        for step in range(kept + 1, steps + 1):
            writer.append(step=step, loss=2.0, **STEP)


def test_a_branch_of_a_parent_that_took_other_steps_is_refused(tmp_path):
    run = run_of(tmp_path / "run", 8)
    made = branch(run, 5, name="branch")
    inner = branch(made, 5, name="inner")
    assert (lineage_of(made).step, lineage_of(inner).step) == (5, 5)
    other_history(run, 8, kept=3)
    for each in (made, inner):
        with pytest.raises(UserError, match=r"has different steps now.* sparsezo branch") as told:
            lineage_of(each)
        assert str(run.journal) in str(told.value)
    with pytest.raises(UserError, match="has different steps now"):
        share(inner, tmp_path / "given.zip")
    assert lineage_of(branch(run, 5, name="new")).step == 5


def test_what_the_parent_does_after_the_branch_is_its_own_affair(tmp_path):
    run = run_of(tmp_path / "run", 8)
    made = branch(run, 5, name="branch")
    with JournalWriter(run.journal, run.header) as writer:
        writer.go_back(2)
        writer.append(step=3, loss=9.0, **STEP)
    assert [len(part.steps) for part in lineage_of(made).segments] == [5, 0]
    share(made, tmp_path / "given.zip")
    assert lineage_of(receive(tmp_path / "given.zip")).step == 5


def test_a_branch_that_is_older_than_the_hash_is_opened_and_told_of(tmp_path):
    run = run_of(tmp_path / "run", 8)
    made = older(branch(run, 5, name="branch"))
    assert (lineage_of(made).step, "cannot be checked" in lineage_of(made).fault) == (5, True)
    facts = json.loads((made.path / "run.json").read_text())
    (made.path / "run.json").write_text(json.dumps({**facts, "version": 3}))
    with pytest.raises(UserError, match="a branch of version 3 has a hash"):
        open_run(made.path)


def test_a_key_frame_of_another_history_is_not_used(make, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "spacing", lambda size, again=False: 2)
    commands = SimpleQueue()
    for event in training.train(make(), commands, folder=tmp_path / "run"):
        if isinstance(event, e.Step) and event.step == 3:
            commands.put(e.Stop())
    run = open_run(tmp_path / "run")
    backup = run.journal.read_bytes()
    first = list(training.resume(run.path))[-1].hash
    shutil.copytree(run.path / "frames", tmp_path / "frames")
    run.journal.write_bytes(backup)
    commands.put(e.SetRate(0.25))
    second = list(training.resume(run.path, commands))[-1].hash
    shutil.copytree(tmp_path / "frames", run.path / "frames", dirs_exist_ok=True)
    assert [frame.step for frame in checkpoints.listed(run.path) if frame.on(read(run.journal))][-1] == 6
    assert finish(open_session(run)).tuned.hash() == second != first


# Reading


@settings(max_examples=60)
@given(st.lists(st.one_of(st.integers(1, 9), st.integers(-9, 0)), max_size=12), st.integers(0, 59), st.integers(0, 50))
def test_the_end_and_a_part_of_a_journal_tell_what_all_of_it_does(tmp_path_factory, moves, cut, step):
    """Positive numbers take so many steps, others go back by so many; the end of the file is lost."""
    path, at = tmp_path_factory.mktemp("j") / "journal.bin", 0
    with pytest.MonkeyPatch.context() as patched, JournalWriter(path, journal.Header(1)) as writer:
        patched.setattr(journal, "TAIL", 4 * 60)
        patched.setattr(journal, "PIECE", 3 * 60)
        for move in moves:
            for _ in range(move):
                at += 1
                writer.append(step=at, loss=float(writer.count), **STEP)
            if move <= 0:
                at = max(at + move, 0)
                writer.go_back(at)
        if writer.count:
            writer._file.truncate(path.stat().st_size - cut)
            writer._size -= cut
        whole = read(path)
        assert (position(path).step, position(path).count) == (whole.step, whole.count)
        step = min(step, whole.step)
        part = read(path, step=step)
        assert part.steps[:step].tobytes() == whole.steps[:step].tobytes()
        assert part.count <= whole.count


def test_damage_at_the_end_and_before_a_step_is_found(tmp_path):
    run = long_run_of(tmp_path / "run", 5000)
    content = run.journal.read_bytes()
    for damaged, stands in ((4999, 4999), (4500, 4500), (3000, 5000)):
        broken = bytearray(content)
        broken[128 + 60 * damaged + 9] ^= 1
        run.journal.write_bytes(broken)
        assert position(run.journal).step == stands
        assert lineage_of(run).step == damaged and ("damaged after" in lineage_of(run).fault) == (damaged < 4999)
        assert lineage_of(run, 100).step == 100
        with pytest.raises(UserError, match=f"has {damaged} steps"):
            lineage_of(run, damaged + 1)


def test_a_long_journal_is_read_where_it_is_needed(tmp_path):
    run, peaks = long_run_of(tmp_path / "run", 400_000), []
    for work in (lambda: position(run.journal), lambda: lineage_of(run, 1000), lambda: lineage_of(run)):
        tracemalloc.start()
        work()
        peaks.append(tracemalloc.get_traced_memory()[1] / 2**20)
        tracemalloc.stop()
    size = run.journal.stat().st_size / 2**20
    assert peaks[0] < 1 and peaks[1] < 1 and peaks[2] < size + 20, peaks


def test_a_run_that_goes_back_far_is_not_brought_to_its_end_first(make, tmp_path, monkeypatch):
    list(training.train(make(loop={"steps": 30, "evaluate_every": 0}, run={"checkpoints": 0}), folder=tmp_path / "run"))
    taken, advance = [], Session.advance
    monkeypatch.setattr(Session, "advance", lambda self, *args: (taken.append(self.step), advance(self, *args))[1])
    commands = SimpleQueue()
    for command in (e.GoBack(3), e.Stop()):
        commands.put(command)
    told = list(training.resume(tmp_path / "run", commands))
    assert (of(e.Returned, told)[0].step, told[-1].step) == (3, 3)
    assert max(taken) == 2
    assert told[-1].hash == finish(open_session(open_run(tmp_path / "run"), 3)).tuned.hash()
    for command in (e.GoBack(40), e.Stop()):
        commands.put(command)
    assert [each for each in of(e.Notice, training.resume(tmp_path / "run", commands)) if "no step 40" in each.text]
