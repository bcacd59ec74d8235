"""The overlay: the tuned values, one flat fp32 vector beside a base model that is never written.

An effective weight is the frozen one made dense, with the overlay's values put in at the mask's entries. The values
start at the original full-precision weights of the checkpoint, so what is tuned loses nothing to quantisation.
Why not in place: at η|g| = 3e-5 most updates of bf16 weights vanish by rounding, and the usual cycle of +ε, −2ε, +ε
leaves an error larger than the update.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor

from sparsezo_gui.engine.models.frozen import FrozenModel
from sparsezo_gui.engine.sparse.mask import Mask


class Overlay:
    """``values`` (n,) fp32 of ``mask`` on ``model``, in the model's order of layers; ``start`` (n,) is where they
    began.
    """

    def __init__(self, model: FrozenModel, mask: Mask) -> None:
        self.model = model
        self.mask = mask
        self.slices: dict[str, slice] = {}
        first = 0
        for name, indices in mask.indices.items():
            self.slices[name] = slice(first, first + indices.numel())
            first += indices.numel()
        self.indices = {name: indices.to(model.device) for name, indices in mask.indices.items()}
        self.values = torch.empty(first, dtype=torch.float32)
        for name, part in self.slices.items():
            # The checkpoint is read one tensor at a time.
            self.values[part] = model.original(name).reshape(-1)[mask.indices[name].long()].float()
        self.values = self.values.to(model.device)
        self.start = self.values.clone()

    @contextmanager
    def applied(self, sides: Tensor | None = None) -> Iterator[None]:
        """Within: the model runs with ``sides`` (sides, n), or with the values as they are."""
        sides = self.values.unsqueeze(0) if sides is None else sides
        try:
            for name, layer in self.model.layers.items():
                layer.indices, layer.sides = self.indices.get(name), sides[:, self.slices.get(name, slice(0))]
            yield
        finally:
            for layer in self.model.layers.values():
                layer.indices = layer.sides = None

    def base(self) -> AbstractContextManager[None]:
        """Within: the model runs with the values it started from."""
        return self.applied(self.start.unsqueeze(0))

    def changes(self) -> dict[str, tuple[Tensor, Tensor]]:
        """(indices int32, values fp32) of every tuned weight, on the CPU."""
        return {name: (self.mask.indices[name].cpu(), self.values[part].cpu()) for name, part in self.slices.items()}

    def hash(self) -> str:
        """SHA-256 of the values' bits."""
        return hashlib.sha256(self.values.cpu().numpy().astype("<f4").tobytes()).hexdigest()
