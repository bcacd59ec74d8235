"""How a step is taken once the gradient is estimated."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from sparsezo_gui.recipe.variants import Variant, setting

if TYPE_CHECKING:
    from torch import Tensor

    from sparsezo_gui.engine.zo.estimators import Probe

Schedule = Literal["constant", "linear", "cosine"]


@dataclass(frozen=True)
class Gradient:
    """An estimate of the gradient: the mean of ``slopes`` (q) times ``directions`` (q, n), and what was found exactly.

    Directions as long as the model come as an object with ``parts()`` instead of a tensor, which also rounds what does
    not stay in fp32: ``rounded(moved, part, dtype)``.
    """

    directions: Any
    slopes: Sequence[float]
    exact: Tensor | None = None

    def parts(self) -> Iterator[tuple[slice, Tensor]]:
        """Places in the values, and the directions there."""
        if hasattr(self.directions, "parts"):
            yield from self.directions.parts()
        else:
            yield slice(None), self.directions

    @property
    def zero(self) -> bool:
        """Whether nothing was measured: a step that was skipped, which must not move anything."""
        return self.exact is None and not any(self.slopes)

    def vector(self) -> Tensor:
        """The estimate itself (n,)."""
        found = self.directions.new_zeros(self.directions.shape[1]) if self.exact is None else self.exact.clone()
        for direction, slope in zip(self.directions, self.slopes, strict=True):
            found += direction * (slope / len(self.slopes))
        return found


class Update(Variant):
    """Base of updates. State goes in and out and is never changed in place; it is made of plain floats and tensors, so
    that a replay rebuilds it."""

    long: ClassVar[bool] = True
    """Whether it remembers or needs vectors as long as the values, which there must be room for."""
    remembered: ClassVar[int] = 0
    """How many such vectors its state holds, for the memory estimate."""
    sides: ClassVar[int] = 0
    """How many forward passes it runs itself, together; see `ask`."""
    scalars: ClassVar[int] = 0
    """How many numbers it measures itself; see `ask`."""
    shortens: ClassVar[bool] = False
    """Whether its steps are as short as the mean of several directions is, for which a larger rate makes up."""
    learning_rate: float
    schedule: Schedule
    decay: float = setting(
        0.0, "Pull towards the start: part of the way back per step and unit of rate.", ge=0, le=1, sane=(0, 0.1)
    )

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of ``step`` (1 … ``steps``) by the schedule: constant, or falling to zero after the last."""
        part = (step - 1) / steps
        factor = {"constant": 1.0, "linear": 1.0 - part, "cosine": 0.5 * (1.0 + math.cos(math.pi * part))}
        return self.learning_rate * factor[self.schedule]

    def start(self, values: Tensor) -> Any:
        """State before the first step, at the values (n,) that the run begins with."""
        return None

    def ask(self, probe: Probe, gradient: Gradient, rate: float, state: Any) -> tuple[float, ...]:
        """Measures what the step depends on besides the gradient; the journal keeps it behind the estimator's."""
        return ()

    def stays(self, asked: Sequence[float]) -> bool:
        """Whether a step is not taken after all, for what `ask` measured."""
        return False

    @abstractmethod
    def apply(
        self, values: Tensor, gradient: Gradient, rate: float, state: Any, asked: Sequence[float] = ()
    ) -> Any:
        """Moves ``values`` (n,) in place against ``gradient`` and gives the next state."""


class ScalarUpdate(Update):
    """Base of updates that move along the directions as they are: only how far is worked out."""

    long: ClassVar[bool] = False

    @abstractmethod
    def factors(self, gradient: Gradient, rate: float, state: Any) -> tuple[Sequence[float], float, Any]:
        """How far to move against each direction (q) and against the exact part; and the next state."""

    def apply(
        self, values: Tensor, gradient: Gradient, rate: float, state: Any, asked: Sequence[float] = ()
    ) -> Any:
        """See `Update.apply`."""
        factors, exactly, state = self.factors(gradient, rate, state)
        if any(factors):
            for part, directions in gradient.parts():
                held = values[part]
                moved = held.float()  # in fp32, these are the values themselves
                for direction, factor in zip(directions, factors, strict=True):
                    move(moved, direction, factor)
                if held.dtype != moved.dtype:
                    held.copy_(gradient.directions.rounded(moved, part, held.dtype))
        if gradient.exact is not None:
            move(values, gradient.exact, exactly)
        return state


class VectorUpdate(Update):
    """Base of updates that look at each value of the estimate by itself, and so make it a vector (n,).

    A step without a slope was skipped, and leaves values and state alone: what is remembered must not move them.
    """

    @abstractmethod
    def step(self, gradient: Tensor, state: Any) -> tuple[Tensor, Any]:
        """What the rate is multiplied with (n,), and the next state. ``gradient`` (n,) may be changed."""

    def apply(
        self, values: Tensor, gradient: Gradient, rate: float, state: Any, asked: Sequence[float] = ()
    ) -> Any:
        """See `Update.apply`."""
        if gradient.zero:
            return state
        step, state = self.step(gradient.vector(), state)
        move(values, step, rate)
        return state


def move(values: Tensor, direction: Tensor, step: float) -> None:
    """θ ← θ − step·z in place, as a rounded product and a rounded difference.

    Two operations, not one with ``alpha``: whether that one rounds once or twice depends on the device and even on how
    many threads share the vector, and a replay has to give the same bits anywhere.
    """
    values -= direction * step


def schedule_setting(default: Schedule = "constant") -> Any:
    """The schedule's field, the same for every update."""
    return setting(default, "How the learning rate goes over the run: constant, linear or cosine towards zero.")
