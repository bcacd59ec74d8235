"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from sparsezo_gui.engine import files
from sparsezo_gui.engine.files import replacing, write_text
from sparsezo_gui.engine.runs.journal import Header, JournalWriter, read
from sparsezo_gui.errors import DiskFull, UserError


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
    step = {"tokens": 1, "loss": 1.0, "rate": 1.0, "seconds": 1.0, "memory": 1, "slopes": (1.0,)}
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
