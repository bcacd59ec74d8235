"""How the gradient of the loss is estimated from forward passes.

An estimator is stateless: what it has to remember goes in and out as a plain value, and is a function of the scalars it
measured. So a run is its recipe and a few scalars a step, and any step of it is rebuilt without a forward pass.

Directions are made in two parts. `Estimator.draw` takes random numbers and is given nothing else, so that a replay may
draw those of many steps at once; `Estimator.shape` makes directions of them, step after step, and is the only one that
is given the state.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from sparsezo_gui.recipe.variants import Variant

if TYPE_CHECKING:
    from torch import Tensor

    from sparsezo_gui.engine.zo.generator import Source


@dataclass(frozen=True)
class Estimate:
    """What one step measured: the scalars that the journal keeps, and the loss L(θ) in nats.

    ``exact`` (n,) is the part of the gradient that was found by back-propagation; such steps are taken again where
    others are replayed.
    """

    scalars: tuple[float, ...]
    loss: float
    exact: Tensor | None = None


class Probe(Protocol):
    """The model at the values θ of a step, with its batch and its directions (q, n), for an estimator to feel."""

    @property
    def directions(self) -> Tensor:
        """The directions (q, n)."""

    def losses(self, offsets: Tensor) -> Tensor:
        """Losses of the batch at θ + offsets·directions, fp64 (sides,), for ``offsets`` (sides, q)."""

    def examples(self, offsets: Tensor) -> Tensor:
        """Losses of each example at θ + offsets·directions, fp64 (sides, examples); their mean is the batch's."""

    def alone(self, offsets: Tensor) -> Tensor:
        """The same, each the mean over the example's own tokens, whatever else is in the batch, which may be empty."""

    def own(self, offsets: Tensor) -> Tensor:
        """Losses fp64 (sides, examples) of example i at θ + offsets·(direction i), for ``offsets`` (sides,): each
        example has a direction of its own."""

    def gradient(self, offsets: Tensor | None = None, blocks: int | None = None) -> tuple[Tensor, float]:
        """∇L at θ + offsets·directions by back-propagation, fp32 (n,), and L there, for ``offsets`` (q,); where
        ``blocks`` is given, of the values in the last so many decoder blocks, and zero elsewhere."""

    def part(self, chosen: Sequence[int]) -> Probe:
        """The same with the ``chosen`` examples of the batch alone."""

    @property
    def lengths(self) -> list[int]:
        """Tokens of each example of the batch."""

    @property
    def weights(self) -> list[int]:
        """How much each example counts in the loss of the batch: 1, or as many tokens as are learned from it."""


class Estimator(Variant):
    """Base of estimators."""

    signs: ClassVar[bool] = False
    """Whether directions are signs, ±1, instead of normal values."""
    remembered: ClassVar[int] = 0
    """Vectors as long as the values that it remembers."""
    backwards: ClassVar[bool] = False
    """Whether it back-propagates, through all blocks or the last ones (see `tail`)."""
    exact: ClassVar[bool] = False
    """Whether some of the gradient is found by that and moves the values: a replay takes such steps again."""
    own: ClassVar[bool] = False
    """Whether every example has a direction of its own."""

    @property
    def plain(self) -> bool:
        """Whether directions are normal values or signs as drawn: they can then be drawn piece by piece, where one is
        as long as the model."""
        return type(self).draw is Estimator.draw and type(self).shape is Estimator.shape

    @property
    @abstractmethod
    def sides(self) -> int:
        """How many perturbed copies of the values one step runs: forward passes per step."""

    @property
    def passes(self) -> int:
        """What a step costs in forward passes, a backward pass being two."""
        return self.sides

    @property
    def tail(self) -> int:
        """The last decoder blocks whose values it does not perturb, since it back-propagates through them."""
        return 0

    def probes(self, batch_size: int) -> int:
        """How many directions a step draws."""
        return 1

    def averaged(self, batch_size: int) -> int:
        """How many independent directions the estimate is the mean of."""
        return self.probes(batch_size)

    def scalars(self, batch_size: int) -> int:
        """How many numbers a step measures."""
        return self.probes(batch_size)

    def start(self, values: Tensor, source: Source) -> Any:
        """What is remembered before the first step, at the values (n,) that the run begins with; ``source`` is that of
        step 0."""
        return None

    def draw(self, source: Source, batch_size: int) -> Tensor:
        """The random numbers that the directions of a step are made of, fp32 (·, n)."""
        return (source.signs if self.signs else source.normal)(self.probes(batch_size))

    def shape(self, drawn: Tensor, state: Any) -> Tensor:
        """The directions of a step, fp32 (q, n), made of what was ``drawn``."""
        return drawn

    @abstractmethod
    def measure(self, probe: Probe, state: Any) -> Estimate:
        """Runs the forward passes of a step."""

    def slopes(self, directions: Tensor, scalars: Sequence[float], state: Any) -> tuple[Sequence[float], Any]:
        """What the scalars mean: the slopes (q) of which the estimate of the gradient is the mean of slope·direction,
        and what is remembered after the step. Scalars that are all zero must not move anything."""
        return scalars, state
