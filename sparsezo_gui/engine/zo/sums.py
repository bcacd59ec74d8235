"""Sums that have the same bits everywhere.

How torch adds up a long vector depends on the device and on the number of threads. What a state is made of must not, or
a replay elsewhere would end with other bits.
"""

from __future__ import annotations

import torch
from torch import Tensor


def total(values: Tensor) -> float:
    """Sum of a vector (n,) in fp64: its second half is added to its first until one number is left."""
    values = values.double()
    while len(values) > 1:
        half = len(values) // 2
        values = torch.cat((values[:half] + values[half : 2 * half], values[2 * half :]))
    return values.sum().item()  # of one number, or none
