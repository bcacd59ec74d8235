"""The frozen linear layer in 8-bit integers: codes of weights times codes of activations, for processors.

Each token's activations are cut to int8 by their largest magnitude (dynamic, as in LLM.int8(), arXiv 2208.07339) and
multiplied with the int8 codes of the frozen weight; the products are exact in int32. The tuned values stay apart in
fp32, as a sparse product beside it, so that ±ε reaches the loss whole.

The points of a step differ by very little, and rounding each on its own would bury that under noise. So only the first
point is cut to int8 itself; of every other point it is the *difference* to the first, with a scale of its own:
y₀ = Q(x₀)·Wᵀ and yₖ = y₀ + Q(xₖ − x₀)·Wᵀ. The rounding of y₀ is common to all points and cancels in the projected
gradient; that of the differences is relative to them (1/254 of a token's largest), however small ε is.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from sparsezo_gui.engine.layers.linear import FrozenLinear
from sparsezo_gui.engine.layers.patch import SparsePatch
from sparsezo_gui.engine.layers.weights import Int8Weight

PIECE_BYTES = 16 * 2**20  # of numbers worked on at a time, so that they stay in cache


class IntegerLinear(FrozenLinear):
    """A `FrozenLinear` on an `Int8Weight` store whose products run in integers; backward passes run in fp32.

    Layers that share a ``rounding`` share the codes of an input that several of them take (queries, keys and values).
    """

    frozen: Int8Weight

    def __init__(
        self, name: str, frozen: Int8Weight, bias: Tensor | None, dtype: torch.dtype, rounding: Rounding
    ) -> None:
        super().__init__(name, frozen, bias, dtype)
        self.rounding = rounding
        self.scales = frozen.scales.float() / 127
        self.pattern: _Pattern | None = None

    def multiply(self, rows: Tensor) -> Tensor:
        """See `FrozenLinear.multiply`."""
        codes, scales = self.rounding.of(rows)
        out = torch.empty(*rows.shape[:-1], self.frozen.shape[0])
        for part in _pieces(*out.shape[1:]):
            products = self.rounding.room(part, out.shape[-1], torch.int32)
            for point, y in enumerate(out[:, part]):
                torch._int_mm(codes[point, part], self.frozen.codes.t(), out=products)
                y.copy_(products).mul_(self.scales).mul_(scales[point, part])
                if point:
                    y += out[0, part]
        # Only now: each point builds on the first one's untouched product.
        if isinstance(self.patch, SparsePatch):
            if self.pattern is None or self.pattern.indices is not self.patch.indices:
                self.pattern = _Pattern(self.patch.indices, self.frozen)
            for x, y, values in zip(rows, out, self.patch.values.expand(len(rows), -1), strict=True):
                torch.addmm(y, x, self.pattern.beyond(values), out=y)
        if self.patch is not None:
            self.patch.add(rows, out)
        return out


class Rounding:
    """Activations as int8 codes: those of the last input are kept, and memory to work in is used again."""

    def __init__(self) -> None:
        self._rows = self._codes = self._scales = torch.empty(0)
        self._room = torch.empty(0)

    def of(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Codes int8 (points, n, in) of the first point and of the others' differences to it; scales (points, n, 1)."""
        # The rows are held, so nothing else can come to lie where they are.
        if self._rows.data_ptr() != rows.data_ptr() or self._rows.shape != rows.shape:
            self._rows = rows
            self._codes, self._scales = torch.empty(rows.shape, dtype=torch.int8), rows.new_empty(*rows.shape[:-1], 1)
            for part in _pieces(*rows.shape[1:]):
                room = self.room(part, rows.shape[-1], torch.float32)
                for point, x in enumerate(rows[:, part]):
                    x = torch.sub(x, rows[0, part], out=room) if point else x
                    scales = torch.maximum(x.amax(1, keepdim=True), -x.amin(1, keepdim=True)).div_(127)
                    scales.clamp_(min=torch.finfo(torch.float32).tiny)  # a row of zeros
                    self._codes[point, part] = torch.div(x, scales, out=room).round_()
                    self._scales[point, part] = scales
        return self._codes, self._scales

    def room(self, part: slice, columns: int, dtype: torch.dtype) -> Tensor:
        """Memory for (rows of ``part``, ``columns``) of a 4-byte ``dtype``, until asked again."""
        count = (part.stop - part.start) * columns
        if self._room.numel() < count:
            self._room = torch.empty(count)
        return self._room[:count].view(dtype).view(-1, columns)


def _pieces(rows: int, columns: int) -> list[slice]:
    count = max(1, PIECE_BYTES // (4 * columns))
    return [slice(first, min(first + count, rows)) for first in range(0, rows, count)]


class _Pattern:
    """Where the tuned values stand in Wᵀ, as columns of a compressed matrix, and what the codes give there."""

    def __init__(self, indices: Tensor, frozen: Int8Weight) -> None:
        out, columns = frozen.shape
        self.indices = indices
        self.shape = (columns, out)
        self.rows = (indices % columns).int()
        self.starts = torch.searchsorted(indices, torch.arange(out + 1, dtype=torch.int32) * columns).int()
        owners = indices.long() // columns
        self.coded = frozen.codes.view(-1)[indices.long()].float() * (frozen.scales.float() / 127)[owners]

    def beyond(self, values: Tensor) -> Tensor:
        """Sparse (in, out): ``values`` less what the frozen codes stand for."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch calls this layout a beta
            return torch.sparse_csc_tensor(
                self.starts, self.rows, values - self.coded, self.shape, check_invariants=False
            )
