"""The top k of scores that come layer by layer, without ever holding them all."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class TopK:
    """Keeps the ``count`` highest of all scores offered. Memory: one layer's scores and ``count`` candidates."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.names: list[str] = []
        self._scores = torch.empty(0)
        self._places = torch.empty(0, dtype=torch.int64)  # layer number · 2³² + flat index

    def offer(self, name: str, scores: Tensor) -> None:
        """Offers the scores (out, in) of one layer."""
        best = scores.flatten().float().topk(min(self.count, scores.numel()), sorted=False)
        places = best.indices.cpu() + (len(self.names) << 32)
        self.names.append(name)
        values = torch.cat((self._scores, best.values.cpu()))
        kept = values.topk(min(self.count, len(values)), sorted=False).indices
        self._scores, self._places = values[kept], torch.cat((self._places, places))[kept]

    def result(self) -> dict[str, Tensor]:
        """Ascending int32 indices by layer, layers without any left out."""
        places = self._places.sort().values
        layers, indices = places >> 32, (places & 0xFFFFFFFF).to(torch.int32)
        found = {name: indices[layers == number] for number, name in enumerate(self.names)}
        return {name: indices for name, indices in found.items() if len(indices)}


def count_of(density: float, shapes: Mapping[str, tuple[int, int]]) -> int:
    """How many entries a density means, at least one."""
    return max(1, round(density * sum(rows * columns for rows, columns in shapes.values())))
