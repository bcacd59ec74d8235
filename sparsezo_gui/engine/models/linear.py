"""The frozen linear layer: one weight, several sides.

Both sides of a probe run through each weight while it is hot: it is made dense once, the values of one side are put in
and multiplied, then those of the next (design: overlay, never in place). The layer's input therefore holds the sides
one after the other along its first dimension.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparsezo_gui.engine.models.stores import Store

# Called in the backward pass with the gradient at the layer's output (rows, out) and its input (rows, in).
Recorder = Callable[[Tensor, Tensor], None]


class FrozenLinear(nn.Module):
    """y = x·Wᵀ + b with a frozen W (out, in), in which chosen entries are replaced by tuned values.

    ``indices`` are the chosen entries (int32, flat, row-major in (out, in)); ``sides`` (sides, len(indices)) are the
    values to put in, one row a side; None runs the frozen weight as it is.
    """

    def __init__(self, name: str, store: Store, bias: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.name = name
        self.store = store
        self.bias = bias
        self.dtype = dtype
        self.indices: Tensor | None = None
        self.sides: Tensor | None = None
        self.recorder: Recorder | None = None

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (sides · batch, …, in) to (sides · batch, …, out)."""
        if torch.is_grad_enabled() and x.requires_grad:
            return _Differentiable.apply(x, self)
        weight = self.store.dense(x.dtype)
        if self.sides is None or self.sides.shape[0] == 1:
            return F.linear(x, self.put(weight, 0), self.bias)
        rows = x.reshape(self.sides.shape[0], -1, x.shape[-1])
        out = torch.empty(*rows.shape[:-1], weight.shape[0], dtype=x.dtype, device=x.device)
        for side, part in enumerate(rows):
            torch.mm(part, self.put(weight, side).t(), out=out[side])
        if self.bias is not None:
            out += self.bias
        return out.view(*x.shape[:-1], weight.shape[0])

    def put(self, weight: Tensor, side: int) -> Tensor:
        """Puts the values of one side into ``weight`` in place and gives it back."""
        if self.sides is not None and self.indices is not None:
            # scatter_ wants int64 but is the fastest by far; int32 halves what is held between steps.
            weight.view(-1).scatter_(0, self.indices.long(), self.sides[side].to(weight.dtype))
        return weight


class _Differentiable(torch.autograd.Function):
    """The same product for backward passes: the frozen weight is made dense again rather than kept."""

    @staticmethod
    def forward(ctx, x: Tensor, layer: FrozenLinear) -> Tensor:
        ctx.layer = layer
        if layer.recorder is not None:
            ctx.save_for_backward(x)
        return F.linear(x, layer.put(layer.store.dense(x.dtype), 0), layer.bias)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        layer = ctx.layer
        if layer.recorder is not None:
            (x,) = ctx.saved_tensors
            layer.recorder(gradient.reshape(-1, gradient.shape[-1]), x.reshape(-1, x.shape[-1]))
        return gradient @ layer.put(layer.store.dense(gradient.dtype), 0), None
