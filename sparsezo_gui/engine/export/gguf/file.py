"""Writes GGUF files: the header at once, then tensor by tensor, of which only a part is ever in 32 bits.

Metadata is packed here, or copied from another file as it is. Format:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, GGUFValueType, quantize
from gguf import GGMLQuantizationType as Kind
from torch import Tensor

from sparsezo_gui.engine.pretrained.gguf.header import ALIGNMENT, MAGIC, NUMBERS, Stored
from sparsezo_gui.errors import UserError

VERSION = 3
_SPAN = 1 << 22  # numbers that are packed at a time
_CHUNK = 16 << 20  # bytes that are copied at a time
_PLAIN = {Kind.F32: torch.float32, Kind.F16: torch.float16, Kind.BF16: torch.bfloat16}
_KINDS = {np.dtype(form): kind for kind, form in NUMBERS.items()}


@dataclass(frozen=True)
class Planned:
    """A tensor to be written: its name, its kind of numbers, its shape (rows first), and what ``read``s it dense or
    names the file and the place that it is copied from as it is."""

    name: str
    kind: Kind
    shape: tuple[int, ...]
    read: Callable[[], Tensor] | tuple[Path, Stored]

    @property
    def length(self) -> int:
        """Its bytes in the file."""
        block, width = GGML_QUANT_SIZES[self.kind]
        return math.prod(self.shape) // block * width

    def pieces(self) -> Iterator[bytes | memoryview]:
        """Its bytes. Raises `UserError` for numbers that its kind cannot hold."""
        if callable(self.read):
            return (self._packed(rows) for rows in spans(self.read()))
        return _copied(*self.read)

    def _packed(self, rows: Tensor) -> memoryview:
        found = packed(rows, self.kind)
        if self.kind == Kind.F16 and not np.isfinite(found.view(np.float16)).all():
            raise UserError(
                f"The weights '{self.name}' are too large for f16. Export them with --kind bf16, which holds them."
            )
        return found.data


def spans(tensor: Tensor) -> Iterator[Tensor]:
    """A tensor in groups of rows."""
    rows = tensor.reshape(-1, tensor.shape[-1])
    yield from rows.split(max(1, _SPAN // rows.shape[1]))


def packed(rows: Tensor, kind: Kind) -> np.ndarray[Any, Any]:
    """The bytes of ``rows`` in ``kind``."""
    if kind in _PLAIN:
        return rows.to(_PLAIN[kind]).contiguous().view(torch.uint8).numpy()
    return quantize(rows.float().numpy(), kind)


def _copied(path: Path, stored: Stored) -> Iterator[bytes]:
    left = stored.end - stored.begin
    with path.open("rb") as file:
        file.seek(stored.begin)
        while left:
            chunk = file.read(min(left, _CHUNK))
            if not chunk:
                raise UserError(f"{path}: became shorter during reading. Was it replaced? Try again.")
            yield chunk
            left -= len(chunk)


def head(
    pairs: Mapping[str, bytes], planned: Sequence[Planned], version: int = VERSION, alignment: int = ALIGNMENT
) -> bytes:
    """Everything before the first tensor; ``pairs`` are values by key, see `value`."""
    parts = [MAGIC, struct.pack("<IQQ", version, len(planned), len(pairs))]
    for key, content in pairs.items():
        parts += [_text(key), content]
    offset = 0
    for each in planned:
        parts += [_text(each.name), struct.pack(f"<I{len(each.shape)}Q", len(each.shape), *each.shape[::-1])]
        parts.append(struct.pack("<IQ", each.kind, offset))
        offset += each.length + _gap(each.length, alignment)
    found = b"".join(parts)
    return found + bytes(_gap(len(found), alignment))


def size(top: bytes, planned: Sequence[Planned], alignment: int = ALIGNMENT) -> int:
    """Bytes of a file with the header ``top``."""
    return len(top) + sum(each.length + _gap(each.length, alignment) for each in planned)


def body(each: Planned, alignment: int = ALIGNMENT) -> Iterator[bytes | memoryview]:
    """The bytes of a tensor, and those up to the next."""
    yield from each.pieces()
    yield bytes(_gap(each.length, alignment))


def value(content: Any) -> bytes:
    """A value of metadata with its kind: a truth value, a number, a text, or a list of texts or array of numbers."""
    if isinstance(content, bool):
        return struct.pack("<I?", GGUFValueType.BOOL, content)
    if isinstance(content, int):
        return struct.pack("<II", GGUFValueType.UINT32, content)
    if isinstance(content, float):
        return struct.pack("<If", GGUFValueType.FLOAT32, content)
    if isinstance(content, str):
        return struct.pack("<I", GGUFValueType.STRING) + _text(content)
    kind = GGUFValueType.STRING if isinstance(content, list) else _KINDS[content.dtype]
    items = b"".join(map(_text, content)) if isinstance(content, list) else content.tobytes()
    return struct.pack("<IIQ", GGUFValueType.ARRAY, kind, len(content)) + items


def _text(text: str) -> bytes:
    content = text.encode("utf-8")
    return len(content).to_bytes(8, "little") + content


def _gap(length: int, alignment: int) -> int:
    return -length % alignment
