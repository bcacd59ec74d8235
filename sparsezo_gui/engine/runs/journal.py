"""The journal: every step of a run, append-only.

Format (version 1), all numbers little endian
---------------------------------------------
The header is 16 bytes: the magic ``SZOJ``, uint16 version = 1, uint16 probes (slopes per record, ≥ 1), uint32 zero,
uint32 CRC-32 of the 12 bytes before it. Records of fixed size follow, 52 + 8 · probes bytes each:

========  =======  ====================================================================
offset    type     meaning
========  =======  ====================================================================
0         uint32   step, counted from 1; MUST be one more than in the record before
4         uint32   tokens processed by the forward passes of the step
8         float64  loss L(θ), mean of the sides, nats
16        float64  learning rate used
24        float64  time of day at the end of the step, seconds since 1970 (never used to order steps)
32        float32  seconds the step took
36        uint32   zero
40        uint64   memory held, bytes
48        float64  slope per probe
48 + 8q   uint32   CRC-32 of all bytes of the record before it
========  =======  ====================================================================

A writer MUST append whole records and MUST NOT change one. A reader MUST take records up to the first that is
incomplete, fails its CRC or is out of sequence, and MUST NOT use what lies behind it. Where good records stand behind a
bad one the journal is damaged in its middle, which a reader MUST tell.
"""

from __future__ import annotations

import os
import struct
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np

from sparsezo_gui.engine.files import cannot_write
from sparsezo_gui.errors import UserError

MAGIC, VERSION = b"SZOJ", 1
_HEADER = struct.Struct("<4sHHII")
SYNC_EVERY = 1.0  # seconds at most between two syncs


def record_dtype(probes: int) -> np.dtype:
    """Layout of one record."""
    fields = [
        ("step", "<u4"), ("tokens", "<u4"), ("loss", "<f8"), ("rate", "<f8"), ("time", "<f8"), ("seconds", "<f4"),
        ("reserved", "<u4"), ("memory", "<u8"), ("slopes", "<f8", (probes,)), ("crc", "<u4"),
    ]  # fmt: skip
    return np.dtype(fields)


@dataclass(frozen=True)
class Journal:
    """What could be read: ``records`` (steps,) in order, and a sentence when something was not usable."""

    records: np.ndarray
    probes: int
    fault: str = ""

    @property
    def steps(self) -> int:
        """Number of good steps."""
        return len(self.records)

    @property
    def size(self) -> int:
        """Bytes of the file up to the end of the last good record."""
        return _HEADER.size + self.records.nbytes


def read(path: Path) -> Journal:
    """Reads a journal. Raises `UserError` when it is not one; damage behind good records is told in ``fault``."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error
    if len(content) < _HEADER.size:
        raise UserError(f"{path}: damaged journal (its header is incomplete).")
    magic, version, probes, reserved, crc = _HEADER.unpack_from(content)
    if magic != MAGIC or crc != zlib.crc32(content[: _HEADER.size - 4]) or probes < 1 or reserved:
        raise UserError(f"{path}: not a journal of this program, or its header is damaged.")
    if version != VERSION:
        raise UserError(f"{path}: journal version {version} is not known here. Update SparseZO.")
    dtype = record_dtype(probes)
    body = memoryview(content)[_HEADER.size :]
    whole = len(body) // dtype.itemsize
    records = np.frombuffer(body[: whole * dtype.itemsize], dtype)
    good = _good(records)
    bad = np.flatnonzero(~good)
    usable = int(bad[0]) if len(bad) else whole
    fault = ""
    if usable < whole and good[usable + 1 :].any():
        fault = f"The journal is damaged at step {usable + 1}; the {usable} steps before it are used."
    elif usable < whole or len(body) % dtype.itemsize:
        fault = f"The last record of the journal was incomplete and is dropped; {usable} steps are used."
    return Journal(records[:usable].copy(), probes, fault)


def _good(records: np.ndarray) -> np.ndarray:
    """Which records carry their right CRC and stand in their place."""
    size = records.dtype.itemsize
    raw = records.tobytes()
    crcs = np.array([zlib.crc32(raw[at : at + size - 4]) for at in range(0, len(raw), size)], dtype=np.uint32)
    return (records["crc"] == crcs) & (records["step"] == np.arange(1, len(records) + 1))


class JournalWriter:
    """Appends steps to a journal, flushed at each one and synced at least every second. Use as a context manager."""

    def __init__(self, path: Path, probes: int) -> None:
        self.path = path
        self.dtype = record_dtype(probes)
        self._synced = time.monotonic()
        try:
            if path.exists():
                existing = read(path)
                if existing.probes != probes:
                    raise UserError(f"{path}: holds {existing.probes} slopes a step, and the recipe has {probes}.")
                self._file: BinaryIO = path.open("r+b")
                self._file.truncate(existing.size)
                self._file.seek(existing.size)
            else:
                self._file = path.open("xb")
                start = _HEADER.pack(MAGIC, VERSION, probes, 0, 0)[:-4]
                self._file.write(start + zlib.crc32(start).to_bytes(4, "little"))
            self.sync()
        except OSError as error:
            raise cannot_write(path, error) from error

    def append(
        self,
        *,
        step: int,
        tokens: int,
        loss: float,
        rate: float,
        seconds: float,
        memory: int,
        slopes: tuple[float, ...],
    ) -> None:
        """Adds one record; it is in the system's hands when this returns."""
        record = np.zeros(1, self.dtype)
        record[0] = (step, tokens, loss, rate, time.time(), seconds, 0, memory, slopes, 0)
        record["crc"] = zlib.crc32(record.tobytes()[:-4])
        try:
            self._file.write(record.tobytes())
            self._file.flush()
            if time.monotonic() - self._synced > SYNC_EVERY:
                self.sync()
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def sync(self) -> None:
        """Brings everything to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.sync()
        except OSError as failure:
            if kind is None:
                raise cannot_write(self.path, failure) from failure
        finally:
            self._file.close()
