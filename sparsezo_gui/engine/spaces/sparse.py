"""The overlay: the tuned values, one flat fp32 vector on top of a base model that is never modified.

An effective weight is the dequantised frozen one with the tuned values inserted at the mask's entries. The values start
at the full-precision weights of the checkpoint, so tuned weights lose nothing to quantisation. Why not in place: at
η|g| = 3e-5 most updates of bf16 weights vanish in rounding, and the usual cycle of +ε, −2ε, +ε leaves an error larger
than the update.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor

from sparsezo_gui.engine.frozen import FrozenModel
from sparsezo_gui.engine.layers.patch import Owners, Patch, PerExamplePatch, SparsePatch
from sparsezo_gui.engine.masks.mask import Mask
from sparsezo_gui.engine.zo.estimators import Estimator
from sparsezo_gui.engine.zo.generator import Source

HASHED = 2**20  # values at a time


class TunedValues(ABC):
    """Base: ``values`` (n,) of ``mask`` on ``model``; ``start`` (n,) are the original values.

    If there are as many values as weights, ``start`` is an object that reads ``start[part]`` instead of a tensor.
    """

    model: FrozenModel
    mask: Mask
    values: Tensor
    start: Any
    slices: dict[str, slice]
    """Slices of the values by weight name."""

    def reset(self) -> None:
        """Restores the original values."""
        self.values.copy_(self.start)

    def draw(self, estimator: Estimator, source: Source, batch_size: int) -> Any:
        """Random numbers for `shape`, independent of the values: a replay draws them ahead."""
        return estimator.draw(source, batch_size)

    def shape(self, estimator: Estimator, drawn: Any, step: int, state: Any) -> Any:
        """The directions of ``step``, (q, n), or an object with them in ``parts()``, from the ``drawn`` numbers."""
        directions = estimator.shape(drawn, state)
        if estimator.suffix:
            kept = tuple(last_blocks(self.model, estimator.suffix))
            for name, part in self.slices.items():
                if name.startswith(kept):
                    directions[:, part] = 0
        return directions

    @abstractmethod
    def probed(self, directions: Any, offsets: Tensor) -> AbstractContextManager[None]:
        """Inside, the model runs with values + ``offsets`` (sides, q) · ``directions`` (q, n)."""

    @abstractmethod
    def per_example(self, directions: Any, offsets: Tensor, owners: Owners) -> AbstractContextManager[None]:
        """Inside, the model runs example i with values + offsets·(direction i), for ``directions`` (examples, n) and
        ``offsets`` (sides,); ``owners`` says which example a row belongs to."""

    @abstractmethod
    def applied(self, points: Tensor | None = None) -> AbstractContextManager[None]:
        """Inside, the model runs with ``points`` (sides, n), or with the current values."""

    def base(self) -> AbstractContextManager[None]:
        """Inside, the model runs with the original values."""
        return self.applied(self.start.unsqueeze(0))

    @abstractmethod
    def changes(self, held: bool = False) -> Mapping[str, tuple[Tensor, Tensor]]:
        """(indices int32, values fp32) of every changed weight, on the CPU; low-rank changes are added to the
        checkpoint's weight, or to the ``held`` (quantised) one."""

    @abstractmethod
    def project(self, name: str, gradient: Tensor) -> Tensor:
        """The gradient of the values in the slice (k,) of weight ``name``, from its ``gradient`` (out, in)."""

    def hash(self) -> str:
        """SHA-256 of the values' fp32 bits."""
        digest = sha256()
        for part in self.values.split(HASHED):
            digest.update(part.float().cpu().numpy().astype("<f4").data)
        return digest.hexdigest()

    @contextmanager
    def _held(self, tuned: dict[str, Patch], points: int = 1) -> Iterator[None]:
        """Inside, the layers hold their ``tuned`` values, by name."""
        try:
            for name, layer in self.model.layers.items():
                layer.patch = tuned.get(name) or Patch(points)
            yield
        finally:
            for layer in self.model.layers.values():
                layer.patch = None


def tuned_values(model: FrozenModel, mask: Mask) -> TunedValues:
    """The overlay for the mask's space."""
    if mask.space == "dense":
        from sparsezo_gui.engine.spaces.dense import DenseValues

        return DenseValues(model, mask)
    if mask.space == "low-rank":
        from sparsezo_gui.engine.spaces.low_rank import LowRankValues

        return LowRankValues(model, mask)
    return SparseValues(model, mask)


def last_blocks(model: FrozenModel, count: int) -> Iterator[str]:
    """The name prefixes of the last ``count`` decoder blocks."""
    path = model.spec.blocks
    total = len(model.module.get_submodule(path))
    yield from (f"{path}.{number}." for number in range(max(0, total - count), total))


class SparseValues(TunedValues):
    """Entries of the frozen weights, in layer order."""

    def __init__(self, model: FrozenModel, mask: Mask) -> None:
        self.model = model
        self.mask = mask
        self.slices: dict[str, slice] = {}
        first = 0
        for name, indices in mask.indices.items():
            self.slices[name] = slice(first, first + indices.numel())
            first += indices.numel()
        self.indices = {name: indices.to(model.device) for name, indices in mask.indices.items()}
        self.values = torch.empty(first, dtype=torch.float32)
        for name, part in self.slices.items():
            # The checkpoint is read one tensor at a time.
            self.values[part] = model.original(name).reshape(-1)[mask.indices[name].long()].float()
        self.values = self.values.to(model.device)
        self.start = self.values.clone()

    def probed(self, directions: Tensor, offsets: Tensor) -> AbstractContextManager[None]:
        """See `TunedValues.probed`."""
        return self.applied(self.values + offsets.to(directions) @ directions)

    def applied(self, points: Tensor | None = None) -> AbstractContextManager[None]:
        """See `TunedValues.applied`."""
        points = self.values.unsqueeze(0) if points is None else points
        return self._held({
            name: SparsePatch(len(points), self.indices[name], points[:, part], self._size(name))
            for name, part in self.slices.items()
        }, len(points))  # fmt: skip

    def per_example(self, directions: Tensor, offsets: Tensor, owners: Owners) -> AbstractContextManager[None]:
        """See `TunedValues.per_example`."""
        points, values = len(offsets), self.values[None]
        return self._held({
            name: PerExamplePatch(points, self.indices[name], values[:, part], self._size(name), directions[:, part],
                                  offsets, owners, *self._rows[name])
            for name, part in self.slices.items()
        }, points)  # fmt: skip

    def _size(self, name: str) -> int:
        return math.prod(self.model.layers[name].frozen.shape)

    @cached_property
    def _rows(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Start of each row's entries, (out + 1,), and their columns (k,), as in a CSR matrix."""
        found = {}
        for name, indices in self.indices.items():
            rows, columns = self.model.layers[name].frozen.shape
            ends = torch.arange(rows + 1, dtype=torch.int32, device=indices.device) * columns
            found[name] = torch.searchsorted(indices, ends).int(), (indices % columns).int()
        return found

    def changes(self, held: bool = False) -> Mapping[str, tuple[Tensor, Tensor]]:
        """See `TunedValues.changes`."""
        return {name: (self.mask.indices[name].cpu(), self.values[part].cpu()) for name, part in self.slices.items()}

    def project(self, name: str, gradient: Tensor) -> Tensor:
        """See `TunedValues.project`."""
        return gradient.reshape(-1)[self.indices[name].long()]
