"""One-sided slopes, drawn towards zero as far as they look like noise."""

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

PRIOR_MEMORY = 0.99  # of the mean square that the prior is made of
NOISE_MEMORY = 0.9  # of the noise's variance, the code's 1 − a
LEAST_NOISE = 0.01  # of the prior's variance: the code's floor of a tenth, squared


class BSZO(Estimator):
    """Slopes along several directions as a Kalman filter would have them, given how large they usually are.

    After BSZO (arXiv 2601.01452), as in the authors' code: the slopes G along k directions have the prior N(0, p²) and
    are measured as y = G + N(0, v), where v follows the squared innovation, v ← 0.9v + 0.1y², before each is used. Each
    measurement is along a direction of its own, so the posterior mean is γy with γ = p²/(p² + v): a slope that stands
    out is drawn towards zero. The mean of the estimate is γ∇L, with γ about a half.
    Own choices: p is the running root mean square of the slopes before (of the first step: its own), where the code has
    √(n/10⁶), which is right for one size of model and loss only. The code's measurement beyond k is left out: it feeds
    one slope in twice, or measures again what is the same on the same batch. Slopes are averaged as in other
    estimators, so a rate of the paper's is k times as large here.
    """

    title: ClassVar[str] = "BSZO (Bayesian, one-sided)"
    paper: ClassVar[str] = "BSZO, arXiv 2601.01452"
    rule: Literal["bszo"] = "bszo"
    epsilon: float = epsilon_setting()
    directions: int = setting(
        2, "Directions per step; each costs one forward pass, and one more is made without any.", ge=1, le=64,
        sane=(2, 8),
    )  # fmt: skip

    @property
    def sides(self) -> int:
        """One per direction, and the values as they are."""
        return self.directions + 1

    def probes(self, batch_size: int) -> int:
        """See `Estimator.probes`."""
        return self.directions

    def start(self, values: Tensor, source: Source) -> tuple[float, float, int]:
        """Running mean of y², the noise's variance, and how many steps they have seen."""
        return 0.0, 0.0, 0

    def measure(self, probe: Probe, state: Any) -> Estimate:
        """See `Estimator.measure`."""
        return one_sided(probe, self.epsilon, self.directions)

    def slopes(
        self, directions: Tensor, scalars: Sequence[float], state: tuple[float, float, int]
    ) -> tuple[Sequence[float], tuple[float, float, int]]:
        """See `Estimator.slopes`."""
        square = sum(y * y for y in scalars) / len(scalars)
        if not square > 0:
            return (0.0,) * len(scalars), state
        mean, noise, count = state
        prior, noise = (mean / (1 - PRIOR_MEMORY**count), noise) if count else (square, square)
        found = []
        for y in scalars:
            noise = NOISE_MEMORY * noise + (1 - NOISE_MEMORY) * y * y
            found.append(y * prior / (prior + max(noise, LEAST_NOISE * prior)))
        return found, (PRIOR_MEMORY * mean + (1 - PRIOR_MEMORY) * square, noise, count + 1)
