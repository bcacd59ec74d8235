"""Exact gradients of the tuned values by back-propagation, for baselines and hybrid methods.

The frozen weights stay quantised: each is dequantised again in the backward pass, and a weight's gradient is reduced to
that of its tuned values at once. Unlike forward passes, this keeps the activations of the blocks in the backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sparsezo_gui.engine import device as devices
from sparsezo_gui.engine.data.encode import Encoded
from sparsezo_gui.engine.frozen import FrozenModel
from sparsezo_gui.engine.layers.linear import FrozenLinear, Recorder, loss_scale, recorded
from sparsezo_gui.engine.objectives import Objective
from sparsezo_gui.engine.spaces.values import TunedValues, last_blocks
from sparsezo_gui.errors import UserError

Args = tuple[Any, ...]
Kwargs = dict[str, Any]


def check(model: FrozenModel) -> None:
    """Raises `UserError` for a model streamed block by block from the host: the backward pass would lack the blocks."""
    if any(layer.frozen.device.type != model.device.type for layer in model.layers.values()):
        raise UserError(
            f"'{model.source.id}' is too large for {devices.name(model.device)}, but back-propagation needs all of it "
            "there. Set [model] bits = 4 or device = 'cpu', or [estimator] rule = 'two-sided'."
        )


def gradient(
    model: FrozenModel, tuned: TunedValues, objective: Objective, batch: Sequence[Encoded], blocks: int | None = None,
    base: Tensor | None = None,
) -> tuple[Tensor, float]:  # fmt: skip
    """∇L of the batch in nats, fp32 (n,), at the values the layers hold, and L; with ``blocks``, only in the last
    ``blocks`` decoder blocks, zero in the others. ``base`` is what the objective compares the batch against."""
    layers = {name: layer for name, layer in model.layers.items() if name in tuned.slices}
    if blocks is not None:
        kept = tuple(last_blocks(model, blocks))
        layers = {name: layer for name, layer in layers.items() if name.startswith(kept)}
    found = torch.zeros_like(tuned.values, dtype=torch.float32)

    def recorder(layer: FrozenLinear) -> Recorder:
        def record(grad: Tensor, x: Tensor) -> None:
            found[tuned.slices[layer.name]] += tuned.project(layer.name, grad.t().float() @ x.float())

        return record

    scale = loss_scale(model.dtype)
    with torch.enable_grad(), _from(_first(model, blocks)), recorded(layers.values(), recorder):
        loss = objective.measure(model, batch, base=base).loss[0]
        (loss * scale).backward()
    return found.div_(scale), loss.item()


def _first(model: FrozenModel, blocks: int | None) -> nn.Module:
    """The first module of the backward pass."""
    layers: list[nn.Module] = list(model.module.get_submodule(model.spec.blocks).children())
    return layers[0 if blocks is None else max(0, len(layers) - blocks)]


@contextmanager
def _from(block: nn.Module) -> Iterator[None]:
    """Inside, back-propagation ends at the input of ``block``."""

    def begin(module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
        if args:
            return (args[0].detach().requires_grad_(), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": kwargs["hidden_states"].detach().requires_grad_()}

    hook = block.register_forward_pre_hook(begin, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()
