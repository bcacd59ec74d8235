"""The space of LoRA adapters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from sparsezo_gui.engine.spaces.space import Space

if TYPE_CHECKING:
    from sparsezo_gui.engine.memory import Shape
    from sparsezo_gui.engine.pretrained.spec import ModelSpec
    from sparsezo_gui.engine.spaces.mask import Mask
    from sparsezo_gui.recipe.recipe import Recipe


class LoraSpace(Space):
    """Two small matrices beside each tuned weight, whose product is added to it; the mask has ranks and a seed."""

    values: ClassVar[str] = "sparsezo_gui.engine.spaces.lora:LoraValues"
    relation: ClassVar[str] = "values of LoRA adapters beside"

    def export_refusal(self, form: str) -> str:
        """See `Space.export_refusal`."""
        if form != "overlay":
            return ""
        return (
            "An overlay file stores single weights, but this run trained LoRA adapters, which change whole matrices. "
            "Export it with --format hf, or share the run, which takes the least space."
        )

    def counts(self, mask: Mask, spec: ModelSpec) -> Mapping[str, int]:
        """See `Space.counts`."""
        from sparsezo_gui.engine.spaces.lora import adapters_of

        return adapters_of(mask, spec.linears).sizes

    def layer_bytes(self, recipe: Recipe, spec: ModelSpec, shape: Shape, largest: int) -> int:
        """See `Space.layer_bytes`: what the adapter gives in fp32, and its input where activations have 16 bits."""
        return 4 * shape.rows * (spec.widest + (spec.intermediate if shape.width < 4 else 0))
