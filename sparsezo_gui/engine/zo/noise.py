"""How much of a loss difference is rounding noise, and an ε with little of it.

If the model computes in fewer bits than fp32, L(θ+εz) − L(θ−εz) may drown in rounding noise at small ε. The noise of a
loss is estimated from fourth-order differences along a direction, to which a smooth loss contributes almost nothing
(Moré and Wild, "Estimating computational noise", SIAM J. Sci. Comput. 33, 2011, section 3).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from sparsezo_gui.recipe.noise import Noise

ORDER = 4
POINTS = 7  # θ + tεz for t = −3 … 3
FACTORS = (3.0, 10.0)
LARGEST = 0.03  # ε beyond which the difference no longer estimates a derivative

Losses = Callable[[Tensor], Tensor]  # from offsets (points, 1) along one direction to losses fp64 (points,)


def probe(epsilon: float, along: Sequence[Losses]) -> Noise:
    """Noise of the losses ``along`` several directions."""
    offsets = epsilon * torch.arange(-(POINTS // 2), POINTS // 2 + 1)[:, None]
    measured = torch.stack([losses(offsets) for losses in along]).double().cpu()
    factor = math.factorial(ORDER) ** 2 / math.factorial(2 * ORDER)
    variance = factor * measured.diff(n=ORDER, dim=1).square().mean().item()
    middle = POINTS // 2
    differences = measured[:, middle + 1] - measured[:, middle - 1]
    return Noise(epsilon, differences.square().mean().sqrt().item(), math.sqrt(2 * variance))


def probes(epsilon: float, along: Sequence[Losses]) -> Iterator[Noise]:
    """Noise at ``epsilon``, and at 3 and 10 times it as far as differences still estimate a derivative."""
    yield probe(epsilon, along)
    for factor in FACTORS:
        if factor * epsilon <= LARGEST:
            yield probe(factor * epsilon, along)


def until_clear(trials: Iterator[Noise]) -> list[Noise]:
    """The ``trials`` up to the first where differences are clear."""
    found = []
    for noise in trials:
        found.append(noise)
        if noise.clear:
            break
    return found
