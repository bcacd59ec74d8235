"""How a step is taken once the slopes are known."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from sparsezo_gui.recipe.variants import Variant, setting

if TYPE_CHECKING:
    from torch import Tensor

Schedule = Literal["constant", "linear", "cosine"]


class Update(Variant):
    """Base of updates. State goes in and out; it is made of plain floats and tensors, so that a replay rebuilds it."""

    learning_rate: float
    schedule: Schedule

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of ``step`` (1 … ``steps``) by the schedule: constant, or falling to zero after the last."""
        part = (step - 1) / steps
        factor = {"constant": 1.0, "linear": 1.0 - part, "cosine": 0.5 * (1.0 + math.cos(math.pi * part))}
        return self.learning_rate * factor[self.schedule]

    @abstractmethod
    def start(self, size: int) -> Any:
        """State before the first step, for ``size`` tuned values."""

    @abstractmethod
    def apply(self, values: Tensor, directions: Tensor, slopes: Sequence[float], rate: float, state: Any) -> Any:
        """Moves ``values`` (n,) in place along ``directions`` (q, n) by ``slopes`` (q) and gives the next state."""


def move(values: Tensor, direction: Tensor, step: float) -> None:
    """θ ← θ − step·z in place, as a rounded product and a rounded difference.

    Two operations, not one with ``alpha``: whether that one rounds once or twice depends on the device and even on how
    many threads share the vector, and a replay has to give the same bits anywhere.
    """
    values -= direction * step


def schedule_setting() -> Any:
    """The schedule's field, the same for every update."""
    return setting("constant", "How the learning rate goes over the run: constant, linear or cosine towards zero.")
