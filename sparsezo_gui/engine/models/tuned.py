"""What is tuned of a frozen weight, for as many sides at once as go through the layer.

Some of it is put into the weight while that is dense, some is added to what the weight gives.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Tuned:
    """Base: ``sides`` copies of what is tuned in one weight (out, in); here nothing is."""

    sides: int
    apart = False
    """Whether every side has a weight of its own; else they go through one together."""

    def put(self, weight: Tensor, side: int, first: int) -> Tensor:
        """The weight of ``side``, its rows from ``first`` on. ``weight`` may be changed in place, and is given again
        for the next side as this one left it."""
        return weight

    def add(self, rows: Tensor, out: Tensor) -> None:
        """Adds to ``out`` (sides, n, out) what is tuned beside the weight, for ``rows`` (sides, n, in)."""

    def whole(self, weight: Tensor) -> Tensor:
        """The weight (out, in) of the first side with all that is tuned in it; ``weight`` may be changed in place."""
        return self.put(weight, 0, 0)


@dataclass(frozen=True, eq=False)
class Entries(Tuned):
    """Entries put into the weight of ``size`` entries: ``values`` (sides, k) at ``indices`` (int32, flat, row-major in
    (out, in), ascending)."""

    apart = True
    indices: Tensor
    values: Tensor
    size: int

    def put(self, weight: Tensor, side: int, first: int) -> Tensor:
        """See `Tuned.put`."""
        indices, values = self.indices, self.values[side]
        if weight.numel() < self.size:
            begin = first * weight.shape[1]
            bounds = torch.tensor([begin, begin + weight.numel()], dtype=torch.int32)
            low, high = torch.searchsorted(indices, bounds).tolist()
            indices, values = indices[low:high] - begin, values[low:high]
        # scatter_ wants int64 but is the fastest by far; int32 halves what is held between steps.
        weight.view(-1).scatter_(0, indices.long(), values.to(weight.dtype))
        return weight


@dataclass
class Owners:
    """Which example each row of a pack belongs to, the same for every layer: (first, last, example) of each stretch."""

    stretches: list[tuple[int, int, int]] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class OwnEntries(Entries):
    """The same entries for all sides, and a direction for each example beside them: row r of example i goes through
    W + ``offsets[side]`` · (direction i).

    A product with the few entries of a direction costs less than a dense weight for each example. ``directions``
    (examples, k); ``starts`` (out + 1,) and ``columns`` (k,) say where the entries stand, row by row.
    """

    apart = False
    directions: Tensor
    offsets: Tensor
    owners: Owners
    starts: Tensor
    columns: Tensor

    def add(self, rows: Tensor, out: Tensor) -> None:
        """See `Tuned.add`."""
        shape = out.shape[-1], rows.shape[-1]
        # In fp32, whatever the model computes in: what is added is small, and CPUs have no sparse product in 16 bits.
        rows, offsets = rows.float(), self.offsets.to(out.device)[:, None, None]
        for first, last, example in self.owners.stretches:
            part = rows[:, first:last]
            moved = (self._sparse(example, shape) @ part.reshape(-1, shape[1]).t()).t()
            out[:, first:last] += moved.view(*part.shape[:2], -1) * offsets

    def _sparse(self, example: int, shape: tuple[int, int]) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch calls this layout a beta
            return torch.sparse_csr_tensor(
                self.starts, self.columns, self.directions[example], shape, check_invariants=False
            )
