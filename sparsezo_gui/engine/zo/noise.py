"""How much of a loss difference is rounding noise, and an ε with little of it.

If the model computes in fewer bits than fp32, L(θ+εz) − L(θ−εz) may drown in rounding noise at small ε. The noise of a
loss is estimated from fourth-order differences along a direction, to which a smooth loss contributes almost nothing
(Moré and Wild, "Estimating computational noise", SIAM J. Sci. Comput. 33, 2011, section 3).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

ORDER = 4
POINTS = 7  # θ + tεz for t = −3 … 3
CLEAR = 5.0  # required difference / noise; estimates then correlate with exact projected gradients at 0.98
FACTORS = (1.0, 3.0, 10.0)
LARGEST = 0.03  # ε beyond which the difference no longer estimates a derivative

Losses = Callable[[Tensor], Tensor]  # from offsets (points, 1) along one direction to losses fp64 (points,)


@dataclass(frozen=True)
class Noise:
    """Root mean squares in nats: of the differences L(θ+εz) − L(θ−εz), and of the rounding noise in one of them."""

    epsilon: float
    difference: float
    rounding: float

    @property
    def clear(self) -> bool:
        """Whether differences stand out from rounding noise."""
        return self.difference >= CLEAR * self.rounding


def probe(epsilon: float, along: Sequence[Losses]) -> Noise:
    """Noise of the losses ``along`` several directions."""
    offsets = epsilon * torch.arange(-(POINTS // 2), POINTS // 2 + 1)[:, None]
    measured = torch.stack([losses(offsets) for losses in along]).double().cpu()
    factor = math.factorial(ORDER) ** 2 / math.factorial(2 * ORDER)
    variance = factor * measured.diff(n=ORDER, dim=1).square().mean().item()
    middle = POINTS // 2
    differences = measured[:, middle + 1] - measured[:, middle - 1]
    return Noise(epsilon, differences.square().mean().sqrt().item(), math.sqrt(2 * variance))


def tune_epsilon(epsilon: float, along: Sequence[Losses]) -> Noise:
    """Noise at the first of ``epsilon``, 3 and 10 times it where differences are clear; else at the last of them."""
    found = probe(epsilon, along)
    for factor in FACTORS[1:]:
        if found.clear or factor * epsilon > LARGEST:
            break
        found = probe(factor * epsilon, along)
    return found
