"""Appends to a journal, whose format is in `sparsezo_gui.engine.runs.journal`."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
import zlib
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np

from sparsezo_gui.engine.files import cannot_write, replacing, sync_open, write_all
from sparsezo_gui.engine.runs.journal import HEADER_BYTES, RETURN, STEP, Header, Journal, read, record_dtype
from sparsezo_gui.errors import UserError

SYNC_EVERY = 1.0  # maximum seconds between two syncs
_STOPS = (
    "The run stopped and overwrote nothing. Let only one program at a time write a run, and do not restore or "
    "synchronise it meanwhile. Check it with 'sparsezo runs', then resume it."
)


class JournalWriter:
    """Appends to a journal; flushes every record and syncs at least every second. Use as a context manager.

    ``count`` is the number of records, ``returns`` are as in `Journal`. A record that could not be written completely
    is removed again, so that it can be retried once there is space. If another process has changed or replaced the
    file, the writer stops.
    """

    def __init__(self, path: Path, header: Header) -> None:
        self.path, self.header = path, header
        self.dtype = record_dtype(header.values)
        self._synced = time.monotonic()
        try:
            existing = read(path) if path.exists() else Journal(header, np.zeros(0, self.dtype))
            self._check(existing.header, header)
            if existing.unread > self.dtype.itemsize:
                # More than an incomplete record is about to be cut off; keep a copy for inspection.
                shutil.copyfile(path, path.with_suffix(".damaged"))
            records = existing.records.view(np.uint8)
            if not path.exists() or not existing.header.generator:  # new, or of version 1
                with replacing(path) as temporary:
                    temporary.write_bytes(header.pack() + records.tobytes())
            self.count, self.returns = existing.count, list(existing.returns)
            self._digest, self._size = hashlib.sha256(records.data), HEADER_BYTES + records.nbytes
            self._file: BinaryIO = path.open("ab", buffering=0)
            self._file.truncate(self._size)
            self._number = _number(os.fstat(self._file.fileno()))
            self._sync()
        except OSError as error:
            raise cannot_write(path, error) from error

    def _check(self, found: Header, wanted: Header) -> None:
        if found.values != wanted.values:
            raise UserError(
                f"{self.path}: has {found.values} values per step, but the recipe needs {wanted.values}. "
                "Restore the run's files from one copy."
            )
        if found.generator and found != wanted:
            raise UserError(
                f"{self.path}: belongs to another model, mask, generator or start than this run. Restore the run's "
                "files from one copy."
            )

    def append(
        self, *, step: int, tokens: int, loss: float, rate: float, seconds: float, memory: int,
        values: tuple[float, ...], at: float | None = None,
    ) -> None:  # fmt: skip
        """Adds a step that ended ``at`` a time (None: now). The operating system has it when this returns."""
        self._write(step, tokens, loss, rate, time.time() if at is None else at, seconds, STEP, memory, values)

    def go_back(self, step: int) -> None:
        """Records that the run went back to ``step``, and syncs."""
        self._write(step, 0, 0.0, 0.0, time.time(), 0.0, RETURN, 0, (0.0,) * self.dtype["values"].shape[0])
        self.sync()

    def _write(self, *fields: object) -> None:
        record = np.zeros(1, self.dtype)
        record[0] = (*fields, 0)
        record["crc"] = zlib.crc32(record.tobytes()[:-4])
        self._check_own()
        try:
            write_all(self._file, record.tobytes())
            if time.monotonic() - self._synced > SYNC_EVERY:
                self._sync()
        except OSError as error:
            with suppress(OSError):
                if self._size < os.fstat(self._file.fileno()).st_size <= self._size + self.dtype.itemsize:
                    self._file.truncate(self._size)
            raise cannot_write(self.path, error) from error
        if record["kind"][0] == RETURN:
            self.returns.append((self.count, int(record["step"][0])))
        self._digest.update(record.tobytes())
        self._size, self.count = self._size + self.dtype.itemsize, self.count + 1

    @property
    def hash(self) -> str:
        """SHA-256 of all records so far; see `Journal.hash`."""
        return self._digest.hexdigest()

    def sync(self) -> None:
        """Writes everything to the disk. Raises `UserError` if that fails, or if another process changed the file."""
        self._check_own()
        try:
            self._sync()
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def _check_own(self) -> None:
        """Raises `UserError` if the file was replaced, or has another length than this writer left it with."""
        try:
            now = os.stat(self.path)
        except OSError as error:
            raise UserError(f"{self.path}: was removed during the run ({error.strerror}). {_STOPS}") from error
        if _number(now) != self._number or now.st_size != self._size:
            raise UserError(f"{self.path}: was changed by another program during the run. {_STOPS}")

    def _sync(self) -> None:
        sync_open(self._file.fileno())
        self._synced = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.sync()
        except UserError:
            if kind is None:
                raise
        finally:
            self._file.close()


def _number(file: os.stat_result) -> tuple[int, int]:
    """Identity of a file."""
    return file.st_dev, file.st_ino
