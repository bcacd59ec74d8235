"""Random decoder blocks at every step."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, ClassVar, Literal

from sparsezo_gui.engine.masks.rule import MaskRule, Search
from sparsezo_gui.recipe.events import Progress
from sparsezo_gui.recipe.variants import setting

if TYPE_CHECKING:
    from sparsezo_gui.engine.frozen import FrozenModel
    from sparsezo_gui.engine.pretrained.spec import ModelSpec
    from sparsezo_gui.engine.spaces.mask import Mask


class RandomLayers(MaskRule):
    """All weights of a few decoder blocks, drawn at random for each step; needs a model in 16 or 32 bits.

    Source: LeZO, arXiv 2410.09823: blocks that are left out are neither perturbed nor updated in that step, which saves
    random numbers and, here, a matrix product per perturbation. Own reading, as the paper's body was not available: a
    fixed number of blocks, drawn uniformly, without compensation for those left out. Own choices: blocks are drawn from
    their own random stream; embeddings and head, which the paper is said to tune at every step, stay frozen, and so do
    norms and biases.
    """

    title: ClassVar[str] = "Random layers"
    paper: ClassVar[str] = "LeZO, arXiv 2410.09823"
    space: ClassVar[str] = "dense"
    rule: Literal["random-layers"] = "random-layers"
    dropped: float = setting(
        0.75,
        "Fraction of the decoder blocks left out of each step, drawn at random; at least one is tuned.",
        unit="fraction",
        ge=0,
        lt=1,
        basic=True,
        sane=(0.5, 0.75),
    )

    def tuned(self, spec: ModelSpec) -> int:
        """See `MaskRule.tuned`."""
        return round((1 - self.dropped) * spec.eligible)

    def source(self) -> str:
        """See `MaskRule.source`."""
        return "Blocks are drawn from the seed at every step; no search is needed."

    def cost(self) -> str:
        """See `MaskRule.cost`."""
        return ""

    def find(self, model: FrozenModel, search: Search) -> Generator[Progress, None, Mask]:
        """See `MaskRule.find`."""
        import torch

        from sparsezo_gui.engine.spaces.dense import BLOCKS

        yield Progress("Selecting all weights")
        kept = torch.tensor([float(max(1, round((1 - self.dropped) * len(model.spec.tunable_blocks))))])
        return self.mask_of(model, {BLOCKS: kept}, model.spec.eligible)
