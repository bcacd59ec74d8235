"""Projected gradients without finite-difference noise, from the exact gradient."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from sparsezo_gui.engine.zo.estimators import BackpropEstimator, Estimate, Probe
from sparsezo_gui.recipe.variants import setting


class ForwardGradient(BackpropEstimator):
    """Exact projected gradient ⟨∇L, z⟩ along each direction: a central difference without rounding or curvature error.

    A baseline that shows how much of a run's noise comes from finite differences, and how much from the directions
    themselves. The estimate is that of forward gradients (Baydin et al., arXiv 2202.08587); own choice: the gradient
    comes from back-propagation, which the layers already support. A replay needs only the projected gradients.
    """

    title: ClassVar[str] = "Forward gradient (exact projections)"
    paper: ClassVar[str] = "Forward gradients, arXiv 2202.08587"
    rule: Literal["forward-gradient"] = "forward-gradient"
    directions: int = setting(1, "Directions per step; all share one backward pass.", ge=1, le=64, sane=(1, 8))

    @property
    def forward_passes(self) -> int:
        """One forward and backward pass, unperturbed."""
        return 1

    @property
    def cost(self) -> int:
        """One forward pass, and a backward pass, which counts as two."""
        return 3

    def perturbations(self, batch_size: int) -> int:
        """See `Estimator.perturbations`."""
        return self.directions

    def estimate(self, probe: Probe, state: Any) -> Estimate:
        """See `Estimator.estimate`."""
        gradient, loss = probe.gradient()
        return Estimate(tuple((probe.directions.double() @ gradient.double()).tolist()), loss)
