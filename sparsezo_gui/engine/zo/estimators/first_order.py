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
    def forward_passes(self) -> int:
        """One forward and backward pass, unperturbed."""
        return 1

    @property
    def cost(self) -> int:
        """One forward pass, and a backward pass, which counts as two."""
        return 3

    def perturbations(self, batch_size: int) -> int:
        """None."""
        return 0

    def recorded(self, batch_size: int) -> int:
        """The norm of the gradient, to monitor a run."""
        return 1

    def estimate(self, probe: Probe, state: Any) -> Estimate:
        """See `Estimator.estimate`."""
        gradient, loss = probe.gradient()
        return Estimate((gradient.double().norm().item(),), loss, gradient)

    def projected_grads(self, directions: Tensor, recorded: Sequence[float], state: Any) -> tuple[Sequence[float], Any]:
        """See `Estimator.projected_grads`."""
        return (), state
