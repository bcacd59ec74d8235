"""Squared gradients of frozen weights, streamed: accumulators for as many layers as memory allows, then further passes.

The gradient of one linear layer at a time is made from its output gradient and its input, squared, added and dropped;
no weight ever needs a gradient, so the weights stay in 4 bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sparsezo_gui.engine.models import device as devices
from sparsezo_gui.engine.models.frozen import FrozenModel
from sparsezo_gui.engine.models.linear import FrozenLinear
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.events import Progress

STAGE = "Finding the sensitive weights"
MEMORY_SHARE = 0.5  # of the free memory that accumulators may take


def squared_gradients(
    model: FrozenModel, sequences: Sequence[Sequence[int]], budget: int | None = None
) -> Iterator[Progress | tuple[str, Tensor]]:
    """Name and summed squared gradients, fp32 (out, in), of each layer: Σ over sequences of (∂ mean loss / ∂W)².

    ``budget`` is how many bytes accumulators may take at a time; None asks the device.
    """
    budget = budget or int(MEMORY_SHARE * devices.memory_free(model.device))
    groups = _groups(list(model.layers.values()), budget)
    total = len(groups) * len(sequences)
    for number, group in enumerate(groups):
        sums = {layer.name: torch.zeros(layer.store.shape, device=model.device) for layer in group}
        for done, tokens in enumerate(sequences):
            yield Progress(STAGE, number * len(sequences) + done, total, "sequences")
            _add(model, group, sums, tokens)
        for name in list(sums):
            yield name, sums.pop(name)
    yield Progress(STAGE, total, total, "sequences")


def _groups(layers: list[FrozenLinear], budget: int) -> list[list[FrozenLinear]]:
    groups: list[list[FrozenLinear]] = []
    room = 0
    for layer in layers:
        size = 4 * layer.store.shape[0] * layer.store.shape[1]
        if not groups or size > room:
            groups.append([])
            room = budget
        groups[-1].append(layer)
        room -= size
    return groups


def _add(model: FrozenModel, group: list[FrozenLinear], sums: dict[str, Tensor], tokens: Sequence[int]) -> None:
    """Adds one sequence's squared gradients to the sums of the layers in ``group``."""

    def recorder(layer: FrozenLinear):
        def record(gradient: Tensor, x: Tensor) -> None:
            slope = gradient.t().float() @ x.float()
            sums[layer.name].addcmul_(slope, slope)

        return record

    for layer in group:
        layer.recorder = recorder(layer)
    # A gradient has to enter at the embeddings for autograd to walk back through frozen layers.
    hook = model.module.get_input_embeddings().register_forward_hook(lambda _m, _x, out: out.requires_grad_(True))
    try:
        ids = torch.tensor([list(tokens)], device=model.device)
        with torch.enable_grad():
            logits = model.module(input_ids=ids, use_cache=False).logits[0, :-1]
            loss = F.cross_entropy(logits.float(), ids[0, 1:])
            loss.backward()
    finally:
        hook.remove()
        for layer in group:
            layer.recorder = None
    if not torch.isfinite(loss):
        raise UserError("The model's loss on the mask's text is not a finite number; choose more bits or other text.")
