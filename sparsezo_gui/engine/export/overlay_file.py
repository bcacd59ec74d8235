"""The overlay file: what a run changed, and nothing else.

The overlay file (version 1)
----------------------------
An overlay file is a safetensors file. For every tuned weight, named as the parameter of the transformers model, it
MUST hold two tensors of one dimension and equal length:

``<name>.indices``  int32, places in the weight, flat and row-major in (out features, in features), strictly ascending
``<name>.values``   float32, the values at those places, all finite

It MUST NOT hold any other tensor. A weight that transformers keeps as (in, out), such as GPT-2's Conv1D, is addressed
as its transpose all the same. The metadata (all strings) MUST hold ``format`` = "sparsezo-overlay", ``version`` = "1",
``model`` and ``revision`` (where the base is from), ``fingerprint`` (of its weights, see `Checkpoint.fingerprint`),
``shapes`` (JSON: out and in features by name), ``step`` and ``recipe`` (TOML). A reader MUST refuse a file that breaks
any of this, and MUST NOT apply one to a model with another fingerprint. To apply it, put the values in the places.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sparsezo_gui.engine.files import replacing
from sparsezo_gui.engine.models.checkpoint import Entry, read_header
from sparsezo_gui.errors import UserError

FORMAT, VERSION = "sparsezo-overlay", "1"
Changes = Mapping[str, tuple[Tensor, Tensor]]
"""Indices (int32, flat in (out, in), ascending) and values (fp32) of each tuned weight."""


@dataclass(frozen=True)
class OverlayFile:
    """The content of an overlay file, checked."""

    changes: Changes
    shapes: Mapping[str, tuple[int, int]]
    model: str
    revision: str
    fingerprint: str
    step: int
    recipe: str


def write_overlay(path: Path, overlay: OverlayFile) -> None:
    """Writes ``overlay``, whole or not at all. Raises `UserError` when the disk refuses."""
    tensors: dict[str, Tensor] = {}
    for name, (indices, values) in overlay.changes.items():
        tensors[f"{name}.indices"] = indices.to("cpu", torch.int32).contiguous()
        tensors[f"{name}.values"] = values.to("cpu", torch.float32).contiguous()
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "model": overlay.model,
        "revision": overlay.revision,
        "fingerprint": overlay.fingerprint,
        "shapes": json.dumps({name: list(overlay.shapes[name]) for name in overlay.changes}),
        "step": str(overlay.step),
        "recipe": overlay.recipe,
    }
    with replacing(path, new=True) as temporary:
        save_file(tensors, temporary, metadata)


def read_overlay(path: Path) -> OverlayFile:
    """The overlay in ``path``. Raises `UserError` when anything in it is not as the format says."""
    if not path.is_file():
        raise UserError(f"There is no overlay file '{path}'. Make one with 'sparsezo export RUN --format overlay'.")
    entries = read_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if metadata.get("format") != FORMAT or metadata.get("version") != VERSION:
        raise UserError(f"{path}: not an overlay file of this program (it has no '{FORMAT}' version {VERSION} header).")
    try:
        shapes = {name: (rows, columns) for name, (rows, columns) in json.loads(metadata["shapes"]).items()}
        facts = {key: metadata[key] for key in ("model", "revision", "fingerprint", "recipe")}
        step = int(metadata["step"])
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, f"its header lacks or spoils {error}") from error
    if not all(type(size) is int and size >= 0 for shape in shapes.values() for size in shape):
        raise _damaged(path, "its header holds a shape that is not made of whole numbers")
    wanted = {f"{name}.{part}" for name in shapes for part in ("indices", "values")}
    if wanted != entries.keys():
        raise _damaged(path, f"it has not just indices and values of its weights: {min(wanted ^ entries.keys())}")
    changes = {name: _change(path, name, shapes[name], entries) for name in shapes}
    return OverlayFile(changes, shapes, step=step, **facts)


def _change(path: Path, name: str, shape: tuple[int, int], entries: Mapping[str, Entry]) -> tuple[Tensor, Tensor]:
    places, numbers = entries[f"{name}.indices"], entries[f"{name}.values"]
    if places.dtype != torch.int32 or numbers.dtype != torch.float32:
        raise _damaged(path, f"'{name}' is not in int32 and float32")
    if len(places.shape) != 1 or places.shape != numbers.shape:
        raise _damaged(path, f"indices and values of '{name}' are not two lists of one length")
    indices, values = places.read(), numbers.read()
    if not bool((indices[1:] > indices[:-1]).all()):
        raise _damaged(path, f"the indices of '{name}' do not ascend")
    if len(indices) and not 0 <= int(indices[0]) <= int(indices[-1]) < shape[0] * shape[1]:
        raise _damaged(path, f"an index of '{name}' lies outside of {shape[0]} × {shape[1]}")
    if not bool(values.isfinite().all()):
        raise _damaged(path, f"a value of '{name}' is not a finite number")
    return indices, values


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"{path}: damaged overlay file ({why}). Export it again from its run.")
