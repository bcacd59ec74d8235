"""Caches of bytes: what is put is read, by other processes too; what is damaged or too much goes."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading

import pytest

from sparsezo_gui.engine import caches, store
from sparsezo_gui.engine.store import Store
from sparsezo_gui.errors import UserError


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARSEZO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_what_is_put_is_read_later():
    one = Store("one")
    one.put(b"key", b"value")
    assert one.get(b"key", 5) == Store("one").get(b"key", 5) == b"value"
    assert one.get(b"other", 5) is None and Store("two").get(b"key", 5) is None
    assert one.get(b"key", 6) is None, "of another size: not what was asked for"
    if os.name == "posix":
        assert one.path.stat().st_mode & 0o077 == 0, "private to its owner"


@pytest.mark.parametrize("content", [b"not a database", b"SQLite format 3\0" + b"\xff" * 5000, b"\0" * 4096])
def test_a_damaged_file_is_begun_anew(content):
    Store("one").put(b"key", b"value")
    Store("one").path.write_bytes(content)
    again = Store("one")
    assert again.get(b"key", 5) is None
    again = Store("one")
    again.put(b"key", b"value")
    assert again.get(b"key", 5) == b"value"


def test_another_table_is_no_trap(home):
    path = Store("one").path
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE kept (key TEXT, value INTEGER)")
        database.execute("INSERT INTO kept VALUES (x'6b6579', 12345)")
    database.close()
    assert Store("one").get(b"key", 5) is None


def test_the_budget_holds_and_the_oldest_go(monkeypatch):
    monkeypatch.setattr(store, "BUDGET", 200_000)
    for number, name in enumerate(("old", "new")):
        Store(name).put(b"key", bytes(60_000))
        os.utime(Store(name).path, (number, number))
    third = Store("third")
    third.put(b"one", bytes(60_000))
    assert third.get(b"one", 60_000) is not None
    third.put(b"two", bytes(60_000))
    assert third.get(b"two", 60_000) is None, "no room"
    monkeypatch.setattr(store, "BUDGET", 140_000)
    assert Store("third").get(b"one", 60_000) is not None
    assert [path.stem for path in store.stores()] == ["new", "third"]


def test_without_a_place_it_works_without(home, monkeypatch):
    home.write_text("a file where the folder should be")
    nowhere = Store("one")
    nowhere.put(b"key", b"value")
    assert nowhere.get(b"key", 5) is None and list(store.stores()) == []


def test_processes_and_threads_share_a_store():
    code = "from sparsezo_gui.engine.store import Store\nfor n in range(50): Store('one').put(b'%d' % n, b'%8d' % n)"
    others = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    threads = [threading.Thread(target=lambda: [Store("one").put(b"%d" % n, b"%8d" % n) for n in range(50)])]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert [each.wait(60) for each in others] == [0, 0]
    assert all(Store("one").get(b"%d" % n, 8) == b"%8d" % n for n in range(50))


def test_caches_are_listed_and_removed(home):
    Store("0123456789abcdef").put(b"key", bytes(10_000))
    (home / "searches" / "aa").mkdir(parents=True)
    (home / "searches" / "aa" / "hidden-0.bin").write_bytes(bytes(100))
    found = caches.caches()
    assert [(each.name, each.kind) for each in found] == [("0123456789ab", "activations"), ("aa", "mask search")]
    assert found[1].bytes == 100 and found[0].bytes > 10_000
    with pytest.raises(UserError, match="no cache '01234'"):
        caches.remove("01234")
    assert [each.name for each in caches.remove("0123456789ab")] == ["0123456789ab"]
    assert [each.name for each in caches.remove("all")] == ["aa"]
    assert caches.caches() == [] == caches.remove("all")
