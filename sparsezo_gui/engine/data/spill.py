"""Lists of rows and examples that take little memory, however long they are."""

from __future__ import annotations

import pickle
import tempfile
import threading
import weakref
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from sparsezo_gui.engine.files import cannot_write

IN_MEMORY = 5000  # values that are kept in memory
WRITTEN = 2**20  # bytes written at a time
T = TypeVar("T")


class SpillList(Sequence[T]):
    """Values in the order they were appended. Those after the first `IN_MEMORY` go to an unnamed temporary file, which
    disappears with the process, so that a million examples take a few bytes of memory each.

    Reading from the file gives a new, equal object each time. Raises `UserError` if the disk is full.
    """

    def __init__(self, values: Iterable[T] = ()) -> None:
        self._held: list[T] = []
        self._ends, self._buffer, self._lock = array("Q", [0]), bytearray(), threading.Lock()
        self._file: BinaryIO | None = None
        self._written = 0
        for value in values:
            self.append(value)

    def append(self, value: T) -> None:
        """Adds ``value`` at the end."""
        if len(self._held) < IN_MEMORY:
            self._held.append(value)
            return
        with self._lock:
            self._buffer += pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
            self._ends.append(self._written + len(self._buffer))
            if len(self._buffer) >= WRITTEN:
                self._flush()

    def __len__(self) -> int:
        return len(self._held) + len(self._ends) - 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(index)
        return self._held[place] if place < len(self._held) else self._read(place - len(self._held))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(mine == its for mine, its in zip(self, other, strict=True))

    def _flush(self) -> None:
        try:
            if self._file is None:
                self._file = cast("BinaryIO", tempfile.TemporaryFile(buffering=0))  # noqa: SIM115 (closed with the list)
                weakref.finalize(self, self._file.close)
            self._file.seek(self._written)
            self._file.write(self._buffer)
        except OSError as error:
            raise cannot_write(Path(tempfile.gettempdir()), error) from error
        self._written += len(self._buffer)
        self._buffer.clear()

    def _read(self, place: int) -> T:
        begin, end = self._ends[place], self._ends[place + 1]
        with self._lock:
            if end > self._written:
                self._flush()
            assert self._file
            self._file.seek(begin)
            content = self._file.read(end - begin)
        value: T = pickle.loads(content)  # written by this process, where no other can write
        return value


class Subset(Sequence[T]):
    """The values of a `SpillList` at some ``places``."""

    def __init__(self, store: Sequence[T], places: Sequence[int]) -> None:
        self._store, self._places = store, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Subset(self._store, self._places[index])
        return self._store[self._places[index]]
