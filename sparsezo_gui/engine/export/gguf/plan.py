"""What a GGUF file of a run will contain, before it is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from gguf import GGML_QUANT_SIZES, GGML_QUANT_VERSION, LlamaFileType
from gguf import GGMLQuantizationType as Kind
from torch import Tensor

from sparsezo_gui.engine.export.gguf import file
from sparsezo_gui.engine.export.gguf.file import Planned
from sparsezo_gui.engine.export.gguf.layout import Layout
from sparsezo_gui.engine.export.gguf.metadata import factors
from sparsezo_gui.engine.pretrained.gguf.header import ALIGNMENT, Header, read_gguf
from sparsezo_gui.engine.pretrained.gguf.tensors import IN_CONFIG, TABLES
from sparsezo_gui.engine.session import Session

_POSITIONS = "position_embd.weight"
_TABLE_BITS = 8  # embeddings and head lose more than other weights; llama.cpp keeps them in more bits, too


@dataclass(frozen=True)
class Plan:
    """A file: its metadata by key, as bytes, and its tensors in their order."""

    pairs: Mapping[str, bytes]
    tensors: tuple[Planned, ...]
    version: int = file.VERSION
    alignment: int = ALIGNMENT

    @cached_property
    def head(self) -> bytes:
        """The bytes before the first tensor."""
        return file.head(self.pairs, self.tensors, self.version, self.alignment)

    @property
    def length(self) -> int:
        """Bytes of the file."""
        return file.size(self.head, self.tensors, self.alignment)


class Weights:
    """The weights of a step, one at a time, as they are stored."""

    def __init__(self, session: Session) -> None:
        """Raises `UserError` if no GGUF file can hold the model."""
        self.model, self.changes = session.model, session.tuned.changes()
        self.layout = Layout(session.model.source)

    @property
    def moved(self) -> set[str]:
        """The weights that this run or earlier tuning changed."""
        return {*self.changes, *(name for layer in self.model.source.layers for name in layer.changes)}

    def came(self, name: str) -> Tensor:
        """A weight as in the files of the model, below all tuning."""
        return self.layout.stored(name, self.model.checkpoint.read_stored(name))

    def base(self, name: str) -> Tensor:
        """A weight of the base model."""
        linear = name in self.model.source.spec.linears
        return self.layout.stored(name, self.model.original(name) if linear else self.model.checkpoint.read(name))

    def tuned(self, name: str) -> Tensor:
        """A weight with the tuned values, in fp32 if it has any."""
        if name not in self.changes:
            return self.base(name)
        weight = self.model.original(name).to(torch.float32, copy=True).contiguous()
        indices, values = self.changes[name]
        weight.view(-1)[indices.long()] = values.float()
        return self.layout.stored(name, weight)


def in_kind(weights: Weights, kind: Kind, pairs: Mapping[str, bytes]) -> Plan:
    """A file with all matrices in ``kind``, or the nearest kind that holds them."""
    planned = [*_factors(weights)]
    for name, key in weights.layout.names.items():
        shape = weights.layout.shape(name)
        planned.append(Planned(key, _kind(key, shape, kind), shape, partial(weights.tuned, name)))
    written = {"general.file_type": LlamaFileType[_file_type(kind)].value,
               "general.quantization_version": GGML_QUANT_VERSION}  # fmt: skip
    return Plan({**pairs, **{key: file.value(number) for key, number in written.items()}}, tuple(planned))


def _file_type(kind: Kind) -> str:
    return "ALL_F32" if kind == Kind.F32 else f"MOSTLY_{kind.name}"


def _kind(key: str, shape: tuple[int, ...], kind: Kind) -> Kind:
    """The kind of a tensor: vectors and positions stay in 32 bits, as in llama.cpp."""
    block, width = GGML_QUANT_SIZES[kind]
    if len(shape) == 1 or key == _POSITIONS:
        return Kind.F32
    if shape[-1] % block:
        return Kind.F16
    return Kind.Q8_0 if key in TABLES and 8 * width < _TABLE_BITS * block else kind


def _factors(weights: Weights) -> list[Planned]:
    """The tensors that scale positions."""
    source = weights.model.source
    if source.packed:
        header = read_gguf(source.place)
        return [copied(header, key) for key in header.tensors if key in IN_CONFIG]
    found = {key: torch.tensor(values) for key, values in factors(source.config).items()}
    return [Planned(key, Kind.F32, tuple(tensor.shape), _given(tensor)) for key, tensor in found.items()]


def _given(tensor: Tensor) -> Callable[[], Tensor]:
    return lambda: tensor


def copied(header: Header, key: str) -> Planned:
    """A tensor of another file as it is."""
    stored = header.tensors[key]
    return Planned(key, stored.kind, stored.shape, (header.path, stored))


def copied_pairs(header: Header) -> dict[str, bytes]:
    """The metadata of another file as it is."""
    return {key: header.raw(key) for key in header.spans}


def packed_pairs(family: str, general: Mapping[str, Any], sizes: Mapping[str, Any]) -> dict[str, bytes]:
    """Metadata on a model and on its family's sizes."""
    named = {"general.architecture": family, **general, **{f"{family}.{key}": value for key, value in sizes.items()}}
    return {key: file.value(value) for key, value in named.items()}
