"""One-sided differences along several random-sign directions, in one batch."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from sparsezo_gui.engine.zo.estimators import Estimate, Estimator, Probe
from sparsezo_gui.engine.zo.estimators.two_sided import epsilon_setting
from sparsezo_gui.recipe.variants import setting

if TYPE_CHECKING:
    from torch import Tensor


class FZOO(Estimator):
    """One-sided differences along several random-sign directions, divided by their standard deviation.

    After FZOO (arXiv 2506.09034): g = (1/εN)·Σ (lᵢ − l₀)·uᵢ with uᵢ = ±1, divided by the standard deviation s of the
    losses lᵢ. The equation divides by ε and by s, the authors' code only by s; as in the code, projected gradients here
    are (lᵢ − l₀)/s, so the learning rate does not depend on ε: it is the code's, and the equation's divided by ε. s is
    the equation's, over N − 1. An SGD step then has the same length throughout the run, so its rate should decay.
    Own choices: if the losses do not vary, nothing moves, where the code would divide by zero; ``normalise`` = false
    uses (lᵢ − l₀)/ε, whose mean times the directions is the gradient up to ε². The code's reuse of the previous step's
    losses is left out. Of the paper's savings over MeZO, 18 times fewer passes are those of
    RoBERTa-large alone; over all its models it is 3 times.
    """

    title: ClassVar[str] = "FZOO (one-sided, random signs)"
    paper: ClassVar[str] = "FZOO, arXiv 2506.09034"
    signs: ClassVar[bool] = True
    rule: Literal["fzoo"] = "fzoo"
    epsilon: float = epsilon_setting()
    losses: int = setting(
        8, "Directions per step; each costs one forward pass, plus one unperturbed pass per step.", ge=2, le=64,
        sane=(4, 16),
        title="Directions",
    )  # fmt: skip
    normalise: bool = setting(True, "Divide the differences by their standard deviation within the step.")

    @property
    def forward_passes(self) -> int:
        """One per direction, and one unperturbed."""
        return self.losses + 1

    def perturbations(self, batch_size: int) -> int:
        """See `Estimator.perturbations`."""
        return self.losses

    def estimate(self, probe: Probe, state: Any) -> Estimate:
        """See `Estimator.estimate`."""
        return one_sided(probe, self.epsilon, self.losses)

    def projected_grads(self, directions: Tensor, recorded: Sequence[float], state: Any) -> tuple[Sequence[float], Any]:
        """See `Estimator.projected_grads`."""
        return (in_spreads(recorded) if self.normalise else recorded), state


def one_sided(probe: Probe, epsilon: float, directions: int) -> Estimate:
    """One-sided differences (lᵢ − l₀)/ε along each direction, all in one batch."""
    import torch

    offsets = torch.cat((torch.zeros(1, directions), epsilon * torch.eye(directions)))
    start, *moved = probe.losses(offsets).tolist()
    return Estimate(tuple((loss - start) / epsilon for loss in moved), start)


def in_spreads(recorded: Sequence[float]) -> list[float]:
    """``recorded`` divided by their standard deviation (a single one: by its absolute value); zeros if that is zero."""
    spread = statistics.stdev(recorded) if len(recorded) > 1 else abs(recorded[0])
    return [scalar / spread if spread > 0 else 0.0 for scalar in recorded]
