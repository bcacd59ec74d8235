"""Masks and their file format.

The mask file (versions 1 and 2)
--------------------------------
A mask file is a safetensors file. It MUST hold one int32 tensor per tuned weight, named as the model's parameter, with
the flat row-major indices, (out, in), of the tuned entries in strictly ascending order. Its metadata MUST hold
``format`` = "sparsezo-mask", ``version`` = "1", ``rule`` (the mask rule as JSON), ``fingerprint`` (of the model's
weights), ``eligible`` (number of weights the rule chose from) and ``hash``. The hash is the SHA-256, in hex, over each
tensor in ascending order of names: the name in UTF-8, a zero byte, the number of indices and then the indices, as
little-endian int64 and int32. A reader MUST refuse a file with a different hash, or with the fingerprint of another
model.

Version 2 is for masks that do not tune single entries. Its metadata MUST also hold ``space`` (a name in the registry,
such as "low-rank") and ``tuned`` (number of tuned values), and the file holds the parts of that space, instead of or
besides indices, as fp32 tensors whose names begin with "part:". The hash then continues over the space in UTF-8, a zero
byte, ``tuned`` as int64, and each part in ascending order of names: the name in UTF-8, a zero byte, the number of
entries as int64, and the entries.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sparsezo_gui.engine.files import replacing
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.registry import SPACES

FORMAT, VERSIONS = "sparsezo-mask", ("1", "2")
PART = "part:"


@dataclass(frozen=True)
class Mask:
    """What is tuned. In the space 'entries': ``indices`` by parameter name, int32, ascending. Other spaces have
    ``tuned`` values, and ``parts`` of their own, fp32."""

    indices: Mapping[str, Tensor]
    rule: Mapping[str, Any]
    fingerprint: str
    eligible: int
    space: str = SPACES.default
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    tuned: int | None = None

    @property
    def size(self) -> int:
        """Number of tuned values."""
        return sum(indices.numel() for indices in self.indices.values()) if self.tuned is None else self.tuned

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the mask's content; see the file format."""
        digest = hashlib.sha256()
        for name in sorted(self.indices):
            content = self.indices[name].cpu().numpy().astype("<i4")
            digest.update(name.encode() + b"\0" + len(content).to_bytes(8, "little") + content.tobytes())
        digest.update(SPACES[self.space].mask_digest(self))
        for name in sorted(self.parts):
            content = self.parts[name].cpu().contiguous().numpy().astype("<f4")
            digest.update(name.encode() + b"\0" + content.size.to_bytes(8, "little") + content.tobytes())
        return digest.hexdigest()

    def save(self, path: Path, new: bool = False) -> None:
        """Writes the mask file; a ``new`` one never replaces another. Raises `UserError`."""
        space = SPACES[self.space]
        metadata = {
            "format": FORMAT,
            "version": space.mask_version,
            "rule": json.dumps(dict(self.rule)),
            "fingerprint": self.fingerprint,
            "eligible": str(self.eligible),
            "hash": self.hash,
            **space.mask_header(self),
        }
        tensors = {**self.indices, **{PART + name: part for name, part in self.parts.items()}}
        with replacing(path, new) as temporary:
            save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, temporary, metadata)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Opens the file for reading. Raises `UserError`."""
    if not path.is_file():
        raise UserError(f"There is no mask file '{path}'. Make one with 'sparsezo mask'.")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise UserError(f"{path}: not a readable mask file ({error}). Find the mask again.") from error


def share(path: Path) -> float:
    """Fraction of the eligible weights tuned by the mask in ``path``, from its header alone."""
    with _opened(path) as file:
        entries = sum(
            math.prod(file.get_slice(name).get_shape())
            for name in file.keys()  # noqa: SIM118 (not a dict)
            if not name.startswith(PART)
        )
        _, eligible, _, tuned = _facts(path, file.metadata() or {}, entries)
    return tuned / max(eligible, 1)


@dataclass(frozen=True)
class Listed:
    """What a mask file says by itself, not checked against a model; without ``indices`` if it lists no entries."""

    rule: Mapping[str, Any]
    fingerprint: str
    eligible: int
    hash: str
    indices: Mapping[str, Tensor]


def listed(path: Path) -> Listed:
    """The mask in ``path``, of any model. Raises `UserError`."""
    with _opened(path) as file:
        metadata, names = file.metadata() or {}, list(file.keys())
        indices = {name: file.get_tensor(name) for name in names if not name.startswith(PART)}
    rule, eligible, _, _ = _facts(path, metadata, sum(content.numel() for content in indices.values()))
    return Listed(rule, metadata.get("fingerprint", ""), eligible, metadata.get("hash", ""), indices)


def load(path: Path, shapes: Mapping[str, tuple[int, int]], fingerprint: str) -> Mask:
    """The mask in ``path``, checked against the model's eligible weights and fingerprint. Raises `UserError`."""
    with _opened(path) as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    indices = {name: tensor for name, tensor in tensors.items() if not name.startswith(PART)}
    parts = {name.removeprefix(PART): tensors[name] for name in tensors.keys() - indices.keys()}
    rule, eligible, space, tuned = _facts(path, metadata, sum(content.numel() for content in indices.values()))
    if metadata.get("fingerprint") != fingerprint:
        raise UserError(f"{path}: this mask was found for another model. Find one for this model with 'sparsezo mask'.")
    for name, content in indices.items():
        _check(path, name, content, shapes)
    if any(part.dtype != torch.float32 for part in parts.values()):
        raise UserError(f"{path}: damaged mask file (its parts are not fp32). Find the mask again.")
    order = [name for name in shapes if name in indices]
    chosen = {name: indices[name] for name in order}
    mask = Mask(chosen, rule, fingerprint, eligible, space, parts, None if SPACES[space].lists_entries else tuned)
    if metadata.get("hash") != mask.hash:
        raise UserError(f"{path}: damaged mask file (its content does not match its hash). Find the mask again.")
    return mask


def _facts(path: Path, metadata: Mapping[str, str], entries: int) -> tuple[dict[str, Any], int, str, int]:
    """The rule, the number of weights it chose from, the space, and the number of tuned values."""
    if metadata.get("format") != FORMAT or metadata.get("version") not in VERSIONS:
        raise UserError(f"{path}: not a mask file of this program (it has no '{FORMAT}' version {VERSIONS[0]} header).")
    try:
        rule, eligible = json.loads(metadata["rule"]), int(metadata["eligible"])
        space, tuned = SPACES.default, entries
        if metadata["version"] != VERSIONS[0]:
            space, tuned = metadata["space"], int(metadata["tuned"])
    except (KeyError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged mask file (its header lacks {error}). Find the mask again.") from error
    wrong = space not in SPACES or SPACES[space].mask_version != metadata["version"] or not 0 <= tuned < 2**62
    if wrong or not isinstance(rule, dict) or eligible < entries or (entries and not SPACES[space].lists_entries):
        raise UserError(f"{path}: damaged mask file (its header does not match its content). Find the mask again.")
    return rule, eligible, space, tuned


def _check(path: Path, name: str, indices: Tensor, shapes: Mapping[str, tuple[int, int]]) -> None:
    if name not in shapes:
        raise UserError(f"{path}: this mask tunes '{name}', which this model does not have.")
    rows, columns = shapes[name]
    ascending = indices.dtype == torch.int32 and indices.dim() == 1 and bool((indices[1:] > indices[:-1]).all())
    if not ascending or (len(indices) and not 0 <= int(indices[0]) <= int(indices[-1]) < rows * columns):
        raise UserError(
            f"{path}: damaged mask file (the indices of '{name}' are not ascending within {rows} × {columns})."
        )
