"""Backprop on short examples, zeroth-order on long ones."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

from sparsezo_gui.engine.zo.estimators import Estimate, ExactEstimator, Probe, balanced_setting
from sparsezo_gui.engine.zo.estimators.two_sided import epsilon_setting
from sparsezo_gui.recipe.variants import setting


class Addax(ExactEstimator):
    """Backprop on the short examples of a batch, a zeroth-order central difference on the long ones.

    After Addax (arXiv 2410.06441): g = α·g₀z + (1 − α)·g₁, with g₁ exact on examples up to a length and g₀ the
    projected gradient on longer ones, so the longest examples, which determine memory, need no backward pass. Own
    choices: both parts come from one batch of all the data instead of two separate ones, and α defaults to the share of
    long examples in the batch loss. A step along a direction of n values is √n times as long as their gradient, so the
    exact part is multiplied by √n (``balanced``); without it, the sum is an estimate of the gradient, but nearly all
    of it is noise.
    """

    title: ClassVar[str] = "Addax (backprop on short examples)"
    paper: ClassVar[str] = "Addax, arXiv 2410.06441"
    rule: Literal["addax"] = "addax"
    epsilon: float = epsilon_setting()
    short: int = setting(
        64, "Longest example trained with backprop; longer ones use zeroth-order estimates.", unit="tokens", ge=1,
        le=131072, basic=True, sane=(32, 512),
        title="Longest backprop example",
    )  # fmt: skip
    alpha: float = setting(
        -1.0, "Weight α of the zeroth-order part; below 0, the long examples' share of the loss.", ge=-1, le=1,
        sane=(-1, 0.5),
        title="Zeroth-order weight",
    )  # fmt: skip
    balanced: bool = balanced_setting()

    @property
    def forward_passes(self) -> int:
        """Two on the long examples; the short ones take one forward and one backward pass."""
        return 2

    @property
    def plain_passes(self) -> int:
        """Both, on long examples."""
        return 2

    def recorded(self, batch_size: int) -> int:
        """The projected gradient, already weighted, and the share of short examples in the loss."""
        return 2

    @property
    def cost(self) -> int:
        """Three on the short examples, two on the long ones."""
        return 3

    def estimate(self, probe: Probe, state: Any) -> Estimate:
        """See `Estimator.estimate`."""
        import torch

        lengths, weights = probe.lengths, probe.weights
        short = [place for place, length in enumerate(lengths) if length <= self.short]
        long = [place for place, length in enumerate(lengths) if length > self.short]
        share = sum(weights[place] for place in long) / sum(weights)
        alpha = share if self.alpha < 0 or share in (0, 1) else self.alpha
        projected_grad, loss, exact = 0.0, 0.0, None
        if long:
            plus, minus = probe.part(long).losses(self.epsilon * torch.tensor([[1.0], [-1.0]])).tolist()
            projected_grad, loss = alpha * (plus - minus) / (2 * self.epsilon), share * (plus + minus) / 2
        if short:
            gradient, short_loss = probe.part(short).gradient()
            length = math.sqrt(gradient.numel()) if self.balanced else 1.0
            exact, loss = gradient * ((1 - alpha) * length), loss + (1 - share) * short_loss
        return Estimate((projected_grad, 1 - share), loss, exact)
