"""Weights that matter to several tasks at once, the same number in every row."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import field_validator

from sparsezo_gui.engine.masks.calibration import Calibrated
from sparsezo_gui.engine.masks.rule import DensityRule, Search, ranked
from sparsezo_gui.recipe.events import Progress
from sparsezo_gui.recipe.variants import setting

if TYPE_CHECKING:
    from sparsezo_gui.engine.frozen import FrozenModel
    from sparsezo_gui.engine.pretrained.spec import ModelSpec
    from sparsezo_gui.engine.spaces.mask import Mask


class MultiTask(Calibrated, DensityRule):
    """Weights that are sensitive on several texts: squared gradients are normalised per row and summed over texts.

    After MaZO (arXiv 2502.11513): a score per task and weight, normalised within each row of a matrix and summed over
    the tasks; the top k of every row are perturbed and tuned. Their score combines a global part (from the Hessian), a
    greedy part (the gain of one step) and |W|. Ours is only the summed squared gradient on the task's text, computed
    exactly in backward passes: zeroth-order estimates would be dominated by noise. Other own choices: normalising by
    the sum of the row, and k as the density's share of the columns, at least one.
    """

    title: ClassVar[str] = "Multi-task"
    paper: ClassVar[str] = "after MaZO, arXiv 2502.11513"
    rate_factor: ClassVar[float] = 4.0
    sums: ClassVar[int] = 2
    rule: Literal["multi-task"] = "multi-task"
    texts: tuple[str, ...] = setting(
        ("general", "answers"),
        "One text per task: 'general', 'task' (your examples as plain text), 'answers' (only their answers), a file, "
        "or a Hub data set.",
    )

    @field_validator("texts")
    @classmethod
    def _some(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        if not texts or not all(texts) or len(set(texts)) < len(texts):
            raise ValueError("must name one text or several different ones")
        return texts

    @property
    def names(self) -> tuple[str, ...]:
        """See `MaskRule.names`."""
        return self.texts

    def tuned(self, spec: ModelSpec) -> int:
        """See `MaskRule.tuned`."""
        from sparsezo_gui.engine.masks.select import size_of

        return size_of(self.share(spec), "row", spec.linears)

    def source(self) -> str:
        """See `MaskRule.source`."""
        return f"Found on {self.texts_used()}; texts have equal weight, and every row has its share."

    def cost(self) -> str:
        """See `MaskRule.cost`."""
        return (
            f"About {self.sequences * len(self.texts)} forward and backward passes the first time, block by "
            "block, with little more memory than training; an interrupted search resumes."
        )

    def find(self, model: FrozenModel, search: Search) -> Generator[Progress, None, Mask]:
        """See `MaskRule.find`."""
        from sparsezo_gui.engine.masks.fisher import kept_gradients
        from sparsezo_gui.engine.masks.select import Selection

        yield Progress("Reading text for the mask")
        selection = Selection(self.share(model.spec), "row", model.spec.linears)
        scores = kept_gradients(self, model, self.passages(model, search), selection, by_row=True)
        return (yield from ranked(self, model, selection, scores))
