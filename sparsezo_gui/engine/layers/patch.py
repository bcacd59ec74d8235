"""What is tuned of a frozen weight, for as many points at once as go through the layer.

Some of it is put into the weight while that is dense, some is added to what the weight gives. A space may have a
patch of its own in its file, which is read before torch is loaded; so nothing here imports torch at the top.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sparsezo_gui.engine.layers.weights import FrozenWeight


@dataclass(frozen=True, eq=False)
class Patch:
    """Base: ``points`` copies of what is tuned in one weight (out, in); here nothing is."""

    points: int
    apart = False
    """Whether every point has a weight of its own; else they go through one together."""
    by_row = False
    """Whether rows of activations belong to examples, so that none may be left out."""
    puts = False
    """Whether something is put into the weight."""

    def weights(self, frozen: FrozenWeight, dtype: torch.dtype, first: int, last: int) -> Iterator[Tensor]:
        """The rows of ``frozen`` from ``first`` to before ``last`` for every point, or once where points go through one
        together. Each is good until the next is asked for, and must not be written to."""
        if not self.puts:
            yield frozen.read(dtype, first, last)
            return
        weight = frozen.dense(dtype, first, last)
        for point in range(self.points if self.apart else 1):
            yield self.put(weight, point, first)

    def put(self, weight: Tensor, point: int, first: int) -> Tensor:
        """The weight of ``point``, its rows from ``first`` on. ``weight`` may be changed in place, and is given again
        for the next point as this one left it."""
        return weight

    def add(self, rows: Tensor, out: Tensor) -> None:
        """Adds to ``out`` (points, n, out) what is tuned beside the weight, for ``rows`` (points, n, in)."""

    def whole(self, weight: Tensor) -> Tensor:
        """The weight (out, in) of the first point with all that is tuned in it; ``weight`` may be changed in place."""
        return self.put(weight, 0, 0)


@dataclass(frozen=True, eq=False)
class SparsePatch(Patch):
    """Entries put into the weight of ``size`` entries: ``values`` (points, k) at ``indices`` (int32, flat, row-major in
    (out, in), ascending)."""

    apart = puts = True
    indices: Tensor
    values: Tensor
    size: int

    def put(self, weight: Tensor, point: int, first: int) -> Tensor:
        """See `Patch.put`."""
        import torch

        indices, values = self.indices, self.values[point]
        if weight.numel() < self.size:
            begin = first * weight.shape[1]
            bounds = torch.tensor([begin, begin + weight.numel()], dtype=torch.int32)
            low, high = torch.searchsorted(indices, bounds).tolist()
            indices, values = indices[low:high] - begin, values[low:high]
        # scatter_ wants int64 but is the fastest by far; int32 halves what is held between steps.
        weight.view(-1).scatter_(0, indices.long(), values.to(weight.dtype))
        return weight


@dataclass(frozen=True, eq=False)
class DensePatch(Patch):
    """All of the weight, moved along directions: W + Σ ``offsets[point][k]`` · (direction k). The weight itself stays.

    ``draw`` gives the directions of rows, fp32 (directions, rows, in), from one row to before another; they are drawn
    once for all points.
    """

    apart = True
    offsets: Sequence[Sequence[float]]
    draw: Callable[[int, int], Tensor]

    def weights(self, frozen: FrozenWeight, dtype: torch.dtype, first: int, last: int) -> Iterator[Tensor]:
        """See `Patch.weights`."""
        import torch

        weight, directions = frozen.read(torch.float32, first, last), self.draw(first, last)
        room = torch.empty_like(weight)
        for offsets in self.offsets:
            yield _moved(weight, directions, offsets, room).to(dtype)

    def put(self, weight: Tensor, point: int, first: int) -> Tensor:
        """See `Patch.put`."""
        import torch

        held, directions = weight.float(), self.draw(first, first + len(weight))
        return _moved(held, directions, self.offsets[point], torch.empty_like(held)).to(weight.dtype)


def _moved(weight: Tensor, directions: Tensor, offsets: Sequence[float], room: Tensor) -> Tensor:
    """``weight`` moved, in ``room``; or itself where it is not."""
    import torch

    moved = weight
    for direction, offset in zip(directions, offsets, strict=True):
        if offset:
            moved = torch.add(moved, direction, alpha=offset, out=room)
    return moved


@dataclass
class Owners:
    """Which example each row of a pack belongs to, the same for every layer: (first, last, example) of each stretch."""

    stretches: list[tuple[int, int, int]] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class PerExamplePatch(SparsePatch):
    """The same entries for all points, and a direction for each example beside them: row r of example i goes through
    W + ``offsets[point]`` · (direction i).

    A product with the few entries of a direction costs less than a dense weight for each example. ``directions``
    (examples, k); ``starts`` (out + 1,) and ``columns`` (k,) say where the entries stand, row by row.
    """

    apart = False
    by_row = True
    directions: Tensor
    offsets: Tensor
    owners: Owners
    starts: Tensor
    columns: Tensor

    def add(self, rows: Tensor, out: Tensor) -> None:
        """See `Patch.add`."""
        shape = out.shape[-1], rows.shape[-1]
        # In fp32, whatever the model computes in: what is added is small, and CPUs have no sparse product in 16 bits.
        rows, offsets = rows.float(), self.offsets.to(out.device)[:, None, None]
        for first, last, example in self.owners.stretches:
            part = rows[:, first:last]
            moved = (self._sparse(example, shape) @ part.reshape(-1, shape[1]).t()).t()
            out[:, first:last] += moved.view(*part.shape[:2], -1) * offsets

    def _sparse(self, example: int, shape: tuple[int, int]) -> Tensor:
        import torch

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch calls this layout a beta
            return torch.sparse_csr_tensor(
                self.starts, self.columns, self.directions[example], shape, check_invariants=False
            )


@dataclass(frozen=True, eq=False)
class LowRankPatch(Patch):
    """Products beside the weight: each point has W + Σ left·core·rightᵀ, with its own ``cores`` (points, k, a, r).

    ``factors`` are k pairs of left (out, a) and right (in, r); a left of None is the identity, with a = out. The frozen
    weight multiplies all points at once, and W + left·core·rightᵀ is never made for that.
    """

    factors: Sequence[tuple[Tensor | None, Tensor]]
    cores: Tensor

    def add(self, rows: Tensor, out: Tensor) -> None:
        """See `Patch.add`."""
        for (left, right), core in zip(self.factors, self.cores.unbind(1), strict=True):
            # In fp32: once cores have grown, 16 bits do not hold by how much the points differ.
            product = (rows @ right).float() @ core.mT
            if left is None:
                out += product
            else:
                out.flatten(0, 1).addmm_(product.to(out.dtype).flatten(0, 1), left.mT)

    def whole(self, weight: Tensor) -> Tensor:
        """See `Patch.whole`."""
        for (left, right), core in zip(self.factors, self.cores[0].to(weight.dtype), strict=True):
            weight.addmm_(core if left is None else left.to(weight.dtype) @ core, right.to(weight.dtype).mT)
        return weight


@dataclass(frozen=True, eq=False)
class AdapterPatch(Patch):
    """LoRA beside the weight: each point has W + ``scale``·B·A, with its own ``a`` (points, r, in) and ``b``
    (points, out, r), fp32. The frozen weight multiplies all points at once."""

    a: Tensor
    b: Tensor
    scale: float

    def add(self, rows: Tensor, out: Tensor) -> None:
        """See `Patch.add`."""
        # In fp32: 16 bits do not hold by how much the points differ.
        out += (rows.float() @ self.a.mT).mul_(self.scale) @ self.b.mT

    def whole(self, weight: Tensor) -> Tensor:
        """See `Patch.whole`."""
        return weight.addmm_(self.b[0].to(weight.dtype), self.a[0].to(weight.dtype), alpha=self.scale)

    def project(self, gradient: Tensor, x: Tensor) -> Tensor:
        """s·Bᵀ·G and s·G·Aᵀ, flat and one after the other: gradients of the first point's A and B, where G (out, in)
        is the weight's gradient, ``gradient``ᵀ·``x`` of (rows, out) and (rows, in)."""
        import torch

        inner, outer = (gradient @ self.b[0]).mT @ x, gradient.mT @ (x @ self.a[0].mT)
        return torch.cat([inner.flatten(), outer.flatten()]).mul_(self.scale)
