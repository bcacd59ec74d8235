"""The journal: every step of a run, append-only.

Format (version 2), all numbers little endian
---------------------------------------------
The header has 128 bytes:

========  =========  ===================================================================
offset    type       meaning
========  =========  ===================================================================
0         char[4]    magic ``SZOJ``
4         uint16     version = 2
6         uint16     probes: slopes per record, 1 or more
8         uint32     start: the step that the run stands at before its first record (not 0 in a branch)
12        byte[32]   fingerprint of the base model's weights
44        byte[32]   hash of the mask
76        char[48]   id of the generator of directions, ASCII, filled up with zeros
124       uint32     CRC-32 of the 124 bytes before
========  =========  ===================================================================

Records of fixed size follow, 52 + 8 · probes bytes each:

========  =======  ====================================================================
offset    type     meaning
========  =======  ====================================================================
0         uint32   step at which the run stands after this record
4         uint32   tokens processed by the forward passes of the step
8         float64  loss L(θ), mean of the sides, nats; NaN where privacy hides it, and the tokens are then 0
16        float64  learning rate used
24        float64  time of day at the end of the step, seconds since 1970 (never used to order steps)
32        float32  seconds the step took
36        uint32   kind: 0 a step was taken, 1 the run went back to an earlier step
40        uint64   memory held, bytes
48        float64  slope per probe
48 + 8q   uint32   CRC-32 of all bytes of the record before it
========  =======  ====================================================================

The step of a record of kind 0 MUST be one more than where the run stood; that of kind 1 MUST be one that the run has
reached in this journal, or its start, and all its other fields but the time are zero. A writer MUST append whole
records and MUST NOT change one, so that the first k records tell for ever what the run was then; a branch refers to its
parent that way. A reader MUST take records up to the first that is incomplete, fails its CRC or is out of sequence, and
MUST NOT use what lies behind it. Where good records stand behind a bad one the journal is damaged in its middle, which
a reader MUST tell. The losses of the two sides of a probe are L ± εg.

Version 1 had a header of 16 bytes (magic, version, probes, uint32 zero, CRC-32 of the 12 bytes before) and no records
of kind 1. A reader takes it as well; a writer brings it to version 2 before it appends.
"""

from __future__ import annotations

import errno
import os
import shutil
import struct
import time
import zlib
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np

from sparsezo_gui.engine.files import cannot_write, replacing
from sparsezo_gui.errors import UserError

MAGIC, VERSION = b"SZOJ", 2
STEP, RETURN = 0, 1
SYNC_EVERY = 1.0  # seconds at most between two syncs
_BEGIN = struct.Struct("<4sHHI")
_REST = struct.Struct("<32s32s48s")
_CRC = struct.Struct("<I")


@dataclass(frozen=True)
class Header:
    """What the records belong to; ``fingerprint`` and ``mask_hash`` in hex, empty where version 1 did not tell them."""

    probes: int
    start: int = 0
    fingerprint: str = ""
    mask_hash: str = ""
    generator: str = ""

    def pack(self) -> bytes:
        """The header's bytes."""
        hashes = (bytes.fromhex(each).ljust(32, b"\0") for each in (self.fingerprint, self.mask_hash))
        content = _BEGIN.pack(MAGIC, VERSION, self.probes, self.start) + _REST.pack(*hashes, self.generator.encode())
        return content + _CRC.pack(zlib.crc32(content))


def record_dtype(probes: int) -> np.dtype:
    """Layout of one record."""
    fields = [
        ("step", "<u4"), ("tokens", "<u4"), ("loss", "<f8"), ("rate", "<f8"), ("time", "<f8"), ("seconds", "<f4"),
        ("kind", "<u4"), ("memory", "<u8"), ("slopes", "<f8", (probes,)), ("crc", "<u4"),
    ]  # fmt: skip
    return np.dtype(fields)


@dataclass(frozen=True)
class Journal:
    """What could be read: ``records`` in the order of the file, and a sentence when something was not usable."""

    header: Header
    records: np.ndarray
    fault: str = ""
    unread: int = 0  # bytes behind the last good record

    @property
    def step(self) -> int:
        """Where the run stands."""
        return int(self.records["step"][-1]) if len(self.records) else self.header.start

    @cached_property
    def steps(self) -> np.ndarray:
        """The records of the steps from ``header.start`` to where the run stands, without those it went back over."""
        start, steps = self.header.start, self.records["step"]
        taken = np.flatnonzero(self.records["kind"] == STEP)
        latest = np.zeros(int(steps.max(initial=start)) - start, np.int64)
        latest[steps[taken] - start - 1] = taken  # of several with one step the last stays
        return self.records[latest[: self.step - start]]

    @property
    def returns(self) -> np.ndarray:
        """Places of the records at which the run went back."""
        return np.flatnonzero(self.records["kind"] == RETURN)


def read(path: Path, count: int | None = None) -> Journal:
    """Reads a journal, or its first ``count`` records. Raises `UserError` when it is not one; damage behind good
    records is told in ``fault``."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error
    header, begin = _header(path, content)
    dtype = record_dtype(header.probes)
    body = memoryview(content)[begin:]
    whole = len(body) // dtype.itemsize
    records = np.frombuffer(body[: whole * dtype.itemsize], dtype)
    good = _good(records, header.start)
    bad = np.flatnonzero(~good)
    usable = int(bad[0]) if len(bad) else whole
    if count is not None and count > usable:
        raise UserError(f"{path}: lacks records that a branch begins from ({usable} of {count} are usable).")
    found = Journal(header, records[: usable if count is None else count].copy())
    unread = len(body) - usable * dtype.itemsize
    if count is not None or not unread:
        return found
    fault = f"The last record of the journal was incomplete and is dropped; the run stands at step {found.step}."
    if good[usable + 1 :].any():
        fault = f"The journal is damaged after step {found.step}; what is behind cannot be used."
    return Journal(header, found.records, fault, unread)


def _header(path: Path, content: bytes) -> tuple[Header, int]:
    """The header, and where the records begin."""
    if len(content) < _BEGIN.size + _CRC.size:
        raise UserError(f"{path}: damaged journal (its header is incomplete).")
    magic, version, probes, start = _BEGIN.unpack_from(content)
    if magic == MAGIC and version > VERSION:
        raise UserError(f"{path}: journal version {version} is not known here. Update SparseZO.")
    size = _BEGIN.size + (_REST.size if version == 2 else 0)
    whole = len(content) >= size + _CRC.size
    good = whole and _CRC.unpack_from(content, size)[0] == zlib.crc32(content[:size])
    if magic != MAGIC or version < 1 or not good or probes < 1 or (version == 1 and start):
        raise UserError(f"{path}: not a journal of this program, or its header is damaged.")
    if version == 1:
        return Header(probes), size + _CRC.size
    fingerprint, mask, generator = _REST.unpack_from(content, _BEGIN.size)
    name = generator.rstrip(b"\0").decode("ascii", "replace")
    return Header(probes, start, fingerprint.hex(), mask.hex(), name), size + _CRC.size


def _good(records: np.ndarray, start: int) -> np.ndarray:
    """Which records carry their right CRC and stand in their place."""
    size = records.dtype.itemsize
    raw = records.tobytes()
    crcs = np.array([zlib.crc32(raw[at : at + size - 4]) for at in range(0, len(raw), size)], dtype=np.uint32)
    steps = records["step"].astype(np.int64)
    before = np.concatenate(([start], steps))[:-1]
    forward = (records["kind"] == STEP) & (steps == before + 1)
    back = (records["kind"] == RETURN) & (start <= steps) & (steps <= before)
    return (records["crc"] == crcs) & (forward | back)


class JournalWriter:
    """Appends to a journal, flushed at each record and synced at least every second. Use as a context manager.

    ``count`` is the number of records. A record that could not be written whole is taken away again, so that the same
    one can be tried anew once there is room.
    """

    def __init__(self, path: Path, header: Header) -> None:
        self.path = path
        self.dtype = record_dtype(header.probes)
        self._synced = time.monotonic()
        try:
            existing = read(path) if path.exists() else None
            content = header.pack()
            if existing is not None:
                self._check(existing.header, header)
                content += existing.records.tobytes()
                if existing.unread > self.dtype.itemsize:
                    # More than a torn record is about to be cut off; somebody may want to look at it.
                    shutil.copyfile(path, path.with_suffix(".damaged"))
            if existing is None or not existing.header.generator:  # new, or of version 1
                with replacing(path) as temporary:
                    temporary.write_bytes(content)
            self.count, self._size = len(existing.records) if existing else 0, len(content)
            self._file: BinaryIO = path.open("r+b", buffering=0)
            self._file.truncate(self._size)
            self._file.seek(self._size)
            self._sync()
        except OSError as error:
            raise cannot_write(path, error) from error

    def _check(self, found: Header, wanted: Header) -> None:
        if found.probes != wanted.probes:
            raise UserError(f"{self.path}: holds {found.probes} slopes a step, and the recipe has {wanted.probes}.")
        if found.generator and found != wanted:
            raise UserError(
                f"{self.path}: was written for another model, mask, generator or beginning than this run has. Restore "
                "the run's files from one copy."
            )

    def append(
        self, *, step: int, tokens: int, loss: float, rate: float, seconds: float, memory: int,
        slopes: tuple[float, ...],
    ) -> None:  # fmt: skip
        """Adds a step; it is in the system's hands when this returns."""
        self._write(step, tokens, loss, rate, time.time(), seconds, STEP, memory, slopes)

    def go_back(self, step: int) -> None:
        """Adds that the run went back to ``step``, and syncs."""
        self._write(step, 0, 0.0, 0.0, time.time(), 0.0, RETURN, 0, (0.0,) * self.dtype["slopes"].shape[0])
        self.sync()

    def _write(self, *fields: object) -> None:
        record = np.zeros(1, self.dtype)
        record[0] = (*fields, 0)
        record["crc"] = zlib.crc32(record.tobytes()[:-4])
        try:
            if self._file.write(record.tobytes()) != self.dtype.itemsize:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if time.monotonic() - self._synced > SYNC_EVERY:
                self._sync()
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(self._size)
                self._file.seek(self._size)
            raise cannot_write(self.path, error) from error
        self._size, self.count = self._size + self.dtype.itemsize, self.count + 1

    def sync(self) -> None:
        """Brings everything to the disk. Raises `UserError` when the disk refuses."""
        try:
            self._sync()
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
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
