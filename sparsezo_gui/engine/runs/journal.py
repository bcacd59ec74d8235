"""The journal: every step of a run, append-only.

Format (version 2), all numbers little endian
---------------------------------------------
The header has 128 bytes:

========  =========  ===================================================================
offset    type       meaning
========  =========  ===================================================================
0         char[4]    magic ``SZOJ``
4         uint16     version = 2
6         uint16     number of values per record, 1 or more
8         uint32     start: the step of the run before its first record (not 0 in a branch)
12        byte[32]   fingerprint of the base model's weights
44        byte[32]   hash of the mask
76        char[48]   id of the random generator of directions, ASCII, padded with zeros
124       uint32     CRC-32 of the preceding 124 bytes
========  =========  ===================================================================

Records of fixed size follow, 52 + 8 · n bytes each, for n values per record:

========  =======  ====================================================================
offset    type     meaning
========  =======  ====================================================================
0         uint32   step of the run after this record
4         uint32   tokens processed by the forward passes of the step
8         float64  loss L(θ), mean of the forward passes, nats; NaN in a private run, whose tokens are 0
16        float64  learning rate
24        float64  time of day at the end of the step, seconds since 1970 (never used to order steps)
32        float32  seconds the step took
36        uint32   kind: 0 a step, 1 the run went back to an earlier step
40        uint64   memory in use, bytes
48        float64  the n values, such as the projected gradient along each direction
48 + 8n   uint32   CRC-32 of the preceding bytes of the record
========  =======  ====================================================================

The step of a record of kind 0 MUST be one more than the run's step before; that of kind 1 MUST be one that the run has
reached in this journal, or its start, and all its other fields except the time are zero. A writer MUST append complete
records and MUST NOT change one, so that the first k records always describe the run as it was then; branches and
checkpoints refer to them by k and the SHA-256 of their bytes. A reader MUST read records up to the first that is
incomplete, fails its CRC or is out of sequence, and MUST NOT use anything after it. If good records follow a bad one,
the journal is damaged in the middle, which a reader that reads all of it MUST report. A run has never gone back if the
step of its last record equals its start plus the number of its records: step and position then correspond. The losses
of the two forward passes of a central difference are L ± εg.

Version 1 had a header of 16 bytes (magic, version, number of values, uint32 zero, CRC-32 of the preceding 12 bytes) and
no records of kind 1. A reader accepts it as well; a writer converts it to version 2 before it appends.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sparsezo_gui.engine.files import open_plain
from sparsezo_gui.errors import UserError

MAGIC, VERSION = b"SZOJ", 2
STEP, RETURN = 0, 1
PIECE = 1 << 22  # bytes read at a time
TAIL = 1 << 16  # bytes at the end that are read to find the current step
LARGEST = 1 << 34  # bytes; a step takes 60
_BEGIN = struct.Struct("<4sHHI")
_REST = struct.Struct("<32s32s48s")
_CRC = struct.Struct("<I")
HEADER_BYTES = _BEGIN.size + _REST.size + _CRC.size


@dataclass(frozen=True)
class Header:
    """The header; ``fingerprint`` and ``mask_hash`` in hex, empty in version 1. ``values`` is the number of values."""

    values: int
    start: int = 0
    fingerprint: str = ""
    mask_hash: str = ""
    generator: str = ""

    def pack(self) -> bytes:
        """The header's bytes."""
        hashes = (bytes.fromhex(each).ljust(32, b"\0") for each in (self.fingerprint, self.mask_hash))
        content = _BEGIN.pack(MAGIC, VERSION, self.values, self.start) + _REST.pack(*hashes, self.generator.encode())
        return content + _CRC.pack(zlib.crc32(content))


def record_dtype(values: int) -> np.dtype:
    """Layout of one record."""
    fields = [
        ("step", "<u4"), ("tokens", "<u4"), ("loss", "<f8"), ("rate", "<f8"), ("time", "<f8"), ("seconds", "<f4"),
        ("kind", "<u4"), ("memory", "<u8"), ("values", "<f8", (values,)), ("crc", "<u4"),
    ]  # fmt: skip
    return np.dtype(fields)


@dataclass(frozen=True)
class Journal:
    """The readable part: ``records`` in file order, and a sentence in ``fault`` if something is unusable."""

    header: Header
    records: np.ndarray
    fault: str = ""
    unread: int = 0  # bytes after the last good record

    @property
    def step(self) -> int:
        """The current step of the run."""
        return int(self.records["step"][-1]) if len(self.records) else self.header.start

    @cached_property
    def steps(self) -> np.ndarray:
        """The records from ``header.start`` to the current step, without those that the run went back over."""
        start, steps = self.header.start, self.records["step"]
        if self.step - start == len(steps):
            return self.records
        taken = np.flatnonzero(self.records["kind"] == STEP)
        latest = np.zeros(int(steps.max(initial=start)) - start, np.int64)
        latest[steps[taken] - start - 1] = taken  # the last of several with the same step wins
        return self.records[latest[: self.step - start]]

    @property
    def count(self) -> int:
        """The number of records."""
        return len(self.records)

    @cached_property
    def returns(self) -> list[tuple[int, int]]:
        """Positions of the records at which the run went back, and the steps that it went back to."""
        places = np.flatnonzero(self.records["kind"] == RETURN)
        return list(zip(places.tolist(), self.records["step"][places].tolist(), strict=True))

    def hash(self, count: int) -> str:
        """SHA-256 of the first ``count`` records."""
        return hashlib.sha256(self.records[:count].view(np.uint8).data).hexdigest()


@dataclass(frozen=True)
class Position:
    """The current ``step`` of a run, after ``count`` records of its journal."""

    step: int
    count: int


def read(path: Path, count: int | None = None, step: int | None = None) -> Journal:
    """Reads a journal, or only its first ``count`` records, or, if possible, only the records up to ``step``.

    Raises `UserError` if it is not a journal; ``fault`` reports damage after good records.
    """
    with _opened(path) as body:
        header, most = body.header, body.complete if count is None else min(count, body.complete)
        if step is not None and body.position() == (header.start + body.complete, body.complete):
            most = min(max(step - header.start, 0), most)
        records, usable = body.read(most)
        if count is not None and count > usable:
            raise UserError(
                f"{path}: a branch starts after {count} records, but only {usable} are usable. "
                "Restore it from a copy of the run."
            )
        found, left = Journal(header, records[:usable]), body.complete - usable
        if count is not None or (usable == most and (left or not body.torn)):
            return found
        fault = f"The last record of the journal was incomplete and is ignored; the run is at step {found.step}."
        if body.good(usable + 1, usable + 1 + body.within(PIECE)).any():
            fault = f"The journal is damaged after step {found.step}; later steps cannot be used."
        return Journal(header, found.records, fault, left * records.itemsize + body.torn)


def position(path: Path) -> Position:
    """The current step, from the end of the journal alone, without looking for damage in the middle.

    Raises `UserError`.
    """
    with _opened(path) as body:
        found = body.position()
    if found is None:
        every = read(path)
        found = every.step, every.count
    return Position(*found)


@dataclass(frozen=True)
class _Body:
    """The records of an open journal: their number (``complete``) from byte ``offset`` on, and ``torn`` bytes after."""

    file: BinaryIO
    header: Header
    offset: int
    complete: int
    torn: int

    @property
    def dtype(self) -> np.dtype:
        """Layout of one record."""
        return record_dtype(self.header.values)

    def within(self, size: int) -> int:
        """How many records fit in ``size`` bytes; at least one."""
        return max(size // self.dtype.itemsize, 1)

    def piece(self, first: int, last: int) -> np.ndarray:
        """Records from ``first`` to before ``last``, as far as they exist."""
        size = self.dtype.itemsize
        self.file.seek(self.offset + first * size)
        content = self.file.read(max(min(last, self.complete) - first, 0) * size)
        return np.frombuffer(content, self.dtype, len(content) // size)

    def read(self, most: int) -> tuple[np.ndarray, int]:
        """The first records, and how many of them are good; the others are undefined."""
        records, before, together = np.empty(most, self.dtype), self.header.start, self.within(PIECE)
        for first in range(0, most, together):
            part = self.piece(first, min(first + together, most))
            records[first : first + len(part)] = part
            good = _good(part, self.header.start, before)
            if not good.all() or len(part) < min(together, most - first):
                return records, first + (len(part) if good.all() else int(good.argmin()))
            before = int(part["step"][-1])
        return records, most

    def good(self, first: int, last: int) -> np.ndarray:
        """Which of these records are good, given the one before them; ``first`` is not 0."""
        part = self.piece(first - 1, last)
        return _good(part[1:], self.header.start, int(part["step"][0])) if len(part) else np.zeros(0, bool)

    def position(self) -> tuple[int, int] | None:
        """Step and number of records at the end; None if the end is damaged."""
        tail = self.within(TAIL)
        if self.complete <= tail:
            records, usable = self.read(self.complete)
            return (int(records["step"][usable - 1]) if usable else self.header.start), usable
        good = self.good(self.complete - tail, self.complete)
        usable = self.complete - tail + (tail if good.all() else int(good.argmin()))
        last = self.piece(usable - 1, usable)
        return (int(last["step"][0]), usable) if good[0] else None


@contextmanager
def _opened(path: Path) -> Iterator[_Body]:
    """Opens the records of a journal. Raises `UserError`."""
    try:
        with open_plain(path) as file:
            header, offset = _header(path, file.read(HEADER_BYTES))
            body = os.fstat(file.fileno()).st_size - offset
            if body > LARGEST:
                raise UserError(f"{path}: larger than a journal can be. Restore it from a copy of the run.")
            yield _Body(file, header, offset, *divmod(body, record_dtype(header.values).itemsize))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error


def _header(path: Path, content: bytes) -> tuple[Header, int]:
    """The header, and the byte at which the records start."""
    if len(content) < _BEGIN.size + _CRC.size:
        raise UserError(f"{path}: damaged journal (its header is incomplete). Restore it from a backup.")
    magic, version, values, start = _BEGIN.unpack_from(content)
    if magic == MAGIC and version > VERSION:
        raise UserError(f"{path}: unknown journal version {version}. Update SparseZO.")
    size = _BEGIN.size + (_REST.size if version == 2 else 0)
    complete = len(content) >= size + _CRC.size
    good = complete and _CRC.unpack_from(content, size)[0] == zlib.crc32(content[:size])
    if magic != MAGIC or version < 1 or not good or values < 1 or (version == 1 and start):
        raise UserError(f"{path}: not a journal of this program, or its header is damaged. Restore it from a backup.")
    if version == 1:
        return Header(values), size + _CRC.size
    fingerprint, mask, generator = _REST.unpack_from(content, _BEGIN.size)
    name = generator.rstrip(b"\0").decode("ascii", "replace")
    return Header(values, start, fingerprint.hex(), mask.hex(), name), size + _CRC.size


def _good(records: np.ndarray, start: int, last: int) -> np.ndarray:
    """Which records have a valid CRC and are in sequence, after one at step ``last``."""
    body = records.view([("body", f"V{records.itemsize - _CRC.size}"), ("crc", "<u4")])["body"]
    crcs = np.fromiter(map(zlib.crc32, body.tolist()), np.uint32, len(records))
    steps = records["step"].astype(np.int64)
    before = np.concatenate(([last], steps))[:-1]
    forward = (records["kind"] == STEP) & (steps == before + 1)
    back = (records["kind"] == RETURN) & (start <= steps) & (steps <= before)
    good: np.ndarray = (records["crc"] == crcs) & (forward | back)
    return good
