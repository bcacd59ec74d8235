"""Masks by weight magnitude, which the papers compare with the sensitive ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from sparsezo_gui.engine.masks.rule import ScoredRule, Search
from sparsezo_gui.recipe.events import Progress

if TYPE_CHECKING:
    from torch import Tensor

    from sparsezo_gui.engine.frozen import FrozenModel
    from sparsezo_gui.engine.masks.select import Selection


class _ByMagnitude(ScoredRule):
    """Base of both: scores depend only on the weights.

    Measured on 1 % of the bundled model, as for random masks: the largest weights did best at rate 5e-2 (loss 0.53),
    the smallest at 3e-2 (0.49).
    """

    rate_factor: ClassVar[float] = 5.0

    def source(self) -> str:
        """See `MaskRule.source`."""
        return "Ranked by magnitude, without data."

    def cost(self) -> str:
        """See `MaskRule.cost`."""
        return "Every eligible weight is read once the first time; no forward pass."


def _magnitudes(model: FrozenModel) -> Iterator[Progress | tuple[str, Tensor]]:
    for number, name in enumerate(model.spec.linears):
        yield Progress("Ranking the weights", number, len(model.spec.linears), "layers")
        yield name, model.original(name).float().abs()


class LargeMagnitude(_ByMagnitude):
    """The largest weights by absolute value."""

    title: ClassVar[str] = "Large magnitude"
    paper: ClassVar[str] = "compared in arXiv 2406.02913"
    rule: Literal["large-magnitude"] = "large-magnitude"

    def scores(
        self, model: FrozenModel, search: Search, selection: Selection
    ) -> Iterator[Progress | tuple[str, Tensor]]:
        """See `ScoredRule.scores`."""
        return _magnitudes(model)


class SmallMagnitude(_ByMagnitude):
    """The smallest weights by absolute value: the rule of Sparse MeZO as a static mask.

    arXiv 2402.15751 tunes 20 to 50 % of the weights, chosen at every step; a static mask of 0.1 % is expected to lose
    to the sensitive one.
    """

    title: ClassVar[str] = "Small magnitude (static)"
    paper: ClassVar[str] = "after Sparse MeZO, arXiv 2402.15751"
    rule: Literal["small-magnitude"] = "small-magnitude"

    def scores(
        self, model: FrozenModel, search: Search, selection: Selection
    ) -> Iterator[Progress | tuple[str, Tensor]]:
        """See `ScoredRule.scores`."""
        for item in _magnitudes(model):
            yield item if isinstance(item, Progress) else (item[0], -item[1])
