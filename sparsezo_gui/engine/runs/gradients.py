"""The exact gradients of a run's steps, rounded to 16 bits, so that a replay needs neither forward passes nor data.

They are kept beside the journal in ``gradients.bin``, up to a size that the recipe chooses. A run applies each exact
gradient as rounded here, also beyond that size: so a step that a replay computes again, on the same hardware, has the
same bits as one that it reads. Compression would save a tenth of the bytes (measured), so they are
stored as they are.

The directions of a run may be in the span of a few vectors that are found again from time to time, from gradients (see
`sparsezo_gui.engine.masks.gradient_subspace`). These vectors are recorded in the same way, one after the other in one
record; n is then the number of tuned values times the most vectors that the recipe allows.

Format (version 1), all numbers little endian
---------------------------------------------
The header has 52 bytes:

========  =========  ===================================================================
offset    type       meaning
========  =========  ===================================================================
0         char[4]    magic ``SZOG``
4         uint16     version = 1
6         uint16     zero
8         uint64     n, the number of tuned values (or times the vectors, see above)
16        byte[32]   hash of the mask
48        uint32     CRC-32 of the preceding 48 bytes
========  =========  ===================================================================

Records follow, 40 + 2 · k bytes each:

========  ==========  ==================================================================
offset    type        meaning
========  ==========  ==================================================================
0         uint32      step of the run after the step with this gradient
4         int32       exponent e, -102 … 113
8         float64     time of the step's record in the journal
16        uint64      first: where the k numbers begin; all values before and after have the gradient 0
24        uint64      k, the count of numbers; 0 if the step had no exact gradient
32        uint32      CRC-32 of the numbers
36        uint32      CRC-32 of the preceding 36 bytes
40        float16[k]  the numbers; the gradient is 2^e times them, in fp32
========  ==========  ==================================================================

A record belongs to the journal's record of kind 0 with the same step and time; of several, the last counts. One that
belongs to none MUST be ignored: a process was killed before it wrote the step, or the files are of different copies.
A writer MUST append a record before that of the journal. A reader MUST NOT use anything after a record whose first
40 bytes fail their CRC, that ends after n or after the end of the file, nor a record whose numbers fail theirs or are
not finite. What is missing is computed again, so the file MAY be removed: it then takes the model and the data to reach
a step, and other hardware gives other last bits.
"""

from __future__ import annotations

import math
import os
import struct
import time
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np

from sparsezo_gui.engine.files import cannot_write, open_plain, replacing, sync_open, write_all
from sparsezo_gui.engine.runs.journal_writer import SYNC_EVERY

if TYPE_CHECKING:
    from torch import Tensor

MAGIC, VERSION = b"SZOG", 1
LOWEST, HIGHEST = -102, 113  # exponents with which fp32 holds every 16-bit number without rounding it again
TOP = 15  # the largest number is below 2¹⁵; 16 bits hold those down to 2⁻¹⁴ to 11 significant bits
MOST = 1 << 18  # records
_HEADER, _CRC = struct.Struct("<4sHHQ32s"), struct.Struct("<I")
_FIELDS = struct.Struct("<IidQQI")
HEADER_BYTES, RECORD_BYTES = _HEADER.size + _CRC.size, _FIELDS.size + _CRC.size


@dataclass(frozen=True)
class Rounded:
    """A gradient in 16 bits: 2^``exponent`` · ``numbers`` (k,) from value ``first`` on, 0 elsewhere; None if k is 0."""

    first: int
    exponent: int
    numbers: np.ndarray

    def unpacked(self, values: Tensor) -> Tensor | None:
        """The gradient of the tuned ``values`` (n,), fp32, on their device."""
        import torch

        if not len(self.numbers):
            return None
        numbers = torch.from_numpy(self.numbers.astype(np.float16)).to(values.device).float().mul_(2.0**self.exponent)
        if len(numbers) == len(values):
            return numbers
        found = torch.zeros_like(values, dtype=torch.float32)
        found[self.first : self.first + len(numbers)] = numbers
        return found

    def pack(self, step: int, at: float) -> bytes:
        """The record of ``step``, whose record in the journal has the time ``at``."""
        content = self.numbers.tobytes()
        fields = _FIELDS.pack(step, self.exponent, at, self.first, len(self.numbers), zlib.crc32(content))
        return fields + _CRC.pack(zlib.crc32(fields)) + content


def rounded(gradient: Tensor | None) -> Rounded:
    """``gradient`` (n,) in 16 bits, each number to the nearest: at most 2⁻¹¹ of it away, except for those below 2⁻²⁸ of
    the largest. What is not finite stays so."""
    if gradient is None:
        return Rounded(0, 0, np.zeros(0, "<f2"))
    used = (gradient != 0).byte()
    first, last = int(used.argmax()), len(used) - int(used.flip(0).argmax())
    values = gradient[first:last] if used[first] else gradient[:1]  # all of it is 0
    low, high = values.aminmax()
    exponent = min(max(math.frexp(max(high.item(), -low.item()))[1] - TOP, LOWEST), HIGHEST)
    # A product with a power of 2 is exact, so that this is the same on every device.
    return Rounded(first, exponent, values.mul(2.0**-exponent).half().cpu().numpy().astype("<f2", copy=False))


class _Place(NamedTuple):
    """Where the numbers of a record are."""

    offset: int
    exponent: int
    first: int
    size: int
    crc: int


@dataclass
class Gradients:
    """The gradients that a file holds, up to byte ``end``; ``fault`` is a sentence if something is unusable."""

    path: Path
    header: bytes = b""
    places: dict[tuple[int, float], _Place] = field(default_factory=dict)
    end: int = 0
    fault: str = ""

    def of(self, record: np.void) -> Rounded | None:
        """The gradient of the step with this ``record`` in the journal; None if it is not in the file."""
        place = self.places.get((int(record["step"]), float(record["time"])))
        if place is None:
            return None
        try:
            with open_plain(self.path) as file:
                file.seek(place.offset)
                content = file.read(2 * place.size)
        except OSError:
            return None
        numbers = np.frombuffer(content, "<f2", len(content) // 2)
        good = len(numbers) == place.size and zlib.crc32(content) == place.crc and np.isfinite(numbers).all()
        return Rounded(place.first, place.exponent, numbers) if good else None

    def missing(self, steps: np.ndarray) -> int:
        """How many of these ``steps``, records of the journal, are not in the file."""
        return sum(key not in self.places for key in zip(steps["step"].tolist(), steps["time"].tolist(), strict=True))

    def packed(self, records: np.ndarray) -> bytes:
        """A file with the gradients of these ``records`` of the journal; nothing if there are none."""
        found = ((record, self.of(record)) for record in records if self.places)
        parts = [held.pack(int(record["step"]), float(record["time"])) for record, held in found if held is not None]
        return b"".join((self.header, *parts)) if parts else b""


def header(size: int, mask_hash: str) -> bytes:
    """The header of a file for gradients of ``size`` values."""
    content = _HEADER.pack(MAGIC, VERSION, 0, size, bytes.fromhex(mask_hash))
    return content + _CRC.pack(zlib.crc32(content))


def read(path: Path, size: int, mask_hash: str) -> Gradients:
    """What the file ``path`` holds for a run with so many tuned values; nothing if there is no such file."""
    wanted = header(size, mask_hash)
    try:
        with open_plain(path) as file:
            begin = file.read(HEADER_BYTES)
            if begin != wanted:
                return Gradients(path, fault=_unusable(path, begin, wanted))
            found = Gradients(path, wanted, end=HEADER_BYTES)
            _scan(file, found, size, os.fstat(file.fileno()).st_size)
    except FileNotFoundError:
        return Gradients(path)
    except OSError as error:
        return Gradients(path, fault=f"{path}: cannot be read ({error.strerror}). {_AGAIN}")
    return found


_AGAIN = "Steps whose gradients are missing are computed again from the data."


def _unusable(path: Path, begin: bytes, wanted: bytes) -> str:
    """Why a file with this header cannot be used."""
    if begin[:4] == MAGIC and int.from_bytes(begin[4:6], "little") > VERSION:
        return f"{path}: unknown version of a file of gradients. Update SparseZO. {_AGAIN}"
    whole = len(begin) == len(wanted) and _CRC.unpack(begin[-4:])[0] == zlib.crc32(begin[:-4]) and begin[:4] == MAGIC
    what = "belongs to another mask than this run" if whole else "not a file of gradients, or its header is damaged"
    return f"{path}: {what}. {_AGAIN}"


def _scan(file: BinaryIO, found: Gradients, size: int, length: int) -> None:
    """Finds the records from ``found.end`` on."""
    while found.end < length:
        file.seek(found.end)
        begin = file.read(RECORD_BYTES)
        whole = len(begin) == RECORD_BYTES and _CRC.unpack(begin[-4:])[0] == zlib.crc32(begin[:-4])
        step, exponent, at, first, count, crc = _FIELDS.unpack_from(begin) if whole else (0,) * 6
        offset = found.end + RECORD_BYTES
        fits = first + count <= size and offset + 2 * count <= length and LOWEST <= exponent <= HIGHEST
        if not whole or not fits or len(found.places) == MOST:
            found.fault = f"{found.path}: damaged or incomplete after {len(found.places):,} gradients. {_AGAIN}"
            return
        found.places[step, at] = _Place(offset, exponent, first, count, crc)
        found.end = offset + 2 * count


class GradientWriter:
    """Appends to the file ``path`` for ``size`` values, up to ``budget`` bytes. Raises `UserError`.

    What is unusable at the end of the file is cut off; a file that is unusable as a whole is kept as ``.damaged``.
    """

    def __init__(self, path: Path, size: int, mask_hash: str, budget: int) -> None:
        self.path, self.budget = path, budget
        found = read(path, size, mask_hash)
        try:
            if not found.end:
                if path.exists():
                    os.replace(path, path.with_suffix(".damaged"))
                with replacing(path) as temporary:
                    temporary.write_bytes(header(size, mask_hash))
            self._size, self._left = found.end or HEADER_BYTES, MOST - len(found.places)
            os.truncate(path, self._size)
        except OSError as error:
            raise cannot_write(path, error) from error
        self._synced = time.monotonic()

    def has_space(self, gradient: Rounded) -> bool:
        """Whether the budget is large enough for one more."""
        return self._left > 0 and self._size + RECORD_BYTES + gradient.numbers.nbytes <= self.budget

    def append(self, step: int, at: float, gradient: Rounded) -> None:
        """Adds the gradient of ``step``, whose record in the journal will have the time ``at``. Raises `UserError`; the
        file is as before then."""
        content = gradient.pack(step, at)
        try:
            with self.path.open("r+b", buffering=0) as file:
                file.seek(self._size)
                write_all(file, content)
                if time.monotonic() - self._synced > SYNC_EVERY:
                    sync_open(file.fileno())
                    self._synced = time.monotonic()
        except OSError as error:
            with suppress(OSError):
                os.truncate(self.path, self._size)
            raise cannot_write(self.path, error) from error
        self._size, self._left = self._size + len(content), self._left - 1
