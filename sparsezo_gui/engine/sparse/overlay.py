"""The overlay: the tuned values, one flat fp32 vector beside a base model that is never written.

An effective weight is the frozen one made dense, with the overlay's values put in at the mask's entries. The values
start at the original full-precision weights of the checkpoint, so what is tuned loses nothing to quantisation.
Why not in place: at η|g| = 3e-5 most updates of bf16 weights vanish by rounding, and the usual cycle of +ε, −2ε, +ε
leaves an error larger than the update.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property

import torch
from torch import Tensor

from sparsezo_gui.engine.models.frozen import FrozenModel
from sparsezo_gui.engine.models.linear import FrozenLinear
from sparsezo_gui.engine.models.tuned import Entries, OwnEntries, Owners, Tuned
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

    def probed(self, directions: Tensor, offsets: Tensor) -> AbstractContextManager[None]:
        """Within: the model runs with values + ``offsets`` (sides, q) · ``directions`` (q, n)."""
        return self.applied(self.values + offsets.to(directions) @ directions)

    def applied(self, sides: Tensor | None = None) -> AbstractContextManager[None]:
        """Within: the model runs with ``sides`` (sides, n), or with the values as they are."""
        sides = self.values.unsqueeze(0) if sides is None else sides
        return self._held({name: self._tuned(name, layer, sides) for name, layer in self.model.layers.items()})

    def own(self, directions: Tensor, offsets: Tensor, owners: Owners) -> AbstractContextManager[None]:
        """Within: the model runs example i with values + offsets·(direction i), for ``directions`` (examples, n) and
        ``offsets`` (sides,); ``owners`` says which example a row belongs to."""
        sides, values = len(offsets), self.values[None]
        return self._held({
            name: OwnEntries(sides, self.indices[name], values[:, part], math.prod(self.model.layers[name].store.shape),
                             directions[:, part], offsets, owners, *self._rows[name])
            for name, part in self.slices.items()
        }, sides)  # fmt: skip

    @contextmanager
    def _held(self, tuned: dict[str, Tuned], sides: int = 1) -> Iterator[None]:
        try:
            for name, layer in self.model.layers.items():
                layer.tuned = tuned.get(name) or Tuned(sides)
            yield
        finally:
            for layer in self.model.layers.values():
                layer.tuned = None

    @cached_property
    def _rows(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Where the entries of each row begin, (out + 1,), and their columns (k,)."""
        found = {}
        for name, indices in self.indices.items():
            rows, columns = self.model.layers[name].store.shape
            ends = torch.arange(rows + 1, dtype=torch.int32, device=indices.device) * columns
            found[name] = torch.searchsorted(indices, ends).int(), (indices % columns).int()
        return found

    def _tuned(self, name: str, layer: FrozenLinear, sides: Tensor) -> Tuned:
        if name not in self.slices:
            return Tuned(len(sides))
        rows, columns = layer.store.shape
        return Entries(len(sides), self.indices[name], sides[:, self.slices[name]], rows * columns)

    def base(self) -> AbstractContextManager[None]:
        """Within: the model runs with the values it started from."""
        return self.applied(self.start.unsqueeze(0))

    def changes(self) -> dict[str, tuple[Tensor, Tensor]]:
        """(indices int32, values fp32) of every tuned weight, on the CPU."""
        return {name: (self.mask.indices[name].cpu(), self.values[part].cpu()) for name, part in self.slices.items()}

    def hash(self) -> str:
        """SHA-256 of the values' bits."""
        return hashlib.sha256(self.values.cpu().numpy().astype("<f4").tobytes()).hexdigest()
