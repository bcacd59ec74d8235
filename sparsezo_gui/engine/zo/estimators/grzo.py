"""One direction per example of the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from sparsezo_gui.engine.zo.estimators import Estimate, Estimator, Probe
from sparsezo_gui.engine.zo.estimators.fzoo import in_spreads
from sparsezo_gui.engine.zo.estimators.two_sided import epsilon_setting
from sparsezo_gui.recipe.variants import setting

if TYPE_CHECKING:
    from torch import Tensor


class GRZO(Estimator):
    """One direction per example, central differences of all in two forward passes, divided by their standard deviation.

    After GRZO (arXiv 2606.02857): g = (1/2σB)·Σ aᵢΔᵢ with aᵢ = δᵢ/std(δ), δᵢ half the difference of example i's two
    losses. As many directions as examples for the cost of one: if the examples' gradients agree, the variance of the
    mean falls by the batch size.
    Projected gradients here are aᵢ, so the learning rate does not depend on σ: it is the paper's divided by 2σ.
    ``normalise`` = false uses δᵢ/σ, whose mean times the directions is the gradient up to σ².
    After normalisation, the sum is close to the mean of the examples' gradients, but not parallel to it if they differ.
    The paper also puts it into sparse, low-rank and quantised methods: any [mask] that lists entries does the first, on
    a 4-bit base; low-rank masks are not offered.
    Own choices: std divides by B − 1; on a small mask directions are independent and normal, where the paper has one
    direction with random signs of rows and columns; examples are weighted as in the batch loss (by tokens when learning
    text); a batch of one example has a projected gradient of ±1.
    """

    title: ClassVar[str] = "GRZO (one direction per example)"
    paper: ClassVar[str] = "GRZO, arXiv 2606.02857"
    rule: Literal["grzo"] = "grzo"
    epsilon: float = epsilon_setting()
    normalise: bool = setting(True, "Divide the differences by their standard deviation within the batch.")

    @property
    def forward_passes(self) -> int:
        """Two, for any number of examples."""
        return 2

    def perturbations(self, batch_size: int) -> int:
        """See `Estimator.perturbations`."""
        return batch_size

    def estimate(self, probe: Probe, state: Any) -> Estimate:
        """See `Estimator.estimate`."""
        import torch

        measured = probe.own_losses(torch.tensor([self.epsilon, -self.epsilon]))
        plus, minus = measured
        return Estimate(tuple(((plus - minus) / (2 * self.epsilon)).tolist()), measured.mean().item())

    def projected_grads(self, directions: Tensor, recorded: Sequence[float], state: Any) -> tuple[Sequence[float], Any]:
        """See `Estimator.projected_grads`."""
        return (in_spreads(recorded) if self.normalise else recorded), state
