"""Update rules: the step taken with a gradient estimate."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from sparsezo_gui.recipe.variants import Variant, setting

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sparsezo_gui.engine.zo.estimators import Probe

Schedule = Literal["constant", "linear", "cosine"]


class Pieces(ABC):
    """Directions (q, n) as long as the model, which are drawn piece by piece instead of held in a tensor."""

    @abstractmethod
    def parts(self) -> Iterator[tuple[slice, Tensor]]:
        """Slices of the values, and the directions there, fp32 (q, ·)."""

    @abstractmethod
    def rounded(self, moved: Tensor, part: slice, dtype: torch.dtype) -> Tensor:
        """The values ``moved`` in a slice, fp32, in a format below that."""


@dataclass(frozen=True)
class Gradient:
    """A gradient estimate: the mean of ``projected_grads`` (q) · ``directions`` (q, n), and an exact part."""

    directions: Any
    """A tensor, or `Pieces`."""
    projected_grads: Sequence[float]
    exact: Tensor | None = None
    exact_rate: float | None = None
    """Learning rate of the exact part, relative to that of the directions, which then do not perturb its values; None
    if both parts are steps of the same values."""

    def parts(self) -> Iterator[tuple[slice, Tensor]]:
        """Slices of the values, and the directions there."""
        if isinstance(self.directions, Pieces):
            yield from self.directions.parts()
        else:
            yield slice(None), self.directions

    @property
    def zero(self) -> bool:
        """Whether all is zero: a skipped step, which must not move anything."""
        return self.exact is None and not any(self.projected_grads)

    def vector(self) -> Tensor:
        """The estimate itself (n,)."""
        found = self.directions.new_zeros(self.directions.shape[1]) if self.exact is None else self.exact.clone()
        for direction, projected_grad in zip(self.directions, self.projected_grads, strict=True):
            found += direction * (projected_grad / len(self.projected_grads))
        return found


class Update(Variant):
    """Base of updates. State goes in and out and is never changed in place; it consists of plain floats and tensors, so
    that a replay rebuilds it."""

    long: ClassVar[bool] = True
    """Whether it needs vectors as long as the values, which must fit in memory."""
    state_vectors: ClassVar[int] = 0
    """Number of such vectors in its state, for the memory estimate."""
    forward_passes: ClassVar[int] = 0
    """Forward passes it runs itself, all together; see `measure`."""
    recorded: ClassVar[int] = 0
    """Numbers it measures itself; see `measure`."""
    averages: ClassVar[bool] = False
    """Whether averaging q directions makes its steps √q shorter although its rate is in units of weights; a larger rate
    compensates."""
    learning_rate: float
    schedule: Schedule
    find_rate: bool = setting(
        False,
        "Find the learning rate at the start by short runs at several rates, in a tenth of the forward passes. On if "
        "no learning rate is given.",
        basic=True,
        title="Find the learning rate",
    )
    decay: float = setting(
        0.0,
        "Weight decay towards the original weights, times the learning rate.",
        ge=0,
        le=1,
        sane=(0, 0.1),
        title="Weight decay",
    )

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of ``step`` (1 … ``steps``) by the schedule: constant, or decaying to zero after the last."""
        part = (step - 1) / steps
        factor = {"constant": 1.0, "linear": 1.0 - part, "cosine": 0.5 * (1.0 + math.cos(math.pi * part))}
        return self.learning_rate * factor[self.schedule]

    def start(self, values: Tensor) -> Any:
        """State before the first step, at the initial values (n,)."""
        return None

    def measure(self, probe: Probe, gradient: Gradient, rate: float, state: Any) -> tuple[float, ...]:
        """Measures what else the step depends on; the journal records it after the estimator's scalars."""
        return ()

    def rejects(self, measured: Sequence[float]) -> bool:
        """Whether the step is rejected because of what `measure` found."""
        return False

    @abstractmethod
    def apply(self, values: Tensor, gradient: Gradient, rate: float, state: Any, measured: Sequence[float] = ()) -> Any:
        """Moves ``values`` (n,) in place against ``gradient`` and returns the next state."""


class ScalarUpdate(Update):
    """Base of updates that move along the given directions: they compute only how far."""

    long: ClassVar[bool] = False

    @abstractmethod
    def factors(self, gradient: Gradient, rate: float, state: Any) -> tuple[Sequence[float], float, Any]:
        """How far to move against each direction (q) and against the exact part; and the next state."""

    def apply(self, values: Tensor, gradient: Gradient, rate: float, state: Any, measured: Sequence[float] = ()) -> Any:
        """See `Update.apply`."""
        factors, exactly, state = self.factors(gradient, rate, state)
        if any(factors):
            for part, directions in gradient.parts():
                held = values[part]
                moved = held.float()  # in fp32, a view of the values themselves
                for direction, factor in zip(directions, factors, strict=True):
                    move(moved, direction, factor)
                if held.dtype != moved.dtype:
                    held.copy_(gradient.directions.rounded(moved, part, held.dtype))
        if gradient.exact is not None:
            move(values, gradient.exact, exactly * (gradient.exact_rate or 1.0))
        return state


class VectorUpdate(Update):
    """Base of updates that treat each value separately, and so need the estimate as a vector (n,).

    A skipped step leaves values and state unchanged: the state must not move the values.
    """

    @abstractmethod
    def step(self, gradient: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The vector (n,) to multiply by the rate, and the next state. ``gradient`` (n,) may be changed in place."""

    def apply(self, values: Tensor, gradient: Gradient, rate: float, state: Any, measured: Sequence[float] = ()) -> Any:
        """See `Update.apply`."""
        if gradient.zero:
            return state
        step, state = self.step(gradient.vector(), state)
        if gradient.exact_rate is not None:
            step = step.where(gradient.directions.any(0), step * gradient.exact_rate)
        move(values, step, rate)
        return state


def move(values: Tensor, direction: Tensor, step: float) -> None:
    """θ ← θ − step·z in place, as a rounded product and a rounded difference.

    Two operations, not one with ``alpha``: whether that one rounds once or twice depends on the device and even on the
    number of threads, and a replay must give the same bits everywhere.
    """
    values -= direction * step


def schedule_setting(default: Schedule = "linear") -> Any:
    """The setting for the schedule, the same for every update."""
    return setting(default, "Learning-rate schedule: linear or cosine decay to zero, or constant.")
