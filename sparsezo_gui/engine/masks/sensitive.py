"""The sensitive weights: those with the largest squared gradients on text."""

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


class ByFisher(OnText, ScoredRule):
    """Base of rules that tune the weights with the largest squared gradients on text."""

    sums: ClassVar[int] = 1

    def source(self) -> str:
        """See `MaskRule.source`."""
        return f"Found on {self.texts_used()}."

    def cost(self) -> str:
        """See `MaskRule.cost`."""
        return (
            f"About {self.sequences} forward and backward passes the first time, block by block, with "
            "little more memory than training; an interrupted search resumes where it stopped."
        )

    def scores(
        self, model: FrozenModel, search: Search, selection: Selection
    ) -> Iterator[Progress | tuple[str, Tensor]]:
        """See `ScoredRule.scores`."""
        from sparsezo_gui.engine.masks.fisher import kept_gradients

        yield Progress("Reading text for the mask")
        yield from kept_gradients(self, model, self.passages(model, search), selection)


class Sensitive(ByFisher):
    """Weights with the largest squared gradient of the language-model loss on text.

    The diagonal of the empirical Fisher information, arXiv 2406.02913 section 3: the mask is static, found once per
    model, and shared by all its tasks. The top 0.1 % of a large model hold about half of the squared gradient norm. On
    'task', every token of the examples is predicted, as in any text; on 'answers', only what a run trains: the tokens
    of the correct answer, averaged over each example. Other candidates of a choice are ignored.
    """

    title: ClassVar[str] = "Sensitive"
    paper: ClassVar[str] = "SensZOQ, arXiv 2406.02913"
    rule: Literal["sensitive"] = "sensitive"
