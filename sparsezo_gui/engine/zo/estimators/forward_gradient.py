"""Slopes without noise, from the exact gradient."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from sparsezo_gui.engine.zo.estimators import Estimate, Estimator, Probe
from sparsezo_gui.recipe.variants import setting


class ForwardGradient(Estimator):
    """The exact slope ⟨∇L, z⟩ along each direction: a two-sided difference without rounding and curvature.

    A baseline that tells how much of a run's noise comes from differences of losses, and how much from the directions
    themselves. The estimate is that of forward gradients (Baydin et al., arXiv 2202.08587); own choice: the gradient
    comes from back-propagation, which the layers can do already. A replay needs the slopes alone.
    """

    title: ClassVar[str] = "Forward gradient (exact slopes)"
    paper: ClassVar[str] = "Forward gradients, arXiv 2202.08587"
    backwards: ClassVar[bool] = True
    rule: Literal["forward-gradient"] = "forward-gradient"
    directions: int = setting(1, "Directions per step; all come from one backward pass.", ge=1, le=64, sane=(1, 8))

    @property
    def sides(self) -> int:
        """The values as they are, forwards and backwards."""
        return 1

    @property
    def passes(self) -> int:
        """Forwards, and back at the price of two."""
        return 3

    def probes(self, batch_size: int) -> int:
        """See `Estimator.probes`."""
        return self.directions

    def measure(self, probe: Probe, state: Any) -> Estimate:
        """See `Estimator.measure`."""
        gradient, loss = probe.gradient()
        return Estimate(tuple((probe.directions.double() @ gradient.double()).tolist()), loss)
