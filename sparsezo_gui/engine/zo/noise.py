"""How much of a measured difference of losses is rounding, and an ε at which little of it is.

Where the model computes in fewer bits than fp32, L(θ+εz) − L(θ−εz) may drown in rounding if ε is small. The noise of a
loss is taken from differences of fourth order along a direction, to which a smooth loss adds almost nothing (Moré and
Wild, "Estimating computational noise", SIAM J. Sci. Comput. 33, 2011, section 3).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

ORDER = 4
POINTS = 7  # θ + tεz for t = −3 … 3
CLEAR = 5.0  # times the noise that a difference must be; slopes then correlate with exact ones at 0.98
FACTORS = (1.0, 3.0, 10.0)
LARGEST = 0.03  # ε beyond which the difference is no slope any more

Losses = Callable[[Tensor], Tensor]  # of offsets (sides, 1) along one direction, fp64 (sides,)


@dataclass(frozen=True)
class Noise:
    """Root mean squares, in nats: of the differences L(θ+εz) − L(θ−εz), and of the rounding in one of them."""

    epsilon: float
    difference: float
    rounding: float

    @property
    def clear(self) -> bool:
        """Whether slopes can be told from rounding."""
        return self.difference >= CLEAR * self.rounding


def probe(epsilon: float, along: Sequence[Losses]) -> Noise:
    """Noise of the losses ``along`` some directions."""
    offsets = epsilon * torch.arange(-(POINTS // 2), POINTS // 2 + 1)[:, None]
    measured = torch.stack([losses(offsets) for losses in along]).double().cpu()
    factor = math.factorial(ORDER) ** 2 / math.factorial(2 * ORDER)
    variance = factor * measured.diff(n=ORDER, dim=1).square().mean().item()
    middle = POINTS // 2
    differences = measured[:, middle + 1] - measured[:, middle - 1]
    return Noise(epsilon, differences.square().mean().sqrt().item(), math.sqrt(2 * variance))


def settle(epsilon: float, along: Sequence[Losses]) -> Noise:
    """The first of ``epsilon``, three and ten times it at which differences are clear; else the last of them."""
    found = probe(epsilon, along)
    for factor in FACTORS[1:]:
        if found.clear or factor * epsilon > LARGEST:
            break
        found = probe(factor * epsilon, along)
    return found
