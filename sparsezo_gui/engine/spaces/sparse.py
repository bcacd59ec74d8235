"""Single weights, in an overlay: the tuned values, one flat fp32 vector beside a base model that is never modified.

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
from typing import TYPE_CHECKING, ClassVar

from sparsezo_gui.engine.layers.patch import Owners, Patch, PerExamplePatch, SparsePatch
from sparsezo_gui.engine.spaces.space import Space
from sparsezo_gui.engine.spaces.values import CopiedValues, TunedValues
from sparsezo_gui.recipe.registry import MASKS

if TYPE_CHECKING:
    from torch import Tensor

    from sparsezo_gui.engine.frozen import FrozenModel
    from sparsezo_gui.engine.masks.rule import MaskRule
    from sparsezo_gui.engine.passes import Shape
    from sparsezo_gui.engine.pretrained.spec import ModelSpec
    from sparsezo_gui.engine.spaces.mask import Mask
    from sparsezo_gui.recipe.recipe import Recipe

INDEX = 4  # bytes of a tuned weight's index in the mask
ADDRESS = 8  # bytes of its index while it is written into its dense weight


class SparseSpace(Space):
    """Entries of the frozen weights, replaced by tuned values; the mask lists them."""

    lists_entries: ClassVar[bool] = True
    mask_version: ClassVar[str] = "1"

    def tuned_values(self, model: FrozenModel, mask: Mask) -> TunedValues:
        """See `Space.tuned_values`."""
        return SparseValues(model, mask)

    def refusal(self, recipe: Recipe) -> str:
        """See `Space.refusal`."""
        return ""

    def mask_header(self, mask: Mask) -> dict[str, str]:
        """See `Space.mask_header`."""
        return {}

    def mask_digest(self, mask: Mask) -> bytes:
        """See `Space.mask_digest`."""
        return b""

    def mask_bytes(self, rule: MaskRule, spec: ModelSpec) -> int:
        """See `Space.mask_bytes`."""
        return INDEX * rule.tuned(spec)

    def counts(self, mask: Mask, spec: ModelSpec) -> Mapping[str, int]:
        """See `Space.counts`."""
        return {name: indices.numel() for name, indices in mask.indices.items()}

    def layer_bytes(self, recipe: Recipe, spec: ModelSpec, shape: Shape, largest: int) -> int:
        """See `Space.layer_bytes`."""
        return ADDRESS * round(recipe.mask.tuned(spec) / spec.eligible * largest)

    def stand_in(self, rule: MaskRule, spec: ModelSpec) -> MaskRule:
        """See `Space.stand_in`. The positions of entries do not affect memory, so the same number of random ones is
        used."""
        return MASKS.build(
            {"rule": "random", "blocks": rule.blocks, "density": min(1.0, rule.tuned(spec) / spec.eligible)}
        )


SINGLE = 50  # entries of a whole product that take as long as one computed alone (measured on a CPU)
SAMPLED_BYTES = 16 << 20  # of rows gathered at a time


class SparseValues(CopiedValues):
    """Entries of the frozen weights, in layer order."""

    def __init__(self, model: FrozenModel, mask: Mask) -> None:
        import torch

        super().__init__(model, mask)
        self.indices = {name: indices.to(model.device) for name, indices in mask.indices.items()}
        self.values = torch.empty(mask.size, dtype=torch.float32)
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
        import torch

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
    import torch

    columns = right.shape[1]
    if SINGLE * len(indices) > left.shape[1] * columns:
        return (left.t() @ right).view(-1)[indices.long()]
    left, right, found = left.t().contiguous(), right.t().contiguous(), left.new_empty(len(indices))
    for first in range(0, len(indices), count := max(1, SAMPLED_BYTES // (8 * left.shape[1]))):
        part = indices[first : first + count].long()
        torch.linalg.vecdot(left[part // columns], right[part % columns], out=found[first : first + count])
    return found
