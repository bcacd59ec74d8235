"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import stat

import pytest
import torch

from sparsezo_gui.engine import files, training
from sparsezo_gui.engine.files import replacing, write_text
from sparsezo_gui.engine.pretrained.folder import drafted
from sparsezo_gui.engine.runs.branch import branch
from sparsezo_gui.engine.runs.folder import open_run
from sparsezo_gui.engine.runs.journal import Header, read
from sparsezo_gui.engine.runs.journal_writer import JournalWriter
from sparsezo_gui.engine.spaces.mask import Mask
from sparsezo_gui.errors import DiskFull, UserError
from sparsezo_gui.recipe import events as e
from tests.engine.conftest import of
from tests.engine.runs.made import STEP, run_of


def test_a_file_is_replaced_whole(tmp_path):
    write_text(tmp_path / "sub" / "a", "one")
    write_text(tmp_path / "sub" / "a", "zwei ü")
    assert (tmp_path / "sub" / "a").read_text(encoding="utf-8") == "zwei ü"
    assert os.listdir(tmp_path / "sub") == ["a"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    write_text(tmp_path / "a", "old")
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "a") as temporary:
        temporary.write_text("half")
        _ = 1 / 0
    assert (tmp_path / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize(
    ("number", "sentence"),
    [(errno.ENOSPC, "the disk is full"), (errno.EACCES, "cannot be written"), (errno.EROFS, "cannot be written")],
)
def test_a_disk_that_refuses_gets_a_sentence(tmp_path, monkeypatch, number, sentence):
    write_text(tmp_path / "a", "old")

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, "fsync", refuse)
    with pytest.raises(UserError, match=sentence):
        write_text(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
def test_a_journal_on_a_full_disk_gets_a_sentence_and_keeps_what_it_has(tmp_path):
    journal = JournalWriter(tmp_path / "j", Header(1))
    step = {"tokens": 1, "loss": 1.0, "rate": 1.0, "seconds": 1.0, "memory": 1, "values": (1.0,)}
    journal.append(step=1, **step)
    with open("/dev/full", "wb", buffering=0) as full:
        kept, journal._file = journal._file, full
        with pytest.raises(DiskFull, match="the disk is full"):
            journal.append(step=2, **step)
    journal._file = kept
    assert read(tmp_path / "j").step == 1
    with journal:
        journal.append(step=2, **step)
    assert (read(tmp_path / "j").step, read(tmp_path / "j").fault) == (2, "")


def test_a_mask_that_does_not_fit_on_the_disk_gets_a_sentence(tmp_path):
    from safetensors import SafetensorError

    words = "Error while serializing: I/O error: No space left on device (os error 28)"
    with pytest.raises(UserError, match="the disk is full"), replacing(tmp_path / "m"):
        raise SafetensorError(words)
    assert os.listdir(tmp_path) == []


# Disks that lack a service


def lacking(monkeypatch, number, *, sync="folder", mode=False):
    """From here on the disk cannot sync folders ('all': nor files) or, with ``mode``, set permissions."""
    fsync = os.fsync

    def no_sync(handle):
        if sync == "all" or stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(handle)

    def no_mode(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", no_sync)
    if mode:
        monkeypatch.setattr(os, "chmod", no_mode)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EBADF, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_disk_that_syncs_no_folders_is_written_all_the_same(tmp_path, monkeypatch, number):
    lacking(monkeypatch, number)
    write_text(tmp_path / "a", "new")
    with drafted(tmp_path / "out", 1) as draft:
        (draft / "b").write_text("new")
    assert (tmp_path / "a").read_text() == (tmp_path / "out" / "b").read_text() == "new"
    assert not files.sync(tmp_path) and files.sync(tmp_path / "a")


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_disk_without_permissions_is_written_all_the_same(tmp_path, monkeypatch, number):
    monkeypatch.setattr(os, "chmod", lambda *_, **__: (_ for _ in ()).throw(OSError(number, "no")))
    write_text(tmp_path / "a", "new")
    with drafted(tmp_path / "out", 1) as draft:
        (draft / "b").write_text("new")
    assert (tmp_path / "a").read_text() == (tmp_path / "out" / "b").read_text() == "new"


@pytest.mark.parametrize("number", [0, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_new_file_takes_no_others_place_also_without_hard_links(tmp_path, monkeypatch, number):
    if number:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(number, "no")))
    with replacing(tmp_path / "a", new=True) as temporary:
        temporary.write_text("first")
    with pytest.raises(UserError, match="already exists"), replacing(tmp_path / "a", new=True) as temporary:
        temporary.write_text("second")
    assert (tmp_path / "a").read_text() == "first" and os.listdir(tmp_path) == ["a"]


def test_a_run_on_a_disk_that_lacks_services_says_what_is_weaker(make, tmp_path, monkeypatch):
    whole = list(training.train(make(), folder=tmp_path / "whole"))
    assert not [event for event in of(e.Notice, whole) if "disk" in event.text]
    lacking(monkeypatch, errno.EOPNOTSUPP, sync="all", mode=True)
    events = training.train(make(), folder=tmp_path / "run")
    told = [next(events)]
    while not (isinstance(told[-1], e.Step) and told[-1].step == 3):
        told.append(next(events))
    events.close()
    rest = list(training.resume(tmp_path / "run"))
    for part in (told, rest):
        words = " ".join(event.text for event in of(e.Notice, part) if event.level == "warning")
        assert "cannot sync folders" in words and "has no file permissions" in words
    assert rest[-1].hash == whole[-1].hash
    assert len({each.path for each in (branch(open_run(tmp_path / "run"), 3) for _ in range(2))}) == 2


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_disk_that_fails_is_not_one_that_lacks_something(tmp_path, monkeypatch, number):
    lacking(monkeypatch, number)
    with pytest.raises(UserError, match=r"cannot be written|disk is full"):
        write_text(tmp_path / "a", "new")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs limits of a process of its own")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("what", ["text", "journal", "events", "mask"])
def test_a_limit_on_the_size_of_files_is_not_a_full_disk(tmp_path, what):
    run = run_of(tmp_path / "run")

    import resource  # there is none on Windows

    def write():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        if what == "text":
            write_text(tmp_path / "run" / "notes.md", "x" * 30_000)
        elif what == "journal":
            with JournalWriter(run.journal, run.header) as writer:
                for step in range(6, 1000):
                    writer.append(step=step, loss=1.0, **STEP)
        elif what == "events":
            for _ in range(1000):
                run.record(e.Notice("x" * 90))
        else:
            places = torch.arange(30_000, dtype=torch.int32)
            Mask({"a": places}, {}, "ab" * 32, 60_000).save(tmp_path / "run" / "mask.safetensors")

    code = os.fork()
    if not code:
        try:
            write()
            os._exit(1)
        except UserError as error:
            os._exit(0 if "is too large for the disk" in str(error) and not isinstance(error, DiskFull) else 2)
        except BaseException:
            os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(code, 0)[1]) == 0
    assert read(run.journal).step == ((20_000 - 128) // 60 if what == "journal" else 5)
    assert read(run.journal).fault == ""
    told = 20_000 // len(json.dumps(e.Notice("x" * 90).as_json()) + "\n")
    assert len(run.events()) == (told if what == "events" else 0)
    assert not list(run.path.glob(".*"))


@pytest.mark.skipif(os.name == "nt", reason="no such modes on Windows")
def test_files_are_for_their_owner_alone_also_where_no_chmod_is_known(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(files.Path, "chmod", refuse)
    monkeypatch.setattr(os, "chmod", refuse)
    before = os.umask(0)
    try:
        write_text(tmp_path / "a" / "b" / "c", "x")
        files.own(tmp_path / "a")
    finally:
        os.umask(before)
    assert [stat.S_IMODE((tmp_path / each).stat().st_mode) for each in ("a", "a/b", "a/b/c")] == [0o700, 0o700, 0o600]
