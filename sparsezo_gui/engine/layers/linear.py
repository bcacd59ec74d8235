"""The frozen linear layer: one weight, several points.

All points of a step run through each weight while it is hot: it is made dense once, the values of one point are put in
and multiplied, then those of the next (never in place). The layer's input therefore holds the points
one after the other along its first dimension. On a CPU a large weight is made dense a span of rows at a time: the span
stays in cache, and memory of that size is used again where larger pieces would be fetched from the system each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparsezo_gui.engine.layers.patch import Patch
from sparsezo_gui.engine.layers.weights import FrozenWeight

SPAN_BYTES = 8 * 2**20
LARGE_BYTES = 2 * SPAN_BYTES  # up to which a weight is made dense in one piece

# Called in the backward pass with the gradient at the layer's output (rows, out) and its input (rows, in).
Recorder = Callable[[Tensor, Tensor], None]


class FrozenLinear(nn.Module):
    """y = x·Wᵀ + b with a frozen W (out, in), and its ``patch`` for each point; None runs the frozen weight as
    it is."""

    def __init__(self, name: str, frozen: FrozenWeight, bias: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.name = name
        self.bias = bias
        self.dtype = dtype
        self.patch: Patch | None = None
        self.recorder: Recorder | None = None
        self.hold(frozen)

    def hold(self, frozen: FrozenWeight) -> None:
        """Takes ``frozen`` for the frozen weight."""
        self.frozen = frozen
        self.spans = spans_of(frozen, self.dtype)

    def __call__(self, *args: Any, **named: Any) -> Any:
        """As of any module. A model's own code may pass x by the name that the layer it wrote has for it; hooks get it
        as the first argument all the same."""
        return super().__call__(*args, *named.values())

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (points · batch, …, in) to (points · batch, …, out)."""
        if torch.is_grad_enabled() and x.requires_grad:
            return cast("Tensor", _Differentiable.apply(x, self))  # type: ignore[no-untyped-call]
        out = self.multiply(x.reshape(self.patch.points if self.patch else 1, -1, x.shape[-1]))
        if self.bias is not None:
            out += self.bias
        return out.view(*x.shape[:-1], self.frozen.shape[0])

    def multiply(self, rows: Tensor) -> Tensor:
        """x·Wᵀ of each point: (points, n, in) to (points, n, out)."""
        tuned = self.patch or Patch(len(rows))
        out = torch.empty(*rows.shape[:-1], self.frozen.shape[0], dtype=rows.dtype, device=rows.device)
        # Sides that share the weight go through it as one.
        parts, whole = (rows, out) if tuned.apart else (rows.flatten(0, 1)[None], out.flatten(0, 1)[None])
        for first, last in self.spans:
            weights = tuned.weights(self.frozen, rows.dtype, first, last)
            for part, weight, result in zip(parts, weights, whole, strict=True):
                torch.mm(part, weight.t(), out=result[:, first:last])
        tuned.add(rows, out)
        return out

    def weight(self, dtype: torch.dtype) -> Tensor:
        """The weight (out, in) of the first point, which the caller must not write to."""
        return self.frozen.read(dtype) if self.patch is None else self.patch.whole(self.frozen.dense(dtype))


@contextmanager
def recorded(layers: Iterable[FrozenLinear], recorder: Callable[[FrozenLinear], Recorder]) -> Iterator[None]:
    """Within: ``recorder`` of each of the layers is called in its backward pass."""
    layers = list(layers)
    for layer in layers:
        layer.recorder = recorder(layer)
    try:
        yield
    finally:
        for layer in layers:
            layer.recorder = None


def loss_scale(dtype: torch.dtype) -> float:
    """Factor of a loss before back-propagation: in fp16, gradients would fall below its smallest number."""
    return 1024.0 if dtype == torch.float16 else 1.0


def spans_of(frozen: FrozenWeight, dtype: torch.dtype) -> list[tuple[int, int]]:
    """Rows (first, last) of each part of the weight."""
    rows, columns = frozen.shape
    if frozen.device.type != "cpu" or not frozen.grain or rows * columns * dtype.itemsize <= LARGE_BYTES:
        return [(0, rows)]
    count = max(frozen.grain, SPAN_BYTES // (columns * dtype.itemsize) // frozen.grain * frozen.grain)
    return [(first, min(first + count, rows)) for first in range(0, rows, count)]


class _Differentiable(torch.autograd.Function):
    """The same product for backward passes: the frozen weight is made dense again rather than kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: FrozenLinear) -> Tensor:
        ctx.layer = layer
        if layer.recorder is not None:
            ctx.save_for_backward(x)
        return F.linear(x, layer.weight(x.dtype), layer.bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        layer = ctx.layer
        if layer.recorder is not None:
            (x,) = ctx.saved_tensors
            layer.recorder(gradient.reshape(-1, gradient.shape[-1]), x.reshape(-1, x.shape[-1]))
        return gradient @ layer.weight(gradient.dtype), None
