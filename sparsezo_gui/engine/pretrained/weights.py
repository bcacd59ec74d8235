"""The weights of a model on disk: safetensors headers, names, single tensors and a fingerprint.

Tensors are read one at a time from the file, never memory-mapped: mapped pages count as memory of the process, and if
the file shrinks, reading them kills the process.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import PretrainedConfig
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from sparsezo_gui.engine.pretrained.consent import TrustedCode
from sparsezo_gui.engine.pretrained.spec import empty_model
from sparsezo_gui.errors import UserError

if TYPE_CHECKING:
    from sparsezo_gui.engine.pretrained.changes import Change
    from sparsezo_gui.engine.pretrained.source import ModelSource

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
LARGEST_HEADER = 100_000_000  # bytes; the limit of the safetensors library
MOST_DIMENSIONS = 16
_PIECES, _PIECE = 8, 256  # of each tensor, for the fingerprint: samples, and bytes of each


@dataclass(frozen=True)
class Entry:
    """One tensor in one file: its dtype, its shape as stored, and its bytes from ``begin`` to ``end`` of the file."""

    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int

    def read(self) -> torch.Tensor:
        """The tensor as stored."""
        data = torch.empty(self.end - self.begin, dtype=torch.uint8)
        with self.file.open("rb", buffering=0) as file:
            file.seek(self.begin)
            view, done = data.numpy().data, 0
            while done < len(view):  # one call returns at most 2 GiB
                count = file.readinto(view[done:])
                if not count:
                    raise UserError(f"{self.file}: became shorter during reading. Was it replaced? Try again.")
                done += count
        return data.view(self.dtype).reshape(self.shape)

    def __getitem__(self, _: object) -> torch.Tensor:
        """How transformers reads a tensor when its turn comes."""
        return self.read()


@dataclass(frozen=True)
class Changed(Entry):
    """A tensor that is changed while it is read, in fp32; ``dtype`` is that of `read`."""

    below: Entry
    change: Change
    transposed: bool

    def read(self) -> torch.Tensor:
        """The changed tensor, in the layout of the file."""
        weight = self.below.read().float()
        if not self.transposed:
            return self.change.applied(weight)
        return self.change.applied(weight.T.contiguous()).T.contiguous()


def read_header(path: Path) -> dict[str, Entry]:
    """Tensors of a safetensors file by name, in the order of their bytes.

    Everything that can be wrong in a hostile or broken header is checked before a tensor is read. Format:
    https://github.com/huggingface/safetensors#format. Raises `UserError`.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, LARGEST_HEADER):
                raise broken(path, f"its header claims {length} bytes, but the file has only {size}")
            header = json.loads(file.read(length).decode("utf-8"), object_pairs_hook=_unique)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
        raise broken(path, "its header is not valid JSON") from error
    if not isinstance(header, dict):
        raise broken(path, "its header is not a table")
    header.pop("__metadata__", None)
    entries = {name: _entry(path, name, fields, 8 + length) for name, fields in header.items()}
    ordered = sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end))
    position = 8 + length
    for name, entry in ordered:
        if entry.begin != position:
            raise broken(path, f"the bytes of '{name}' do not start where those of the previous tensor end")
        position = entry.end
    if position != size:
        raise broken(path, f"its tensors need {position} bytes, but the file has {size}")
    return dict(ordered)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name is used twice")
    return table


def _entry(path: Path, name: str, fields: Any, start: int) -> Entry:
    if not isinstance(fields, dict) or fields.keys() != {"dtype", "shape", "data_offsets"}:
        raise broken(path, f"tensor '{name}' is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise UserError(
            f"{path}: tensor '{name}' has the number format {dtype!r}, which SparseZO cannot read. "
            "Use the 16-bit checkpoint of this model."
        )
    if not _naturals(shape) or len(shape) > MOST_DIMENSIONS or not _naturals(offsets) or len(offsets) != 2:
        raise broken(path, f"shape or offsets of tensor '{name}' are not a few whole numbers")
    if offsets[1] - offsets[0] != math.prod(shape) * DTYPES[dtype].itemsize:
        raise broken(path, f"tensor '{name}' of shape {shape} does not match its number of bytes")
    return Entry(path, DTYPES[dtype], tuple(shape), start + offsets[0], start + offsets[1])


def _naturals(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**63 for value in values)


def broken(path: Path, why: str) -> UserError:
    """The error for a damaged file."""
    return UserError(f"{path}: broken or incomplete ({why}). Delete the file and download or copy the model again.")


class Checkpoint:
    """The tensors of a checkpoint, found by the parameter names of the model that transformers builds.

    A checkpoint may name its tensors differently (without the base model's prefix, or from an earlier layout), and may
    contain only one of two tied tensors; `key` finds the tensor that `from_pretrained` would use. ``stored`` are the
    tensors in the files, and ``entries`` those of the model: different if it is tuned already.
    """

    def __init__(self, source: ModelSource) -> None:
        """Reads the headers of the files of ``source``; no tensor yet. Raises `UserError` for a broken file."""
        self.files = tuple(dict.fromkeys(source.weights.values()))
        self.spec = spec = source.spec
        self.stored: dict[str, Entry] = {**source.packed}
        for file in () if source.packed else self.files:
            self.stored |= read_header(file)
        self._keys = _keys(self.stored, source.config, source.code)
        for alias, name in spec.aliases.items():
            found = self._keys.get(name) or self._keys.get(alias)
            if found:
                self._keys.setdefault(name, found)
                self._keys.setdefault(alias, found)
        self.entries, self._layers = dict(self.stored), source.layers
        for layer in source.layers:
            for name, change in layer.changes.items():
                below = self.entries[self.key(name)]
                self.entries[self.key(name)] = Changed(
                    below.file, torch.float32, below.shape, below.begin, below.end, below, change,
                    name in spec.transposed,
                )  # fmt: skip

    def key(self, name: str) -> str:
        """Name in the checkpoint of the parameter (or buffer) ``name``. Raises `UserError` if it is not there."""
        if name not in self._keys:
            raise UserError(
                f"{self.files[0].parent}: the checkpoint lacks the weight '{name}' that its config.json "
                "requires. Download or copy the model again; if this does not help, config and weights "
                "belong to different models."
            )
        return self._keys[name]

    def __contains__(self, name: str) -> bool:
        return name in self._keys

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of what `read` returns."""
        key = self.key(name)
        if self._quantised(key):
            return tuple(self.spec.linears.get(name) or self.spec.shapes[name])
        shape = self.entries[key].shape
        return shape[::-1] if name in self.spec.transposed else shape

    def read(self, name: str) -> torch.Tensor:
        """One parameter in its original dtype; an eligible weight always as (out features, in features).

        A weight that was stored quantised by bitsandbytes comes back as fp32. Quantising that to the same kind and
        block size again gives the stored codes, as the largest weight of each block is represented exactly.
        """
        key = self.key(name)
        if self._quantised(key):
            return self._dequantised(key).reshape(self.shape(name))
        return self._turned(name, self.entries[key].read())

    def read_stored(self, name: str) -> torch.Tensor:
        """The same as in the files, below all tuning."""
        return self._turned(name, self.stored[self.key(name)].read())

    def _turned(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.T.contiguous() if name in self.spec.transposed else tensor

    def check(self) -> None:
        """Raises `UserError` for the first parameter of the model that is missing or has another shape."""
        for name, expected in self.spec.shapes.items():
            wanted = self.spec.linears.get(name, expected)
            found = self.shape(name)
            if found != wanted:
                raise UserError(
                    f"{self.entries[self.key(name)].file}: the weight '{self.key(name)}' has the shape "
                    f"{list(found)}, but config.json requires {list(wanted)}. Config and weights belong to "
                    "different models; download or copy the model again."
                )

    def fingerprint(self) -> str:
        """SHA-256 (hex) that identifies the weights, independent of file names and shards.

        It covers the sorted names, dtypes and shapes of all tensors and a fixed sample of their bytes: all of a tensor
        up to 2 KiB, else eight pieces of 256 bytes, evenly spread from its first byte to its last. That is under 1 MiB
        of reading for a shard of 400 tensors. Two fine-tunes of one architecture get different fingerprints; a change
        that affects no sampled byte is not noticed. If the model is tuned, its fingerprint also covers the digest of
        each layer of changes.
        """
        found = self.pretrained_fingerprint()
        for layer in self._layers:
            found = hashlib.sha256(f"{found} {layer.digest}".encode()).hexdigest()
        return found

    def pretrained_fingerprint(self) -> str:
        """The fingerprint of the weights in the files."""
        digest = hashlib.sha256()
        opened = {file: file.open("rb", buffering=0) for file in self.files}
        try:
            for key, entry in sorted(self.stored.items()):
                digest.update(json.dumps([key, str(entry.dtype), entry.shape]).encode())
                for offset, count in _sample(entry.end - entry.begin):
                    file = opened[entry.file]
                    file.seek(entry.begin + offset, os.SEEK_SET)
                    digest.update(file.read(count))
        finally:
            for file in opened.values():
                file.close()
        return digest.hexdigest()

    def _quantised(self, key: str) -> bool:
        return f"{key}.quant_map" in self.entries or f"{key.removesuffix('weight')}SCB" in self.entries

    def _dequantised(self, key: str) -> torch.Tensor:
        weight = self.entries[key].read()
        scales = self.entries.get(f"{key.removesuffix('weight')}SCB")
        if scales is not None:  # int8, one scale a row: bitsandbytes keeps the largest |w| of the row, at 127
            return weight.float() * (scales.read().float()[:, None] / 127)
        from sparsezo_gui.engine.bnb import QuantState, dequantize_4bit

        parts = {name: entry.read() for name, entry in self.entries.items() if name.startswith(f"{key}.")}
        state = QuantState.from_dict(parts, device=torch.device("cpu"))
        return dequantize_4bit(weight, state).float()


def _sample(size: int) -> list[tuple[int, int]]:
    if size <= _PIECES * _PIECE:
        return [(0, size)]
    return [(index * (size - _PIECE) // (_PIECES - 1), _PIECE) for index in range(_PIECES)]


def _keys(entries: Mapping[str, Entry], config: PretrainedConfig, code: TrustedCode | None) -> dict[str, str]:
    """Checkpoint name by model name, with the same renaming that transformers applies when loading."""
    model = empty_model(config, code)
    state = model.state_dict()
    mapping = get_model_conversion_mapping(model)
    renamings = [transform for transform in mapping if isinstance(transform, WeightRenaming)]
    converters = [transform for transform in mapping if isinstance(transform, WeightConverter)]
    keys: dict[str, str] = {}
    for key in entries:
        name, converted = rename_source_key(key, renamings, converters, model.base_model_prefix, state)
        if name not in state and key in state:
            name, converted = key, None
        if converted is None:  # what would be split or merged is reported as missing
            keys.setdefault(name, key)
    return keys
