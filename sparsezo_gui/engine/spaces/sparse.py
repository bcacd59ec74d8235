"""The overlay: the tuned values, one flat fp32 vector on top of a base model that is never modified.

An effective weight is the dequantised frozen one with the tuned values inserted at the mask's entries. The values start
at the full-precision weights of the checkpoint, so tuned weights lose nothing to quantisation. Why not in place: at
η|g| = 3e-5 most updates of bf16 weights vanish in rounding, and the usual cycle of +ε, −2ε, +ε leaves an error larger
than the update.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import cached_property

import torch
from torch import Tensor

from sparsezo_gui.engine.frozen import FrozenModel
from sparsezo_gui.engine.layers.patch import Owners, Patch, PerExamplePatch, SparsePatch
from sparsezo_gui.engine.spaces.mask import Mask
from sparsezo_gui.engine.spaces.values import CopiedValues

SINGLE = 50  # entries of a whole product that take as long as one computed by itself (measured on a CPU)
SAMPLED_BYTES = 16 << 20  # of rows gathered at a time


class SparseValues(CopiedValues):
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

    def patches(self, points: Tensor) -> dict[str, Patch]:
        """See `CopiedValues.patches`."""
        return {
            name: SparsePatch(len(points), self.indices[name], points[:, part], self._size(name))
            for name, part in self.slices.items()
        }

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

    def project(self, name: str, gradient: Tensor, x: Tensor) -> Tensor:
        """See `TunedValues.project`: of the product, only the tuned entries are computed."""
        return sampled_product(gradient.float(), x.float(), self.indices[name])


def sampled_product(left: Tensor, right: Tensor, indices: Tensor) -> Tensor:
    """Entries ``indices`` (int32, flat, (k,)) of leftᵀ·right, for ``left`` (rows, a) and ``right`` (rows, b) in fp32.

    An entry on its own costs about as much as `SINGLE` in the whole product, which is made where most are wanted.
    """
    columns = right.shape[1]
    if SINGLE * len(indices) > left.shape[1] * columns:
        return (left.t() @ right).view(-1)[indices.long()]
    left, right, found = left.t().contiguous(), right.t().contiguous(), left.new_empty(len(indices))
    for first in range(0, len(indices), count := max(1, SAMPLED_BYTES // (8 * left.shape[1]))):
        part = indices[first : first + count].long()
        torch.linalg.vecdot(left[part // columns], right[part % columns], out=found[first : first + count])
    return found
