"""Stochastic rounding, so that 16-bit values keep the average of small steps.

Rounding to nearest would lose any step below half the spacing of the numbers: at usual rates, most steps. Here a value
is rounded up with a probability equal to its position between its two neighbours (Gupta et al., arXiv 1502.02551), with
its own random numbers, so that a replay rounds the same way.
"""

from __future__ import annotations

import torch
from torch import Tensor

_SMALLEST = -24  # exponent of fp16's smallest number; above 2⁻¹⁴ the mantissa has ten bits
_BITS = 13  # mantissa bits that fp32 has beyond fp16


def stochastic_round(numbers: Tensor, dtype: torch.dtype, halves: Tensor) -> Tensor:
    """``numbers`` (n,), finite fp32, in ``dtype``, bfloat16 or float16; ``halves`` (n,) are int32, each 0 … 2¹⁶−1.

    Unbiased: exactly in bfloat16 and in float16 from 2⁻¹⁴ on; below, to 2⁻¹³ of the spacing. Numbers that ``dtype``
    can represent stay unchanged.
    """
    if dtype == torch.bfloat16:
        # bfloat16 is fp32 without the last 16 bits: adding to them carries over with the right probability.
        return ((numbers.view(torch.int32) + halves) & -65536).view(torch.float32).to(dtype)
    exponents = (torch.frexp(numbers).exponent - 11).clamp_(min=_SMALLEST)
    # Scaled by powers of two, which is exact, to a spacing of one.
    places = torch.ldexp(numbers, -exponents) + (halves >> 16 - _BITS) * 2.0**-_BITS
    return torch.ldexp(places.floor_(), exponents).to(dtype)
