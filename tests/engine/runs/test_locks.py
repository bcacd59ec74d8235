"""Who may write, who cleans up, and what is left: several hands on one folder, and processes that were killed."""

from __future__ import annotations

import errno
import multiprocessing
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from queue import SimpleQueue

import pytest

from sparsezo_gui.engine import drafts, locks, training
from sparsezo_gui.engine.drafts import drafting, new_folder
from sparsezo_gui.engine.files import replacing
from sparsezo_gui.engine.pretrained.folder import drafted
from sparsezo_gui.engine.runs.branch import branch
from sparsezo_gui.engine.runs.folder import create, locked, open_run
from sparsezo_gui.engine.runs.journal_writer import JournalWriter
from sparsezo_gui.engine.runs.listing import list_runs
from sparsezo_gui.engine.runs.share import receive, share
from sparsezo_gui.engine.runs.start import starting
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe import events as e
from tests.engine.conftest import of
from tests.engine.runs.made import FACTS, STEP, run_of


def old(path):
    """Makes it look as if a process that was killed left it an hour ago."""
    os.utime(path, (path.stat().st_mtime - 3600,) * 2)


# One writer


@pytest.mark.parametrize("began", [False, True], ids=["while it starts", "while it runs"])
def test_a_refused_start_leaves_the_lock_to_its_holder(make, tmp_path, began):
    """Else a third process makes a lock file of its own, and two write one journal."""
    first = training.train(make(), folder=tmp_path / "run")
    while not isinstance(next(first), e.Step if began else e.Progress):
        pass
    lock = (tmp_path / "run" / "lock").stat().st_ino
    for _ in range(2):
        with pytest.raises(UserError, match=r"another window or terminal|already exists"):
            list(training.train(make(), folder=tmp_path / "run"))
        assert (tmp_path / "run" / "lock").stat().st_ino == lock
    if began:
        with pytest.raises(UserError, match="another window or terminal"):
            list(training.resume(tmp_path / "run"))
    assert list(first)[-1].reason == "done"


def test_a_start_that_waited_for_the_lock_does_not_write_over_the_run(tmp_path):
    """The folder was free when it looked, and a run by the time it had the lock."""
    folder, inside = tmp_path / "run", threading.Event()

    def other():
        with starting(Recipe(), folder) as (path, _):
            inside.set()
            create(path, Recipe(), FACTS)

    with ThreadPoolExecutor(1) as threads, ExitStack() as stack:
        folder.mkdir()
        stack.enter_context(locks.held(folder / "lock"))
        waiting = threads.submit(other)
        create(folder, Recipe(), {**FACTS, "model": "first"})
        stack.close()
        with pytest.raises(UserError, match="already exists"):
            waiting.result()
    assert open_run(folder).facts.model == "first" and not inside.is_set()


@pytest.mark.parametrize("others", [[], ["lock"]])
def test_a_folder_of_the_users_is_not_taken_for_what_a_start_left(tmp_path, others):
    (tmp_path / "mine").mkdir()
    for name in ("recipe.toml", *others):
        (tmp_path / "mine" / name).write_text("mine")
    with pytest.raises(UserError, match="already exists"), starting(Recipe(), tmp_path / "mine"):
        pass
    assert sorted(os.listdir(tmp_path / "mine")) == sorted(["recipe.toml", *others])
    assert (tmp_path / "mine" / "recipe.toml").read_text() == "mine"


@pytest.mark.parametrize("how", ["replaced", "longer", "shorter", "gone"])
def test_a_writer_stops_where_the_journal_is_not_its_own_any_more(tmp_path, how):
    run = run_of(tmp_path / "run")
    writer = JournalWriter(run.journal, run.header)
    writer.append(step=6, loss=1.0, **STEP)
    if how == "replaced":  # as by a backup that is put back
        content = run.journal.read_bytes()
        run.journal.rename(tmp_path / "aside")
        run.journal.write_bytes(content)
    elif how == "gone":
        run.journal.unlink()
    else:
        with run.journal.open("r+b") as file:
            file.truncate(run.journal.stat().st_size + (60 if how == "longer" else -60))
    theirs = run.journal.read_bytes() if how != "gone" else b""
    with pytest.raises(UserError, match=r"changed by another program|was removed"), writer:
        writer.append(step=7, loss=2.0, **STEP)
    assert (run.journal.read_bytes() if how != "gone" else b"") == theirs
    assert how != "gone" or not run.journal.exists()


def test_a_run_whose_journal_is_put_back_ends_with_a_sentence(make, tmp_path):
    told = []
    with pytest.raises(UserError, match="changed by another program"):
        for event in training.train(make(), folder=tmp_path / "run"):
            told.append(event)
            if isinstance(event, e.Step) and event.step == 3:
                (tmp_path / "backup").write_bytes((tmp_path / "run" / "journal.bin").read_bytes())
                (tmp_path / "backup").replace(tmp_path / "run" / "journal.bin")
    assert [step.step for step in of(e.Step, told)] == [1, 2, 3]
    assert list(training.resume(tmp_path / "run"))[-1].reason == "done"


# Folders


def in_threads(count, work):
    """What ``count`` threads get of ``work`` at once."""
    barrier = threading.Barrier(count)

    def one(number):
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(one, range(count)))


def test_folders_made_at_once_are_as_many_folders(tmp_path):
    run = run_of(tmp_path / "run")
    made = in_threads(8, lambda number: branch(run, 3, [f"loop.seed={number}"], "same"))
    assert len({each.path for each in made}) == 8
    assert sorted(open_run(each.path).recipe.loop.seed for each in made) == list(range(8))
    share(run, tmp_path / "given.zip")
    assert len({each.path for each in in_threads(8, lambda _: receive(tmp_path / "given.zip"))}) == 8
    assert len(set(in_threads(8, lambda _: new_folder(tmp_path / "many", "x")))) == 8

    def begin(_):
        with starting(Recipe()) as (path, _):
            create(path, Recipe(), FACTS)
        return path

    assert len(set(in_threads(8, begin))) == 8
    assert not list(tmp_path.rglob(f"{drafts.PREFIX}*"))


@pytest.mark.parametrize("kind", ["file", "folder", "receive"])
def test_of_those_that_write_to_one_name_at_once_one_does(tmp_path, kind):
    share(run_of(tmp_path / "run"), tmp_path / "given.zip")

    def write(number):
        out = tmp_path / "out"
        try:
            if kind == "file":
                with replacing(out, new=True) as path:
                    path.write_text(str(number))
            elif kind == "folder":
                with drafted(out, 1) as path:
                    (path / "number").write_text(str(number))
            else:
                receive(tmp_path / "given.zip", out, [f"run.name=n{number}"])
        except UserError as error:
            return str(error)
        return number

    found = in_threads(6, write)
    (won,) = [each for each in found if isinstance(each, int)]
    assert all("already exists" in each for each in found if isinstance(each, str))
    if kind == "receive":
        assert open_run(tmp_path / "out").recipe.run.name == f"n{won}"
    else:
        assert (tmp_path / "out" / ("number" if kind == "folder" else "")).read_text() == str(won)


def test_a_shared_run_that_cannot_be_written_leaves_the_file_it_was_to_replace(tmp_path):
    from sparsezo_gui.gui.worker import Engine

    run, out = run_of(tmp_path / "run"), tmp_path / "given.zip"
    out.write_text("older")
    with pytest.raises(UserError, match="already exists"):
        share(run, out)
    run.journal.write_bytes(b"damaged")
    with pytest.raises(UserError, match="damaged journal"):
        Engine().share(run.path, out, False)
    assert out.read_text() == "older"
    run_of(tmp_path / "whole")
    Engine().share(tmp_path / "whole", out, False)
    assert receive(out).name == "whole"


# What killed processes left


def killed_in(work):
    """Does ``work`` in a process that ends in the middle of it, as if it was killed."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    assert process.exitcode == 9


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_what_a_killed_process_left_is_swept_and_nothing_else(tmp_path, home):
    run = run_of(home / "runs" / "run")
    branch(run, 3, name="kept")

    def die_in_a_draft():
        with drafting(home / "runs"), drafting(run.path / "branches"), drafting(tmp_path):
            os._exit(9)

    def die_in_a_start():
        drafts.new_folder(home / "runs", "run-started")
        (home / "runs" / "run-started" / "lock").touch()
        os._exit(9)

    def die_while_preparing():
        with starting(Recipe(run={"name": "prepared"})):
            os._exit(9)

    def die_before_a_branch_has_its_name():
        drafts.new_folder(run.path / "branches", "named")
        os._exit(9)

    killed_in(die_before_a_branch_has_its_name)
    killed_in(die_in_a_draft)
    killed_in(die_in_a_start)
    killed_in(die_while_preparing)
    left = [*home.rglob(f"{drafts.PREFIX}*"), *tmp_path.glob(f"{drafts.PREFIX}*"), *(home / "runs").glob("run-*")]
    left.append(run.path / "branches" / "named")
    mine = home / "runs" / "mine"  # looks like nothing that the program makes
    mine.mkdir()
    (mine / "recipe.toml").write_text("")
    list_runs()
    assert len(left) == 5 and all(path.exists() for path in left), "a lock may be about to be taken in what is young"
    for path in (*left, mine, *(home / "runs").glob("prepared-*")):
        old(path)
    assert {each.name for each in list_runs() if each.state == "interrupted"} == {"prepared"}
    assert [path.parent for path in left if path.exists()] == [tmp_path]
    with drafting(tmp_path) as live:
        old(live.parent)
        with drafting(tmp_path):
            assert live.exists()
    assert [path for path in left if path.exists()] == [] and mine.exists()
    assert [each.name for each in list_runs()] == ["prepared", "run", "kept"]


def test_a_note_that_is_being_written_is_not_swept(tmp_path):
    run = run_of(tmp_path / "run")
    with replacing(run.path / "notes.md") as temporary:
        temporary.write_text("half")
        with locked(run.path):
            assert temporary.exists()
    temporary.write_text("left by a killed process")
    old(temporary)
    with locked(run.path):
        assert not temporary.exists()


def test_a_failed_start_leaves_a_folder_of_the_users(make, tmp_path):
    (tmp_path / "mine").mkdir()
    for folder in ("mine", "made"):
        events = training.train(make(), folder=tmp_path / folder)
        next(events)
        with pytest.raises(UserError, match="broken"):
            events.throw(UserError("broken"))
    assert list((tmp_path / "mine").iterdir()) == [] and not (tmp_path / "made").exists()


# Disks without locks


OTHERS = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)


@pytest.mark.parametrize("number", [errno.ENOLCK, *(pytest.param(each, marks=pytest.mark.slow) for each in OTHERS)])
def test_a_disk_without_locks_gets_a_file_that_stands_in_for_one(make, tmp_path, monkeypatch, number):
    fcntl = pytest.importorskip("fcntl")

    def none(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", none)
    commands = SimpleQueue()
    events = training.train(make(), commands, folder=tmp_path / "run")
    told = [next(events)]
    while not isinstance(told[-1], e.Step):
        told.append(next(events))
    assert [event for event in of(e.Notice, told) if "has no file locks" in event.text and event.level == "warning"]
    assert list_runs(tmp_path / "run")[0].state == "running"
    with pytest.raises(UserError, match=r"another window or terminal.*lock\.pid"):
        list(training.resume(tmp_path / "run"))
    assert list(events)[-1].reason == "done"
    assert list_runs(tmp_path / "run")[0].state == "done" and not (tmp_path / "run" / "lock.pid").exists()
    (tmp_path / "run" / "lock.pid").write_text(f"{2**22 + 1}\n{os.uname().nodename}\n1\n")  # its process is gone
    assert list(training.resume(tmp_path / "run"))[-1].reason == "done"
