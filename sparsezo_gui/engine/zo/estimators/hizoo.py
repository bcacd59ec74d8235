"""Directions scaled down along coordinates of high curvature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from sparsezo_gui.engine.zo.estimators import Estimate, Estimator, Probe
from sparsezo_gui.engine.zo.estimators.two_sided import epsilon_setting
from sparsezo_gui.recipe.variants import setting

if TYPE_CHECKING:
    from torch import Tensor

    from sparsezo_gui.engine.zo.generator import Source

LEAST, MOST = 0.1, 100.0  # of a curvature, relative to the typical one


class HiZOO(Estimator):
    """Central difference along z/√H, where H is a running estimate of the curvature of each value.

    After HiZOO (arXiv 2402.15173), as in the authors' code: with a third pass at θ, H ← (1−α)·H + α·½|L₊ + L₋ −
    2L₀|/ε²·H∘z², and the step is along z/√H. The mean of the estimate is H⁻¹∇L. Own choices: the step uses the same H
    as the direction, where the code uses the H already updated with the same z, so that the mean is exact; H is
    rescaled after each step so that the mean of 1/H is one, which removes the common growth of H and keeps ε and the
    learning rate in the units of other estimators; it is clipped to 0.1 … 100; and no step adds more than H∘z². The
    code's fourth pass, which only reports a loss, is left out.
    """

    title: ClassVar[str] = "HiZOO (curvature of each value)"
    paper: ClassVar[str] = "HiZOO, arXiv 2402.15173"
    state_vectors: ClassVar[int] = 1
    rule: Literal["hizoo"] = "hizoo"
    epsilon: float = epsilon_setting()
    smoothing: float = setting(
        1e-6, "Rate α at which the curvature estimate adapts; 0 keeps it fixed.", ge=0, lt=1, sane=(1e-7, 1e-3)
    )

    @property
    def forward_passes(self) -> int:
        """θ + εz, θ − εz and θ."""
        return 3

    def recorded(self, batch_size: int) -> int:
        """The projected gradient, and the second derivative along the direction."""
        return 2

    def start(self, values: Tensor, source: Source) -> tuple[Tensor]:
        """H (n,)."""
        return (values.new_ones(values.shape),)

    def shape(self, drawn: Tensor, state: tuple[Tensor]) -> Tensor:
        """See `Estimator.shape`."""
        return drawn / state[0].sqrt()

    def estimate(self, probe: Probe, state: Any) -> Estimate:
        """See `Estimator.estimate`."""
        import torch

        here, plus, minus = probe.losses(torch.tensor([[0.0], [self.epsilon], [-self.epsilon]])).tolist()
        return Estimate(((plus - minus) / (2 * self.epsilon), (plus + minus - 2 * here) / self.epsilon**2), here)

    def projected_grads(
        self, directions: Tensor, recorded: Sequence[float], state: tuple[Tensor]
    ) -> tuple[Sequence[float], tuple[Tensor]]:
        """See `Estimator.projected_grads`. H∘z² is (H·direction)²."""
        from sparsezo_gui.engine.zo.sums import total

        projected_grad, second = recorded
        gain = min(self.smoothing * abs(second) / 2, 1.0)
        if not gain:
            return (projected_grad,), state
        (curvature,) = state
        new = curvature * (1 - self.smoothing) + (curvature * directions[0]).square() * gain
        new = new * (total(new.reciprocal()) / len(new))
        return (projected_grad,), (new.clamp(LEAST, MOST),)
