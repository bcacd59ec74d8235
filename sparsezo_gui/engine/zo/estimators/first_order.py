"""Back-propagation only."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from sparsezo_gui.engine.zo.estimators import Estimate, ExactEstimator, Probe


class FirstOrder(ExactEstimator):
    """The exact gradient by back-propagation: the first-order baseline for zeroth-order runs.

    Activations of all blocks are kept for the backward pass. A run records each gradient, in 16 bits.
    """

    title: ClassVar[str] = "First order (back-propagation)"
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
