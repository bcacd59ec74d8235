"""Plain zeroth-order stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from sparsezo_gui.engine.zo.updates import Schedule, Update, move, schedule_setting
from sparsezo_gui.recipe.variants import setting

if TYPE_CHECKING:
    from torch import Tensor


class SGD(Update):
    """Step against the slope: θ ← θ − η·g·z, averaged over the directions.

    Source: MeZO (arXiv 2305.17333) algorithm 1; on a sensitive mask arXiv 2406.02913 equation 3. A sensitive mask
    keeps about half of the curvature, so its stable rate stays near MeZO's (1e-7 … 1e-5 for billions of weights); a
    random mask of the same size takes 100 to 1000 times more.
    """

    title: ClassVar[str] = "SGD"
    paper: ClassVar[str] = "MeZO, arXiv 2305.17333"
    rule: Literal["sgd"] = "sgd"
    learning_rate: float = setting(
        1e-6, "Step per unit of slope; too high and the loss jumps.", gt=0, le=10, basic=True, sane=(1e-7, 1e-4)
    )
    schedule: Schedule = schedule_setting()

    def start(self, size: int) -> None:
        """No state."""

    def apply(self, values: Tensor, directions: Tensor, slopes: Sequence[float], rate: float, state: None) -> None:
        """See `Update.apply`."""
        for direction, slope in zip(directions, slopes, strict=True):
            move(values, direction, rate * slope / len(slopes))
