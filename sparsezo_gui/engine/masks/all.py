"""All eligible weights: dense tuning."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, ClassVar, Literal

from sparsezo_gui.engine.masks.rule import MaskRule, Search
from sparsezo_gui.recipe.events import Progress

if TYPE_CHECKING:
    from sparsezo_gui.engine.frozen import FrozenModel
    from sparsezo_gui.engine.pretrained.spec import ModelSpec
    from sparsezo_gui.engine.spaces.mask import Mask


class All(MaskRule):
    """Every weight of the decoder blocks, as in MeZO, with the memory of inference; needs 16 or 32 bits.

    Source: arXiv 2305.17333, algorithm 1. Own choices: embeddings, head, norms and biases stay frozen; weights are
    perturbed during the forward pass rather than in place; 16-bit ones use stochastic rounding.
    """

    title: ClassVar[str] = "All (dense)"
    paper: ClassVar[str] = "MeZO, arXiv 2305.17333"
    space: ClassVar[str] = "dense"
    rate_factor: ClassVar[float] = 0.25
    rule: Literal["all"] = "all"

    def tuned(self, spec: ModelSpec) -> int:
        """See `MaskRule.tuned`."""
        return spec.eligible

    def source(self) -> str:
        """See `MaskRule.source`."""
        return "Every eligible weight is tuned; no search is needed."

    def cost(self) -> str:
        """See `MaskRule.cost`."""
        return ""

    def find(self, model: FrozenModel, search: Search) -> Generator[Progress, None, Mask]:
        """See `MaskRule.find`."""
        yield Progress("Selecting all weights")
        return self.mask_of(model, {}, model.spec.eligible)
