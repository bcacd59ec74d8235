"""Backprop in the last blocks, zeroth-order in the others."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from sparsezo_gui.engine.zo.estimators import Estimate, ExactEstimator, Probe, balanced_setting
from sparsezo_gui.engine.zo.estimators.two_sided import epsilon_setting
from sparsezo_gui.recipe.variants import setting

if TYPE_CHECKING:
    from torch import Tensor


class Elastic(ExactEstimator):
    """Backprop in the last decoder blocks, a zeroth-order central difference in all others.

    After ElasticZO (arXiv 2501.04287): the last layers give most of the benefit of back-propagation, and only their
    activations have to be kept. Own choice: the exact part is the mean of the gradients of both perturbed passes, so it
    needs no extra forward pass and its bias is of second order in ε. The last blocks are not perturbed.

    A step along a direction of n values is √n times as long as their gradient, so one learning rate cannot serve both
    parts. Own choice (``balanced``): the gradient of the m values of the last blocks is multiplied by √m, which is the
    length that a direction would give it, and their learning rate by ``weight`` · √(n/m).
    """

    title: ClassVar[str] = "ElasticZO (backprop in the last blocks)"
    paper: ClassVar[str] = "ElasticZO, arXiv 2501.04287"
    rule: Literal["elastic"] = "elastic"
    epsilon: float = epsilon_setting()
    blocks: int = setting(
        1,
        "Last decoder blocks, trained with backprop.",
        unit="blocks",
        ge=1,
        le=1000,
        sane=(1, 4),
        title="Backprop blocks",
    )
    weight: float = setting(
        10.0,
        "Factor on the learning rate of the backprop part; at 1, its steps are as long as the zeroth-order ones.",
        gt=0,
        le=1000,
        sane=(1, 30),
        title="Backprop factor",
    )
    balanced: bool = balanced_setting()

    @property
    def forward_passes(self) -> int:
        """Two, each with a backward pass through the last blocks."""
        return 2

    def recorded(self, batch_size: int) -> int:
        """The projected gradient, and the norm of the exact part: if the mask is only in the last blocks, the projected
        gradient is 0 at every step, and a step whose scalars are all zero counts as skipped."""
        return 2

    @property
    def suffix(self) -> int:
        """See `Estimator.suffix`."""
        return self.blocks

    @property
    def cost(self) -> int:
        """Two, and two backward passes through the last blocks: each block counts as one pass more, as in a model with
        four blocks, up to the cost of a full backward pass."""
        return 2 + min(self.blocks, 4)

    def exact_rate(self, directions: Tensor) -> float | None:
        """See `Estimator.exact_rate`."""
        if not self.balanced:
            return None
        perturbed, exact = _counts(directions)
        return self.weight * (math.sqrt(perturbed / exact) if perturbed and exact else 1.0)

    def estimate(self, probe: Probe, state: Any) -> Estimate:
        """See `Estimator.estimate`."""
        import torch

        (plus, up), (minus, down) = (
            probe.gradient(torch.tensor([offset]), self.blocks) for offset in (self.epsilon, -self.epsilon)
        )
        projected_grad = (up - down) / (2 * self.epsilon)
        exact = (plus + minus) * ((1.0 if self.balanced else self.weight) / 2)
        recorded = projected_grad, exact.double().norm().item()
        if self.balanced:
            exact *= math.sqrt(_counts(probe.directions)[1])
        return Estimate(recorded, (up + down) / 2, exact)


def _counts(directions: Tensor) -> tuple[int, int]:
    """Numbers of values that ``directions`` (1, n) perturb, and that they do not."""
    perturbed = int(directions.count_nonzero())
    return perturbed, directions.shape[1] - perturbed
