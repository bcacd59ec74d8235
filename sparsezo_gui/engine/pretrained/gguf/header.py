"""The header of a GGUF file: metadata and tensors. Everything that can be wrong in a hostile or damaged one is checked
before it is used, and no tensor is read."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType, dequantize

from sparsezo_gui.engine.pretrained.weights import LARGEST_HEADER, broken
from sparsezo_gui.errors import UserError, quoted
from sparsezo_gui.untrusted import outside

MAGIC = b"GGUF"
LONGEST_NAME, LONGEST_TEXT, LONGEST_TOKEN = 256, 1 << 20, 1024  # bytes of a key, of a value, of a text in a list
_VERSIONS = (2, 3)
ALIGNMENT = 32  # bytes, unless the file says otherwise
_MOST_DIMENSIONS, _MOST_ALIGNMENT = 4, 1 << 20
_CHUNK = 1 << 20  # bytes
NUMBERS = {
    GGUFValueType.UINT8: "<u1", GGUFValueType.INT8: "<i1", GGUFValueType.BOOL: "?",
    GGUFValueType.UINT16: "<u2", GGUFValueType.INT16: "<i2",
    GGUFValueType.UINT32: "<u4", GGUFValueType.INT32: "<i4", GGUFValueType.FLOAT32: "<f4",
    GGUFValueType.UINT64: "<u8", GGUFValueType.INT64: "<i8", GGUFValueType.FLOAT64: "<f8",
}  # fmt: skip


@dataclass(frozen=True)
class Texts:
    """A list of ``count`` texts at a ``position`` of the file; `Header.texts` reads it."""

    position: int
    count: int


@dataclass(frozen=True)
class Stored:
    """A tensor as stored: its kind of numbers, its shape (rows first) and its bytes from ``begin`` to ``end``."""

    kind: GGMLQuantizationType
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True, eq=False)
class Header:
    """Metadata by key (numbers, texts, arrays of numbers and `Texts`), the `spans` of the file that hold their values,
    tensors by name, and the SHA-256 of the bytes that say all this."""

    path: Path
    version: int
    metadata: Mapping[str, Any]
    spans: Mapping[str, tuple[int, int]]
    tensors: Mapping[str, Stored]
    digest: str

    @property
    def architecture(self) -> str:
        """The family, in the words of llama.cpp."""
        return self.text("general.architecture")

    @property
    def alignment(self) -> int:
        """Each tensor begins at a multiple of so many bytes."""
        return int(self.metadata.get("general.alignment", ALIGNMENT))

    @property
    def licence(self) -> str:
        """The licence, such as 'apache-2.0'; '' if it is not stated."""
        return " ".join(self.text("general.license").split())[:100]

    def text(self, key: str) -> str:
        """A text; '' if there is none."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else ""

    def raw(self, key: str) -> bytes:
        """The value of ``key`` as in the file, with its kind. Raises `UserError`."""
        begin, end = self.spans[key]
        with outside(self.path, "cannot be read"), self.path.open("rb") as file:
            file.seek(begin)
            return file.read(end - begin)

    def texts(self, key: str) -> list[str] | None:
        """A list of texts; None if there is none. Raises `UserError`."""
        place = self.metadata.get(key)
        if not isinstance(place, Texts):
            return None
        with outside(self.path, "cannot be read"), self.path.open("rb") as file:
            file.seek(place.position)
            cursor = _Cursor(self.path, file, LARGEST_HEADER)
            return [cursor.text(LONGEST_TOKEN) for _ in range(place.count)]


def is_gguf(path: Path) -> bool:
    """Whether the file at ``path`` is GGUF, by its name or its first bytes."""
    with outside(path, "cannot be read"), path.open("rb") as file:
        return path.suffix.lower() == ".gguf" or file.read(4) == MAGIC


def read_gguf(path: Path) -> Header:
    """The header of the GGUF file at ``path``. Raises `UserError`."""
    with outside(path, "cannot be read"):
        facts = path.stat()
        return _read(path, (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns))


@lru_cache(maxsize=64)
def _read(path: Path, state: tuple[int, ...]) -> Header:
    """Read once for each ``state`` (device, inode, size, time of change)."""
    size = state[2]
    with path.open("rb") as file:
        cursor = _Cursor(path, file, min(size, LARGEST_HEADER))
        version, tensors, pairs = _counts(cursor)
        metadata: dict[str, Any] = {}
        spans: dict[str, tuple[int, int]] = {}
        for _ in range(pairs):
            key = cursor.text(LONGEST_NAME)
            if key in metadata:
                raise broken(path, f"it has {quoted(key)} twice")
            begin, metadata[key] = cursor.position, _value(cursor)
            spans[key] = begin, cursor.position
        described = [_described(cursor) for _ in range(tensors)]
        start = -(-cursor.position // (alignment := _alignment(path, metadata))) * alignment
        return Header(path, version, metadata, spans, _placed(path, described, start, size), cursor.digest())


class _Cursor:
    """Reads a file from where it is, at most to ``end`` bytes further."""

    def __init__(self, path: Path, file: BinaryIO, end: int) -> None:
        self.path, self.position, self._file, self._end, self._bytes = path, 0, file, end, bytearray()

    def take(self, count: int) -> bytearray:
        """The next ``count`` bytes."""
        first, last = self.position, self.position + count
        if last > self._end:
            raise broken(self.path, "its header is longer than the file or than any sensible header")
        while last > len(self._bytes):
            chunk = self._file.read(_CHUNK)
            if not chunk:
                raise broken(self.path, "it ends within its header")
            self._bytes += chunk
        self.position = last
        return self._bytes[first:last]

    def number(self, form: str) -> int:
        """The next number, in the notation of `struct`."""
        return int(struct.unpack(form, self.take(struct.calcsize(form)))[0])

    def text(self, longest: int) -> str:
        """The next text."""
        return self._text(longest).decode("utf-8")

    def skip(self, longest: int) -> None:
        """Goes beyond the next text."""
        self._text(longest)

    def _text(self, longest: int) -> bytearray:
        length = int.from_bytes(self.take(8), "little")
        if length > longest:
            raise broken(self.path, f"a text in its header claims {length} bytes")
        return self.take(length)

    def digest(self) -> str:
        """SHA-256 (hex) of everything so far."""
        return hashlib.sha256(memoryview(self._bytes)[: self.position]).hexdigest()


def _counts(cursor: _Cursor) -> tuple[int, int, int]:
    """The version, and how many tensors and how many pairs of metadata follow."""
    if cursor.take(4) != MAGIC:
        raise broken(cursor.path, "it does not begin as a GGUF file does")
    version = cursor.number("<I")
    if version & 0xFFFF == 0:
        raise UserError(f"{cursor.path}: a GGUF file for big-endian machines. Download the usual little-endian file.")
    if version not in _VERSIONS:
        raise UserError(
            f"{cursor.path}: GGUF of version {version}, but SparseZO reads versions 2 and 3. Choose another file."
        )
    return version, cursor.number("<Q"), cursor.number("<Q")


def _value(cursor: _Cursor) -> Any:
    kind = _kind(cursor, GGUFValueType)
    if kind == GGUFValueType.STRING:
        return cursor.text(LONGEST_TEXT)
    if kind != GGUFValueType.ARRAY:
        value = np.frombuffer(cursor.take(np.dtype(NUMBERS[kind]).itemsize), NUMBERS[kind])[0]
        return float(str(value)) if kind == GGUFValueType.FLOAT32 else value.item()  # 1e-05, not 9.999999747378752e-06
    kind, count = _kind(cursor, GGUFValueType), cursor.number("<Q")
    if kind == GGUFValueType.ARRAY:
        raise broken(cursor.path, "it has lists within lists")
    if kind != GGUFValueType.STRING:
        return np.frombuffer(bytes(cursor.take(count * np.dtype(NUMBERS[kind]).itemsize)), NUMBERS[kind])
    place = Texts(cursor.position, count)
    for _ in range(count):
        cursor.skip(LONGEST_TOKEN)
    return place


def _kind(cursor: _Cursor, kinds: Any) -> Any:
    number = cursor.number("<I")
    if number not in {kind.value for kind in kinds}:
        raise broken(cursor.path, f"it has a value of the unknown kind {number}")
    return kinds(number)


def _described(cursor: _Cursor) -> tuple[str, tuple[int, ...], GGMLQuantizationType, int]:
    """Name, shape, kind and offset of the next tensor."""
    name, count = cursor.text(LONGEST_NAME), cursor.number("<I")
    if not 0 < count <= _MOST_DIMENSIONS:
        raise broken(cursor.path, f"tensor {quoted(name)} claims {count} dimensions")
    shape = tuple(cursor.number("<Q") for _ in range(count))[::-1]  # the file has them the other way round
    number = cursor.number("<I")
    if number not in dense_kinds():
        names = {kind.value: kind.name for kind in GGMLQuantizationType}
        raise UserError(
            f"{cursor.path}: tensor {quoted(name)} is in the format {names.get(number, number)}, which SparseZO cannot "
            "read. Choose a file in another quantisation, such as Q4_K_M or Q8_0."
        )
    return name, shape, GGMLQuantizationType(number), cursor.number("<Q")


@lru_cache(maxsize=1)
def dense_kinds() -> frozenset[int]:
    """The kinds that can be made dense."""
    found = set()
    for kind, (_, size) in GGML_QUANT_SIZES.items():
        try:
            dequantize(np.zeros((1, size), np.uint8), kind)
        except NotImplementedError:
            continue
        found.add(kind.value)
    return frozenset(found)


def _alignment(path: Path, metadata: Mapping[str, Any]) -> int:
    value = metadata.get("general.alignment", ALIGNMENT)
    if type(value) is not int or not 0 < value <= _MOST_ALIGNMENT or value & (value - 1):
        raise broken(path, f"its alignment {quoted(value)} is not a power of two")
    return value


def _placed(
    path: Path, described: list[tuple[str, tuple[int, ...], GGMLQuantizationType, int]], start: int, size: int
) -> dict[str, Stored]:
    """The tensors by name, in the order of their bytes, which lie beside each other between ``start`` and ``size``."""
    placed: dict[str, Stored] = {}
    for name, shape, kind, offset in described:
        block, width = GGML_QUANT_SIZES[kind]
        if name in placed:
            raise broken(path, f"it has the tensor {quoted(name)} twice")
        if not math.prod(shape) or shape[-1] % block:
            raise broken(path, f"tensor {quoted(name)} of shape {list(shape)} is not whole blocks of {kind.name}")
        begin = start + offset
        placed[name] = Stored(kind, shape, begin, begin + math.prod(shape) // block * width)
    ordered = dict(sorted(placed.items(), key=lambda item: item[1].begin))
    position = start
    for name, each in ordered.items():
        if each.begin < position:
            raise broken(path, f"tensor {quoted(name)} overlaps another")
        position = each.end
    if position > size:
        raise broken(path, f"its tensors need {position} bytes, but the file has {size}")
    return ordered
