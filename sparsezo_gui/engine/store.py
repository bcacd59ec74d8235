"""A cache of bytes by key in a file of the program's folder, for what can always be computed again.

Each store is a SQLite file of its own, ``kept/NAME.sqlite``, which several processes may use at once. All stores
together stay within `BUDGET` and a share of the disk: when a store is opened, those least recently used go. Whatever is
wrong with a file, it is removed, and the cache begins anew.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

from sparsezo_gui.engine.files import home, make_folder, private

BUDGET = 8 * 10**9  # bytes of all stores together
SHARE = 0.1  # of the free disk that they may take
WAIT = 5.0  # seconds to wait for another process
ENDING = ".sqlite"


class Store:
    """The store called ``name``."""

    def __init__(self, name: str) -> None:
        self.path = folder() / f"{name}{ENDING}"
        self._room = 0
        with suppress(OSError):
            self._room = self._make_room()

    def get(self, key: bytes, size: int) -> bytes | None:
        """The ``size`` bytes under ``key``."""
        found = self._done("SELECT value FROM kept WHERE key = ?", key)
        return found if isinstance(found, bytes) and len(found) == size else None

    def put(self, key: bytes, value: bytes) -> None:
        """Keeps ``value`` under ``key``, while there is room."""
        if self._room >= len(value):
            self._done("INSERT OR REPLACE INTO kept VALUES (?, ?)", key, value)
            self._room -= len(value)

    def _done(self, statement: str, *values: bytes) -> bytes | None:
        try:
            with closing(sqlite3.connect(self.path, timeout=WAIT, isolation_level=None)) as database:
                database.execute("PRAGMA synchronous = OFF")
                database.execute("CREATE TABLE IF NOT EXISTS kept (key BLOB PRIMARY KEY, value BLOB)")
                row = database.execute(statement, values).fetchone()
        except sqlite3.OperationalError:  # a full disk, a locked file: it works without
            self._room = 0
            return None
        except (sqlite3.DatabaseError, OSError):
            remove(self.path)
            return None
        return row[0] if row else None

    def _make_room(self) -> int:
        """Removes stores that were not used for the longest time; bytes that this one may take more."""
        make_folder(self.path.parent)
        os.close(private(str(self.path), os.O_CREAT | os.O_RDWR))
        self.path.touch()
        mine = self.path.stat().st_size
        others = sorted((path for path in stores() if path != self.path), key=lambda path: path.stat().st_mtime)
        taken = mine + sum(path.stat().st_size for path in others)
        budget = min(BUDGET, taken + int(SHARE * shutil.disk_usage(self.path.parent).free))
        while others and taken > budget:
            taken -= others[0].stat().st_size
            remove(others.pop(0))
        return max(0, budget - taken)


def folder() -> Path:
    """Where the stores are."""
    return home() / "kept"


def stores() -> Iterator[Path]:
    """All stores."""
    yield from sorted(folder().glob(f"*{ENDING}"))


def remove(path: Path) -> None:
    """Removes a store, with what SQLite put beside it."""
    for each in (path, path.with_name(path.name + "-journal")):
        with suppress(OSError):
            each.unlink()
