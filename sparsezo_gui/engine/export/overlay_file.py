"""The overlay file: only the weights that a run changed.

The overlay file (version 1)
----------------------------
An overlay file is a safetensors file. For every tuned weight, named as the parameter of the transformers model, it
MUST contain two tensors of one dimension and equal length:

``<name>.indices``  int32, indices into the weight, flat, row-major in (out features, in features), strictly ascending
``<name>.values``   float32, the values at those indices, all finite

It MUST NOT contain any other tensor. A weight that transformers stores as (in, out), such as GPT-2's Conv1D, is indexed
as its transpose too. The metadata (all strings) MUST contain ``format`` = "sparsezo-overlay", ``version`` = "1",
``model`` and ``revision`` of the base model, ``fingerprint`` (of its weights, see `Checkpoint.fingerprint`),
``shapes`` (JSON: out and in features by name), ``step`` and ``recipe`` (TOML); it MAY contain ``card``, a model card
(Markdown). A reader MUST refuse a file that breaks any of these rules, and MUST NOT apply it to a model with another
fingerprint. To apply it, set the weights at the indices to the values; without SparseZO, and without its checks::

    import json, torch
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(BASE)
    with safe_open(FILE, "pt") as file, torch.no_grad():
        for name, (_, columns) in json.loads(file.metadata()["shapes"]).items():
            indices, values = (file.get_tensor(f"{name}.{part}") for part in ("indices", "values"))
            weight, layer = model.get_parameter(name), model.get_submodule(name.removesuffix(".weight"))
            weight = weight.T if type(layer).__name__ == "Conv1D" else weight
            weight[indices // columns, indices % columns] = values.to(weight.dtype)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sparsezo_gui.engine.export.tensors import write
from sparsezo_gui.engine.files import replacing
from sparsezo_gui.engine.pretrained.weights import Entry, read_header
from sparsezo_gui.errors import UserError
from sparsezo_gui.untrusted import outside

LOADER = dedent((__doc__ or "").partition("::\n\n")[2]).strip()
FORMAT, VERSION = "sparsezo-overlay", "1"
_HEAD = 1 << 16  # bytes that begin with the metadata
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
    card: str = ""


def write_overlay(path: Path, overlay: OverlayFile) -> None:
    """Writes ``overlay``, completely or not at all. Raises `UserError` if the disk does not allow it."""
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
        "card": overlay.card,
    }
    with replacing(path, new=True) as temporary:
        write(temporary, tensors, metadata)


def is_overlay(path: Path) -> bool:
    """Whether the safetensors file at ``path`` says that it is an overlay file. Raises `UserError`."""
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("format") == FORMAT
    except (SafetensorError, OSError, ValueError):
        # An incomplete one, which reading it then refuses.
        with outside(path, "cannot be read", "Check its permissions."), path.open("rb") as damaged:
            return f'"format": "{FORMAT}"'.encode() in damaged.read(_HEAD)


def read_overlay(path: Path) -> OverlayFile:
    """Reads the overlay in ``path``. Raises `UserError` for anything that breaks the format."""
    if not path.is_file():
        raise UserError(f"There is no overlay file '{path}'. Create one with 'sparsezo export RUN --format overlay'.")
    entries = read_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if metadata.get("format") != FORMAT or metadata.get("version") != VERSION:
        raise UserError(f"{path}: not an overlay file (no '{FORMAT}' version {VERSION} header). Choose another.")
    try:
        shapes = {name: (rows, columns) for name, (rows, columns) in json.loads(metadata["shapes"]).items()}
        facts = {key: metadata[key] for key in ("model", "revision", "fingerprint", "recipe")}
        step = int(metadata["step"])
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, f"missing or invalid in its header: {error}") from error
    if not all(type(size) is int and size >= 0 for shape in shapes.values() for size in shape):
        raise _damaged(path, "its header has a shape that is not whole numbers")
    wanted = {f"{name}.{part}" for name in shapes for part in ("indices", "values")}
    if wanted != entries.keys():
        raise _damaged(path, f"missing or unexpected tensor: {min(wanted ^ entries.keys())}")
    changes = {name: _change(path, name, shapes[name], entries) for name in shapes}
    return OverlayFile(changes, shapes, step=step, card=metadata.get("card", ""), **facts)


def _change(path: Path, name: str, shape: tuple[int, int], entries: Mapping[str, Entry]) -> tuple[Tensor, Tensor]:
    places, numbers = entries[f"{name}.indices"], entries[f"{name}.values"]
    if places.dtype != torch.int32 or numbers.dtype != torch.float32:
        raise _damaged(path, f"'{name}' is not in int32 and float32")
    if len(places.shape) != 1 or places.shape != numbers.shape:
        raise _damaged(path, f"indices and values of '{name}' are not two lists of equal length")
    indices, values = places.read(), numbers.read()
    if not bool((indices[1:] > indices[:-1]).all()):
        raise _damaged(path, f"the indices of '{name}' do not ascend")
    if len(indices) and not 0 <= int(indices[0]) <= int(indices[-1]) < shape[0] * shape[1]:
        raise _damaged(path, f"an index of '{name}' is outside {shape[0]} × {shape[1]}")
    if not bool(values.isfinite().all()):
        raise _damaged(path, f"a value of '{name}' is not a finite number")
    return indices, values


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"{path}: damaged overlay file ({why}). Export it again from its run.")
