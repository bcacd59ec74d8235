"""Back-propagation only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from sparsezo_gui.engine.zo.estimators import Estimate, Estimator, Probe

if TYPE_CHECKING:
    from torch import Tensor


class FirstOrder(Estimator):
    """The exact gradient by back-propagation: the first-order baseline for zeroth-order runs.

    Activations of all blocks are kept for the backward pass, and a replay computes every step again.
    """

    title: ClassVar[str] = "First order (back-propagation)"
    backwards: ClassVar[bool] = True
    exact: ClassVar[bool] = True
    rule: Literal["first-order"] = "first-order"

    @property
    def sides(self) -> int:
        """One forward and backward pass, unperturbed."""
        return 1

    @property
    def passes(self) -> int:
        """One forward pass, and a backward pass, which counts as two."""
        return 3

    def probes(self, batch_size: int) -> int:
        """None."""
        return 0

    def scalars(self, batch_size: int) -> int:
        """The norm of the gradient, to monitor a run."""
        return 1

    def measure(self, probe: Probe, state: Any) -> Estimate:
        """See `Estimator.measure`."""
        gradient, loss = probe.gradient()
        return Estimate((gradient.double().norm().item(),), loss, gradient)

    def slopes(self, directions: Tensor, scalars: Sequence[float], state: Any) -> tuple[Sequence[float], Any]:
        """See `Estimator.slopes`."""
        return (), state
