"""All eligible weights: dense tuning."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, ClassVar, Literal

from sparsezo_gui.engine.sparse.rule import MaskRule, Search
from sparsezo_gui.recipe.events import Progress

if TYPE_CHECKING:
    from sparsezo_gui.engine.models.frozen import FrozenModel
    from sparsezo_gui.engine.sparse.mask import Mask


class All(MaskRule):
    """Every eligible weight, which is MeZO; the tuned values then take 8 bytes a weight."""

    title: ClassVar[str] = "All (dense)"
    paper: ClassVar[str] = "MeZO, arXiv 2305.17333"
    rule: Literal["all"] = "all"

    def share(self) -> float:
        """See `MaskRule.share`."""
        return 1.0

    def source(self) -> str:
        """See `MaskRule.source`."""
        return "Every eligible weight is tuned: there is nothing to find."

    def cost(self) -> str:
        """See `MaskRule.cost`."""
        return ""

    def find(self, model: FrozenModel, search: Search) -> Generator[Progress, None, Mask]:
        """See `MaskRule.find`."""
        import torch

        from sparsezo_gui.engine.sparse.mask import Mask

        yield Progress("Choosing all weights")
        shapes = model.anatomy.linears
        indices = {name: torch.arange(rows * columns, dtype=torch.int32) for name, (rows, columns) in shapes.items()}
        return Mask(indices, self.model_dump(mode="json"), model.fingerprint, model.anatomy.eligible)
