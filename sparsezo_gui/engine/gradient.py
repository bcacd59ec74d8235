"""Exact gradients of the tuned values by back-propagation, block by block, in nearly the memory of forward passes.

A pack goes forward through all blocks without anything kept but what enters each block. Then, from the last block to
the first that has tuned values, each block runs again, now keeping what its own backward pass needs, and that is
dropped with it (gradient checkpointing, Chen et al., arXiv 1604.06174, with the blocks as segments; on phones:
MeBP, arXiv 2510.03425). The frozen weights stay quantised and get no gradient: of a layer's product dYᵀ·X only
what the tuned values need is computed, at their entries or in their subspace (as MeSP, arXiv 2602.13069, does for
LoRA). A step costs three forward passes and dequantises each weight three times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sparsezo_gui.engine import device as devices
from sparsezo_gui.engine.data.encode import Encoded
from sparsezo_gui.engine.forward import BACKWARD_ROWS, scores
from sparsezo_gui.engine.frozen import FrozenModel
from sparsezo_gui.engine.layers.blocks import Blocks, grad_of
from sparsezo_gui.engine.layers.kept import kept
from sparsezo_gui.engine.layers.linear import FrozenLinear, Recorder, loss_scale, recorded
from sparsezo_gui.engine.objective import count_tokens, gathered, pack_of, packs_of, weight_of
from sparsezo_gui.engine.objectives import Objective
from sparsezo_gui.engine.route import route
from sparsezo_gui.engine.spaces.values import TunedValues


def gradient(
    model: FrozenModel, tuned: TunedValues, objective: Objective, batch: Sequence[Encoded], blocks: int | None = None,
    base: Tensor | None = None, asked: dict[str, Any] | None = None,
) -> tuple[Tensor, float]:  # fmt: skip
    """∇L of the batch in nats, fp32 (n,), at the values the layers hold, and L; with ``blocks``, only in the last
    ``blocks`` decoder blocks, zero in the others. ``base`` is what the objective compares the batch against.

    Packs of examples follow each other; their gradients are summed in fp32, in order.
    """
    found = torch.zeros_like(tuned.values, dtype=torch.float32)
    passes = BackwardPasses(model, tuned, objective, batch, blocks, base, asked)
    loss = 0.0
    for share in model.workers.add(passes, found):
        loss += share
    return found.div_(loss_scale(model.dtype)), loss


@dataclass(frozen=True)
class BackwardPasses:
    """Passes of a batch, forward and backward: one pack at a time, which is a unit; see `gradient`, and
    `sparsezo_gui.engine.objective.Passes` for ``asked``."""

    model: FrozenModel
    tuned: TunedValues
    objective: Objective
    examples: Sequence[Encoded]
    blocks: int | None
    base: Tensor | None
    asked: dict[str, Any] | None = None

    @cached_property
    def units(self) -> list[list[Encoded]]:
        """The packs."""
        return list(packs_of(self.examples, min(self.model.pack_rows, BACKWARD_ROWS[self.model.device.type]), 1))

    @property
    def rows(self) -> list[int]:
        """Rows of each unit, in tokens."""
        return [sum(map(count_tokens, pack)) for pack in self.units]

    def run(self, units: range, found: Tensor) -> list[float]:
        """Makes the passes ``units``: adds their gradients, times the model's loss scale, to ``found`` (n,), and
        returns the share of each in the loss."""
        backward, losses = _Backward(self.model, self.tuned, self.blocks, found), []
        weight, first = sum(map(weight_of, self.examples)), sum(map(len, self.units[: units.start]))
        for unit in units:
            part = self.units[unit]
            own = None if self.base is None else self.base[..., first : first + len(part)]
            losses.append(backward.add(self.objective, part, weight, own))
            first += len(part)
        return losses


class _Backward:
    """Adds gradients, times ``scale``, to ``found`` (n,)."""

    def __init__(self, model: FrozenModel, tuned: TunedValues, last: int | None, found: Tensor) -> None:
        self.model, self.tuned, self.found, self.scale = model, tuned, found, loss_scale(model.dtype)
        self.blocks = Blocks(model)
        self.layers = [[layer for layer in layers if layer.name in tuned.slices] for layers in self.blocks.layers]
        if last is not None:
            self.layers[: max(0, len(self.layers) - last)] = [[] for _ in self.layers[last:]]
        tuned_blocks = [number for number, layers in enumerate(self.layers) if layers]
        self.lowest = min(tuned_blocks, default=len(self.layers))

    def add(self, objective: Objective, examples: Sequence[Encoded], weight: float, base: Tensor | None) -> float:
        """The share of ``examples`` in the loss of a batch of ``weight``; adds its gradient."""
        pack, pairs = pack_of(self.model, examples)
        count = len(self.layers) - self.lowest
        with torch.no_grad(), route(self.model, pack) as path:
            hidden = path.enter()
            with kept(self.model.device, count * hidden.nbytes) as inputs:
                for number in range(path.first, len(self.layers)):
                    if number >= self.lowest:
                        inputs.push(hidden)
                    hidden = path.run(number, hidden)
                devices.trim()  # what one phase leaves is of little use to the next
                hidden.requires_grad_()
                with torch.enable_grad():
                    states, head = path.leave(hidden)
                    found = scores(head, states, pack.inverse, pack.targets, self.model.vocabulary)
                    measured = objective.losses_of(gathered(examples, found, pairs), examples, base)
                    loss = measured.sums[0].sum() / weight
                    (loss * self.scale).backward()
                gradient, hidden = grad_of(hidden), hidden.detach()
                del found, measured, states, head
                devices.trim()
                for number in reversed(range(self.lowest, len(self.layers))):
                    with recorded(self.layers[number], self._recorder):
                        gradient = path.backward(number, inputs.pop(), gradient)
        return loss.item()

    def _recorder(self, layer: FrozenLinear) -> Recorder:
        def record(gradient: Tensor, x: Tensor) -> None:
            self.found[self.tuned.slices[layer.name]] += self.tuned.project(layer.name, gradient, x)

        return record
