"""The space of single weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from sparsezo_gui.engine.spaces.space import Space
from sparsezo_gui.recipe.registry import MASKS

if TYPE_CHECKING:
    from sparsezo_gui.engine.masks.rule import MaskRule
    from sparsezo_gui.engine.memory import Shape
    from sparsezo_gui.engine.pretrained.spec import ModelSpec
    from sparsezo_gui.engine.spaces.mask import Mask
    from sparsezo_gui.recipe.recipe import Recipe

INDEX = 4  # bytes of a tuned weight's index in the mask
ADDRESS = 8  # bytes of its index while it is written into its dense weight


class SparseSpace(Space):
    """Entries of the frozen weights, replaced by tuned values; the mask lists them."""

    values: ClassVar[str] = "sparsezo_gui.engine.spaces.sparse:SparseValues"
    lists_entries: ClassVar[bool] = True
    mask_version: ClassVar[str] = "1"

    def refusal(self, recipe: Recipe) -> str:
        """See `Space.refusal`."""
        return ""

    def mask_header(self, mask: Mask) -> dict[str, str]:
        """See `Space.mask_header`."""
        return {}

    def mask_digest(self, mask: Mask) -> bytes:
        """See `Space.mask_digest`."""
        return b""

    def mask_bytes(self, tuned: int) -> int:
        """See `Space.mask_bytes`."""
        return INDEX * tuned

    def counts(self, mask: Mask, spec: ModelSpec) -> Mapping[str, int]:
        """See `Space.counts`."""
        return {name: indices.numel() for name, indices in mask.indices.items()}

    def layer_bytes(self, recipe: Recipe, spec: ModelSpec, shape: Shape, largest: int) -> int:
        """See `Space.layer_bytes`."""
        return ADDRESS * round(recipe.mask.tuned(spec) / spec.eligible * largest)

    def stand_in(self, rule: MaskRule, spec: ModelSpec) -> MaskRule:
        """See `Space.stand_in`. The positions of entries do not affect memory, so the same number of random ones is
        used."""
        return MASKS.build({"rule": "random", "density": min(1.0, rule.tuned(spec) / spec.eligible)})
