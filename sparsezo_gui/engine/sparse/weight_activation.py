"""Masks by weight times activation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from sparsezo_gui.engine.sparse.calibration import OnText
from sparsezo_gui.engine.sparse.rule import ScoredRule, Search
from sparsezo_gui.recipe.events import Progress

if TYPE_CHECKING:
    from torch import Tensor

    from sparsezo_gui.engine.models.frozen import FrozenModel
    from sparsezo_gui.engine.sparse.select import Selection


class WeightActivation(OnText, ScoredRule):
    """Weights with the largest product of their size and that of their inputs, which forward passes alone tell.

    The score of Wanda (arXiv 2306.11695, as in its published code): |W_ij| · ‖X_j‖₂, where ‖X_j‖₂² is the sum over the
    tokens of a sequence of the squared input j, in the mean over sequences. Wanda ranks within each row ([mask] scope =
    'row') and prunes the lowest; to tune the highest is our own choice, and so is to rank over the whole model.
    """

    title: ClassVar[str] = "Weight times activation"
    paper: ClassVar[str] = "score of Wanda, arXiv 2306.11695"
    rate_factor: ClassVar[float] = 4.0
    rule: Literal["weight-activation"] = "weight-activation"

    def source(self) -> str:
        """See `MaskRule.source`."""
        return f"Ranked by the size of each weight times that of what it is multiplied with on {self.texts_used()}."

    def cost(self) -> str:
        """See `MaskRule.cost`."""
        return f"{self.sequences} forward passes at the start of every run; no gradients, so little more memory."

    def scores(
        self, model: FrozenModel, search: Search, selection: Selection
    ) -> Iterator[Progress | tuple[str, Tensor]]:
        """See `ScoredRule.scores`."""
        from sparsezo_gui.engine.sparse.activations import activations

        yield Progress("Reading text for the mask")
        [passages] = self.passages(model, search)
        seen = yield from activations(model, passages)
        for number, name in enumerate(model.layers):
            yield Progress("Ranking the weights", number, len(model.layers), "layers")
            yield name, model.original(name).float().abs() * seen.norms[name]
