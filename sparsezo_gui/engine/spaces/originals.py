"""The original weights where tuned ones took their place: read from the checkpoint again when they are needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from sparsezo_gui.engine.layers.weights import FrozenWeight
from sparsezo_gui.engine.pretrained.weights import Checkpoint


class Start:
    """All original values, in ``dtype`` on the CPU, read from the checkpoint by weight; the last one is cached."""

    def __init__(self, checkpoint: Checkpoint, slices: Mapping[str, slice], dtype: torch.dtype) -> None:
        self.checkpoint, self.slices, self.dtype = checkpoint, slices, dtype
        self._last: tuple[str, Tensor] = ("", torch.empty(0))

    def weight(self, name: str) -> Tensor:
        """The values of weight ``name``, flat."""
        if self._last[0] != name:
            self._last = (name, self.checkpoint.read(name).to(self.dtype).reshape(-1))
        return self._last[1]

    def __getitem__(self, part: slice) -> Tensor:
        return torch.cat([
            self.weight(name)[max(part.start - place.start, 0) : part.stop - place.start]
            for name, place in self.slices.items() if place.start < part.stop and part.start < place.stop
        ])  # fmt: skip

    def numel(self) -> int:
        """Number of values."""
        return max(int(place.stop) for place in self.slices.values())


class Changes(Mapping[str, tuple[Tensor, Tensor]]):
    """See `TunedValues.changes`: the weights that differ from the original, compared on access."""

    def __init__(self, values: Tensor, start: Start) -> None:
        self._values, self._start = values, start

    def __getitem__(self, name: str) -> tuple[Tensor, Tensor]:
        values = self._values[self._start.slices[name]].cpu()
        indices = (values != self._start.weight(name)).nonzero().view(-1)
        return indices.int(), values[indices].float()

    def __contains__(self, name: object) -> bool:
        return name in self._start.slices

    def __iter__(self) -> Iterator[str]:
        return iter(self._start.slices)

    def __len__(self) -> int:
        return len(self._start.slices)


@dataclass(frozen=True)
class OnDisk(FrozenWeight):
    """An original weight, read from disk on every access."""

    start: Start
    name: str
    size: tuple[int, int]
    goal: torch.device

    @property
    def shape(self) -> tuple[int, int]:
        """See `FrozenWeight.shape`."""
        return self.size

    @property
    def grain(self) -> int:
        """See `FrozenWeight.grain`."""
        return 0

    def dense(self, dtype: torch.dtype, first: int = 0, last: int | None = None) -> Tensor:
        """See `FrozenWeight.dense`."""
        return self.start.weight(self.name).view(self.shape)[first:last].to(self.goal, dtype, copy=True)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """See `FrozenWeight.tensors`."""
        return ()

    @property
    def device(self) -> torch.device:
        """See `FrozenWeight.device`."""
        return self.goal

    def made_of(self, *tensors: Tensor) -> Self:
        """See `FrozenWeight.made_of`."""
        return self
