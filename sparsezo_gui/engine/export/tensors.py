"""Writes safetensors files that are the same to the byte each time: the library's own order of metadata is random."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsezo_gui.engine.pretrained.weights import DTYPES

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def header(tensors: Mapping[str, tuple[torch.dtype, tuple[int, ...]]], metadata: Mapping[str, str]) -> bytes:
    """The header of a file with tensors of these dtypes and shapes, in this order."""
    fields: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for key, (dtype, shape) in tensors.items():
        begin, end = end, end + torch.Size(shape).numel() * dtype.itemsize
        fields[key] = {"dtype": _NAMES[dtype], "shape": shape, "data_offsets": (begin, end)}
    text = json.dumps(fields).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def raw(tensor: Tensor) -> memoryview:
    """The bytes of a tensor on the CPU."""
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().data


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes a file. Raises OSError."""
    with path.open("wb") as file:
        file.write(header({key: (tensor.dtype, tuple(tensor.shape)) for key, tensor in tensors.items()}, metadata))
        for tensor in tensors.values():
            file.write(raw(tensor))
