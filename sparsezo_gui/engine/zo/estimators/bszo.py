"""One-sided differences, shrunk towards zero by how much they look like noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from sparsezo_gui.engine.zo.estimators import Estimate, Estimator, Probe
from sparsezo_gui.engine.zo.estimators.fzoo import one_sided
from sparsezo_gui.engine.zo.estimators.two_sided import epsilon_setting
from sparsezo_gui.recipe.variants import setting

if TYPE_CHECKING:
    from torch import Tensor

    from sparsezo_gui.engine.zo.generator import Source

PRIOR_MEMORY = 0.99  # of the mean square that gives the prior
NOISE_MEMORY = 0.9  # of the noise's variance, the code's 1 − a
LEAST_NOISE = 0.01  # of the prior's variance: the code's floor of a tenth, squared


class BSZO(Estimator):
    """Projected gradients along several directions, shrunk by a Kalman filter according to their usual size.

    After BSZO (arXiv 2601.01452), as in the authors' code: the projected gradients G along k directions have the prior
    N(0, p²) and are measured as y = G + N(0, v), where v follows the squared innovation, v ← 0.9v + 0.1y², before each
    use. Each measurement has its own direction, so the posterior mean is γy with γ = p²/(p² + v): an outlier is shrunk
    towards zero. The mean of the estimate is γ∇L, with γ about one half. Own choices: p is the running root mean square
    of the previous projected gradients (in the first step, of its own), where the code has √(n/10⁶), which fits only
    one size of model and loss. The code's measurement beyond k is left out: it uses one value twice, or repeats a
    measurement on the same batch. Projected gradients are averaged as in other estimators, so the paper's rates are k
    times as large here.
    """

    title: ClassVar[str] = "BSZO (Bayesian, one-sided)"
    paper: ClassVar[str] = "BSZO, arXiv 2601.01452"
    rule: Literal["bszo"] = "bszo"
    epsilon: float = epsilon_setting()
    directions: int = setting(
        2, "Directions per step; each costs one forward pass, plus one unperturbed pass per step.", ge=1, le=64,
        sane=(2, 8),
    )  # fmt: skip

    @property
    def forward_passes(self) -> int:
        """One per direction, and one unperturbed."""
        return self.directions + 1

    def perturbations(self, batch_size: int) -> int:
        """See `Estimator.perturbations`."""
        return self.directions

    def start(self, values: Tensor, source: Source) -> tuple[float, float, int]:
        """Running mean of y², the noise variance, and the number of steps in them."""
        return 0.0, 0.0, 0

    def estimate(self, probe: Probe, state: Any) -> Estimate:
        """See `Estimator.estimate`."""
        return one_sided(probe, self.epsilon, self.directions)

    def projected_grads(
        self, directions: Tensor, recorded: Sequence[float], state: tuple[float, float, int]
    ) -> tuple[Sequence[float], tuple[float, float, int]]:
        """See `Estimator.projected_grads`."""
        square = sum(y * y for y in recorded) / len(recorded)
        if not square > 0:
            return (0.0,) * len(recorded), state
        mean, noise, count = state
        prior, noise = (mean / (1 - PRIOR_MEMORY**count), noise) if count else (square, square)
        found = []
        for y in recorded:
            noise = NOISE_MEMORY * noise + (1 - NOISE_MEMORY) * y * y
            found.append(y * prior / (prior + max(noise, LEAST_NOISE * prior)))
        return found, (PRIOR_MEMORY * mean + (1 - PRIOR_MEMORY) * square, noise, count + 1)
