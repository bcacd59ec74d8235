"""A list that keeps most of itself in a file gives what a list gives, in a few bytes each."""

import errno
import os
import tempfile
import tracemalloc

import pytest

from sparsezo_gui.engine.data import spill as store
from sparsezo_gui.engine.data.encode import Encoded, Row
from sparsezo_gui.engine.data.record import Record
from sparsezo_gui.engine.data.spill import SpillList, Subset
from sparsezo_gui.errors import UserError


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(store, "IN_MEMORY", 3)
    monkeypatch.setattr(store, "WRITTEN", 500)


def test_it_is_a_sequence():
    rows = [Record({"text": "café " * number, "label": number}, "a.csv", number, number + 1) for number in range(40)]
    found = SpillList(rows)
    assert (len(found), found[0], found[-1], found[3:30:5], list(found)) == (40, rows[0], rows[-1], rows[3:30:5], rows)
    assert found == rows and found == SpillList(rows) and found != rows[1:] and found != 5
    found.append(rows[0])  # after it was read
    assert found[40] == rows[0] and rows[39] in found
    with pytest.raises(IndexError):
        found[41]
    picked = Subset(found, [5, 39, 0])
    assert (list(picked), list(picked[1:]), picked[-1]) == ([rows[5], rows[39], rows[0]], [rows[39], rows[0]], rows[0])
    assert list(SpillList()) == []


def test_examples_come_back_whole():
    one = Encoded((Row((1, 70_000), (0,), (5,), (0,)), Row((1, 2), (0,), (6,), (1,))), 2, 1, (1,), ("yes",), 3)
    (*_, last) = SpillList([one] * 5)
    assert last == one and last.joined == one.joined and last.length == 2


def test_a_hundred_thousand_take_no_memory(monkeypatch):
    monkeypatch.setattr(store, "WRITTEN", 2**20)
    tracemalloc.start()
    try:
        kept = SpillList(tuple(range(number, number + 300)) for number in range(20_000))
        held, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 8_000_000 and held < 2_500_000  # as tuples they would take 180 MB
    assert kept[19_999] == tuple(range(19_999, 20_299))


def test_a_full_disk_is_told(monkeypatch):
    def full(**options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(UserError, match="the disk is full"):
        SpillList("a" * 100 for _ in range(100))
