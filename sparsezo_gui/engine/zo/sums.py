"""Sums with the same bits everywhere.

How torch sums a long vector depends on the device and the number of threads. State must not depend on them, or a replay
elsewhere would end with different bits.
"""

from __future__ import annotations

import torch
from torch import Tensor


def total(values: Tensor) -> float:
    """Sum of a vector (n,) in fp64: the second half is added to the first until one number is left."""
    values = values.double()
    while len(values) > 1:
        half = len(values) // 2
        values = torch.cat((values[:half] + values[half : 2 * half], values[2 * half :]))
    return values.sum().item()  # one number, or none
