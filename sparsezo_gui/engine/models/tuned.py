"""What is tuned of a frozen weight, for as many sides at once as go through the layer.

Some of it is put into the weight while that is dense, some is added to what the weight gives.
"""

from __future__ import annotations

from collections.abc import Sequence
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
        scaled = self.offsets.to(rows)[:, None, None]
        for first, last, example in self.owners.stretches:
            values = self.directions[example].to(rows.dtype)
            direction = torch.sparse_csr_tensor(self.starts, self.columns, values, shape, check_invariants=False)
            part = rows[:, first:last]
            moved = (direction @ part.reshape(-1, shape[1]).t()).t()
            out[:, first:last] += moved.view(*part.shape[:2], -1) * scaled


@dataclass(frozen=True, eq=False)
class LowRank(Tuned):
    """Products beside the weight: each side has W + Σ left·core·rightᵀ, with its own ``cores`` (sides, k, a, r).

    ``factors`` are k pairs of left (out, a) and right (in, r); a left of None is the identity, with a = out. The frozen
    weight multiplies all sides at once, and W + left·core·rightᵀ is never made for that.
    """

    factors: Sequence[tuple[Tensor | None, Tensor]]
    cores: Tensor

    def add(self, rows: Tensor, out: Tensor) -> None:
        """See `Tuned.add`."""
        for (left, right), core in zip(self.factors, self.cores.to(rows.dtype).unbind(1), strict=True):
            inner = rows @ right
            if left is None:
                out.baddbmm_(inner, core.mT)
            else:
                out.flatten(0, 1).addmm_((inner @ core.mT).flatten(0, 1), left.mT)

    def whole(self, weight: Tensor) -> Tensor:
        """See `Tuned.whole`."""
        for (left, right), core in zip(self.factors, self.cores[0].to(weight.dtype), strict=True):
            weight.addmm_(core if left is None else left.to(weight.dtype) @ core, right.to(weight.dtype).mT)
        return weight
