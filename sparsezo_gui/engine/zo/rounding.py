"""Rounding by chance, so that values in 16 bits keep on average what a step moves them by.

Rounded to the nearest number, a step of less than half their spacing would be lost: at usual rates most are. Here a
value goes up with the probability of its place between the two numbers around it (stochastic rounding: Gupta et al.,
arXiv 1502.02551), by random numbers of its own, so that a replay rounds alike.
"""

from __future__ import annotations

import torch
from torch import Tensor

_SMALLEST = -24  # exponent of fp16's smallest number; above 2⁻¹⁴, ten bits follow the first
_BITS = 13  # that fp32 has more than fp16


def by_chance(numbers: Tensor, dtype: torch.dtype, halves: Tensor) -> Tensor:
    """``numbers`` (n,), finite fp32, in ``dtype``, bfloat16 or float16; ``halves`` (n,) are int32, each 0 … 2¹⁶−1.

    Unbiased: exactly in bfloat16 and in float16 from 2⁻¹⁴ on; below, to 2⁻¹³ of the spacing. What ``dtype`` can hold
    stays as it is.
    """
    if dtype == torch.bfloat16:
        # It is fp32 without the last 16 bits: what is added to them carries over with the right probability.
        return ((numbers.view(torch.int32) + halves) & -65536).view(torch.float32).to(dtype)
    exponents = (torch.frexp(numbers).exponent - 11).clamp_(min=_SMALLEST)
    # Scaled by powers of two, which is exact, so that the spacing is one.
    places = torch.ldexp(numbers, -exponents) + (halves >> 16 - _BITS) * 2.0**-_BITS
    return torch.ldexp(places.floor_(), exponents).to(dtype)
