"""Masks by weight times activation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from sparsezo_gui.engine.masks.calibration import OnText
from sparsezo_gui.engine.masks.rule import ScoredRule, Search
from sparsezo_gui.recipe.events import Progress

if TYPE_CHECKING:
    from torch import Tensor

    from sparsezo_gui.engine.frozen import FrozenModel
    from sparsezo_gui.engine.masks.select import Selection


class WeightActivation(OnText, ScoredRule):
    """Weights with the largest product of magnitude and input activation; needs only forward passes.

    The score of Wanda (arXiv 2306.11695, as in its published code): |W_ij| · ‖X_j‖₂, where ‖X_j‖₂² is the squared input
    j, summed over the tokens of a sequence and averaged over sequences. Wanda ranks within each row ([mask] scope =
    'row') and prunes the lowest; tuning the highest is our own choice, and so is ranking over the whole model.
    """

    title: ClassVar[str] = "Weight times activation"
    paper: ClassVar[str] = "score of Wanda, arXiv 2306.11695"
    rate_factor: ClassVar[float] = 4.0
    rule: Literal["weight-activation"] = "weight-activation"

    def source(self) -> str:
        """See `MaskRule.source`."""
        return f"Ranked by weight magnitude times input activation on {self.texts_used()}."

    def cost(self) -> str:
        """See `MaskRule.cost`."""
        return f"{self.sequences} forward passes the first time; no gradients, and little more memory."

    def scores(
        self, model: FrozenModel, search: Search, selection: Selection
    ) -> Iterator[Progress | tuple[str, Tensor]]:
        """See `ScoredRule.scores`."""
        from sparsezo_gui.engine.masks.activations import activations

        yield Progress("Reading text for the mask")
        [passages] = self.passages(model, search)
        seen = yield from activations(model, passages)
        for number, name in enumerate(model.spec.linears):
            yield Progress("Ranking the weights", number, len(model.spec.linears), "layers")
            yield name, model.original(name).float().abs() * seen.norms[name]
