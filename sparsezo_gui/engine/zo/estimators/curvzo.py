"""Directions on a sample of the values, preferring those along which the loss is steep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from sparsezo_gui.engine.zo.estimators import Estimate, Estimator, Probe
from sparsezo_gui.engine.zo.estimators.two_sided import epsilon_setting
from sparsezo_gui.recipe.variants import setting

if TYPE_CHECKING:
    from torch import Tensor

    from sparsezo_gui.engine.zo.generator import Source

MEMORY = 0.99  # of the mean square of the projected gradients


class CurvZO(Estimator):
    """Central difference on a sample of the tuned values, drawn in proportion to their curvature scores.

    After CurvZO (arXiv 2603.21725), whose equations were read only in a third-party port: value i is perturbed with
    probability πᵢ, and its part of the estimate is g·zᵢ/πᵢ, so that the mean of the estimate is ∇L whatever the scores.
    The score of a value follows g²z² relative to the mean of g² when it was perturbed, a proxy of the Fisher diagonal,
    whose expectation is 1 + (3 − πᵢ)·(∂ᵢL)²/E[g²]. Own choices: scores are per value, where the experiments have one
    per tensor; π is proportional to the root of the score, which is optimal for a sum of variances s/π; a share
    ``explore`` of it is uniform, so that no πᵢ is below ``share`` · ``explore``; π is clipped at one without
    compensation; the share is fixed, not adapted. In a large mask a single value adds little to g, so scores hardly
    distinguish values.
    """

    title: ClassVar[str] = "CurvZO (samples of the values)"
    paper: ClassVar[str] = "after CurvZO, arXiv 2603.21725"
    state_vectors: ClassVar[int] = 1
    rule: Literal["curvzo"] = "curvzo"
    epsilon: float = epsilon_setting()
    share: float = setting(
        0.4,
        "Fraction of tuned values perturbed per step.",
        unit="fraction",
        gt=0,
        le=1,
        basic=True,
        sane=(0.1, 0.8),
        title="Perturbed share",
    )
    explore: float = setting(
        0.25,
        "Share of uniform sampling; 1 ignores the scores.",
        ge=0.01,
        le=1,
        sane=(0.1, 0.5),
        title="Uniform sampling",
    )
    memory: float = setting(
        0.99, "Decay of the scores; higher is slower.", ge=0, lt=1, sane=(0.9, 0.999), title="Score decay"
    )

    @property
    def forward_passes(self) -> int:
        """θ + εz and θ − εz."""
        return 2

    def perturbations(self, batch_size: int) -> int:
        """The perturbation, and the same weighted; see `shape`."""
        return 2

    def recorded(self, batch_size: int) -> int:
        """The projected gradient."""
        return 1

    def averaged(self, batch_size: int) -> int:
        """One: the second direction is the first, weighted."""
        return 1

    def start(self, values: Tensor, source: Source) -> tuple[Tensor, float, int]:
        """Scores (n,), running mean of g², and the number of steps in it."""
        return values.new_ones(values.shape), 0.0, 0

    def chances(self, scores: Tensor) -> Tensor:
        """π (n,): the probability that each value is perturbed."""
        from sparsezo_gui.engine.zo.sums import total

        roots = scores.sqrt()
        weights = roots * ((1 - self.explore) * len(roots) / total(roots)) + self.explore
        return (weights * self.share).clamp(max=1.0)

    def draw(self, source: Source, batch_size: int) -> Tensor:
        """See `Estimator.draw`: normal values, and uniform ones for the sampling."""
        import torch

        return torch.cat((source.normal(1), source.uniform(1)))

    def shape(self, drawn: Tensor, state: tuple[Tensor, float, int]) -> Tensor:
        """The sampled direction, and √2 times it divided by π. The projected gradients (0, √2·g) then have the mean
        square g², and their mean with these two directions is g·z/π."""
        import torch

        chances = self.chances(state[0])
        sampled = drawn[0] * (drawn[1] < chances)
        return torch.stack((sampled, sampled / chances * math.sqrt(2)))

    def estimate(self, probe: Probe, state: Any) -> Estimate:
        """See `Estimator.estimate`."""
        import torch

        plus, minus = probe.losses(torch.tensor([[self.epsilon, 0.0], [-self.epsilon, 0.0]])).tolist()
        return Estimate(((plus - minus) / (2 * self.epsilon),), (plus + minus) / 2)

    def projected_grads(
        self, directions: Tensor, recorded: Sequence[float], state: tuple[Tensor, float, int]
    ) -> tuple[Sequence[float], tuple[Tensor, float, int]]:
        """See `Estimator.projected_grads`."""
        (projected_grad,), (scores, mean, count) = recorded, state
        found, square = (0.0, math.sqrt(2) * projected_grad), projected_grad * projected_grad
        if not square > 0:
            return found, state
        mean, count = MEMORY * mean + (1 - MEMORY) * square, count + 1
        relative = square * (1 - MEMORY**count) / mean
        change = (directions[0].square() * relative - scores) * (1 - self.memory)
        return found, (scores + change * (directions[0] != 0), mean, count)
