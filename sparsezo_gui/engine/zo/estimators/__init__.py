"""Gradient estimators: how the gradient of the loss is estimated from forward passes.

An estimator is stateless: its memory goes in and out as a plain value that is a function of the recorded scalars. So a
run is its recipe plus a few scalars per step (and exact gradients, see `ExactEstimator`), and any of its steps can be
rebuilt without a forward pass.

Directions are made in two stages. `Estimator.draw` only draws random numbers, so that a replay can draw them for many
steps at once; `Estimator.shape` turns them into directions step by step, and only it gets the state.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from sparsezo_gui.recipe.variants import Variant, setting

if TYPE_CHECKING:
    from torch import Tensor

    from sparsezo_gui.engine.zo.generator import Source


@dataclass(frozen=True)
class Estimate:
    """What one step measured: the scalars recorded in the journal, and the loss L(θ) in nats.

    ``exact`` (n,) is the part of the gradient from back-propagation, which is recorded apart (see `runs.gradients`).
    """

    recorded: tuple[float, ...]
    loss: float
    exact: Tensor | None = None


class Probe(Protocol):
    """The model at the tuned values θ of a step, with its batch and directions (q, n), for an estimator to evaluate."""

    @property
    def directions(self) -> Tensor:
        """The directions (q, n)."""

    def losses(self, offsets: Tensor) -> Tensor:
        """Losses of the batch at θ + offsets·directions, fp64 (points,), for ``offsets`` (points, q)."""

    def examples(self, offsets: Tensor) -> Tensor:
        """Loss of each example at θ + offsets·directions, fp64 (points, examples); their mean is the batch loss."""

    def isolated_losses(self, offsets: Tensor) -> Tensor:
        """The same, averaged over each example's own tokens, independent of the rest of the batch (may be empty)."""

    def own_losses(self, offsets: Tensor) -> Tensor:
        """Losses fp64 (points, examples) of example i at θ + offsets·(direction i), for ``offsets`` (points,): one
        direction per example."""

    def gradient(self, offsets: Tensor | None = None, blocks: int | None = None) -> tuple[Tensor, float]:
        """∇L at θ + offsets·directions by back-propagation, fp32 (n,), and L there, for ``offsets`` (q,); with
        ``blocks``, only for the values in the last ``blocks`` decoder blocks, zero elsewhere."""

    def part(self, chosen: Sequence[int]) -> Probe:
        """The same with only the ``chosen`` examples of the batch."""

    @property
    def lengths(self) -> list[int]:
        """Length of each example of the batch in tokens."""

    @property
    def weights(self) -> list[int]:
        """Weight of each example in the batch loss: 1, or its number of trained tokens."""


class Estimator(Variant):
    """Base of estimators."""

    signs: ClassVar[bool] = False
    """Whether directions are signs, ±1, instead of standard normal."""
    state_vectors: ClassVar[int] = 0
    """Vectors as long as the tuned values in its state."""
    backwards: ClassVar[bool] = False
    """Whether it uses back-propagation; see `BackpropEstimator`."""
    exact: ClassVar[bool] = False
    """Whether part of the gradient is exact; see `ExactEstimator`."""

    @property
    def per_example(self) -> bool:
        """Whether each example has its own direction: their number then depends on the batch."""
        return self.perturbations(1) != self.perturbations(2)

    @property
    def drawable_in_pieces(self) -> bool:
        """Whether directions are used as drawn: they can then be drawn piece by piece when they are as long as the
        model."""
        return type(self).draw is Estimator.draw and type(self).shape is Estimator.shape

    @property
    @abstractmethod
    def forward_passes(self) -> int:
        """Perturbed copies of the values that a step evaluates: forward passes per step."""

    @property
    def plain_passes(self) -> int:
        """Those of the `forward_passes` that no backward pass follows."""
        return 0 if self.backwards else self.forward_passes

    @property
    def cost(self) -> int:
        """Cost of a step in forward passes, with a backward pass counted as two."""
        return self.forward_passes

    @property
    def suffix(self) -> int:
        """Number of last decoder blocks whose values it does not perturb, since it back-propagates through them."""
        return 0

    def perturbations(self, batch_size: int) -> int:
        """Number of directions per step."""
        return 1

    def averaged(self, batch_size: int) -> int:
        """Number of independent directions the estimate averages."""
        return self.perturbations(batch_size)

    def recorded(self, batch_size: int) -> int:
        """Number of scalars a step records."""
        return self.perturbations(batch_size)

    def start(self, values: Tensor, source: Source) -> Any:
        """State before the first step, at the initial values (n,); ``source`` is that of step 0."""
        return None

    def draw(self, source: Source, batch_size: int) -> Tensor:
        """The random numbers for the directions of a step, fp32 (·, n)."""
        return (source.signs if self.signs else source.normal)(self.perturbations(batch_size))

    def shape(self, drawn: Tensor, state: Any) -> Tensor:
        """The directions of a step, fp32 (q, n), from the ``drawn`` numbers."""
        return drawn

    def exact_rate(self, directions: Tensor) -> float | None:
        """Learning rate of the values that the ``directions`` (q, n) do not perturb, relative to that of the others;
        None if it has none of its own."""
        return None

    @abstractmethod
    def estimate(self, probe: Probe, state: Any) -> Estimate:
        """Runs the forward passes of a step."""

    def projected_grads(self, directions: Tensor, recorded: Sequence[float], state: Any) -> tuple[Sequence[float], Any]:
        """The projected gradients (q) from the recorded scalars, and the next state. The gradient estimate is the mean
        of projected gradient · direction. Scalars that are all zero must not move anything."""
        return recorded, state


class BackpropEstimator(Estimator):
    """Base of estimators that use back-propagation, through all blocks or the last ones (see `suffix`)."""

    backwards: ClassVar[bool] = True


class ExactEstimator(BackpropEstimator):
    """Base of estimators that get part of the gradient from back-propagation: it does not follow from the scalars.

    Of what a step records, only the first scalars are projected gradients; the others are there to monitor a run.
    """

    exact: ClassVar[bool] = True

    def projected_grads(self, directions: Tensor, recorded: Sequence[float], state: Any) -> tuple[Sequence[float], Any]:
        """See `Estimator.projected_grads`."""
        return recorded[: len(directions)], state


def balanced_setting() -> Any:
    """The setting of estimators with an exact and a zeroth-order part."""
    return setting(
        True,
        "Scale the backprop part to the length of the zeroth-order part; otherwise it is far shorter.",
        title="Balance both parts",
    )
