"""The top k of scores that arrive layer by layer, without holding them all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from sparsezo_gui.engine.files import replacing

SORTED = 1 << 22  # scores at a time, if each row is sorted


class TopK:
    """Keeps the ``count`` highest of all scores offered. Memory: one layer's scores and ``count`` candidates."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.names: list[str] = []
        self.scores = torch.empty(0)
        self.places = torch.empty(0, dtype=torch.int64)  # layer number · 2³² + flat index

    def offer(self, name: str, scores: Tensor) -> None:
        """Offers the scores (out, in) of one layer."""
        flat = scores.flatten().float()
        if len(self.scores) < self.count:
            best = highest(flat, self.count)
        else:  # of what is above the least of those kept: these come first, and win a tie
            above = (~(flat <= self.scores.min())).nonzero().view(-1)
            best = above[highest(flat[above], self.count)]
        places = best.cpu() + (len(self.names) << 32)
        self.names.append(name)
        values, places = torch.cat((self.scores, flat[best].cpu())), torch.cat((self.places, places))
        kept = highest(values, self.count)
        self.scores, self.places = values[kept], places[kept]

    def result(self) -> dict[str, Tensor]:
        """Ascending int32 indices by layer; layers without any are left out."""
        places = self.places.sort().values
        layers, indices = places >> 32, (places & 0xFFFFFFFF).to(torch.int32)
        found = {name: indices[layers == number] for number, name in enumerate(self.names)}
        return {name: indices for name, indices in found.items() if len(indices)}


def highest(scores: Tensor, count: int) -> Tensor:
    """Ascending indices of the ``count`` highest ``scores`` (n,); the first wins a tie, unlike in `torch.topk`."""
    if count >= len(scores):
        return torch.arange(len(scores), device=scores.device)
    threshold = scores.topk(count, sorted=False).values.min()
    above = (~(scores <= threshold)).nonzero().view(-1)[:count]  # NaN counts as highest, as in topk
    equal = (scores == threshold).nonzero().view(-1)[: count - len(above)]
    return torch.cat((above, equal)).sort().values


class Selection:
    """The ``density`` of weights of ``shapes`` with the highest scores: over all of them ('global'), in each weight
    ('tensor') or in each of its rows ('row')."""

    def __init__(self, density: float, scope: str, shapes: Mapping[str, tuple[int, int]]) -> None:
        self.density, self.scope, self.shapes = density, scope, shapes
        self._whole = TopK(count_of(density, shapes)) if scope == "global" else None
        self._parts: dict[str, Tensor] = {}

    def offer(self, name: str, scores: Tensor) -> None:
        """Offers the scores (out, in) of one weight."""
        if self._whole is not None:
            self._whole.offer(name, scores)
        elif self.scope == "row":
            self._parts[name] = best_of_rows(scores, part_of(self.density, scores.shape[1]))
        else:
            part = TopK(part_of(self.density, scores.numel()))
            part.offer(name, scores)
            self._parts |= part.result()

    def result(self) -> dict[str, Tensor]:
        """Ascending int32 indices by weight, in the order of ``shapes``; weights without any are left out."""
        found = self._parts if self._whole is None else self._whole.result()
        return {name: found[name] for name in self.shapes if name in found}

    def save(self, path: Path) -> None:
        """Saves what was offered so far."""
        tensors, names = self._parts, []
        if self._whole is not None:
            tensors, names = {"scores": self._whole.scores, "places": self._whole.places}, self._whole.names
        with replacing(path) as temporary:
            save_file(tensors, temporary, {"names": json.dumps(names)})

    def load(self, path: Path) -> None:
        """Resumes from what `save` wrote, if anything."""
        if not path.exists():
            return
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            names = json.loads(file.metadata()["names"])
        if self._whole is None:
            self._parts = tensors
        else:
            self._whole.scores, self._whole.places, self._whole.names = tensors["scores"], tensors["places"], names


def best_of_rows(scores: Tensor, count: int) -> Tensor:
    """Ascending flat indices, int32, of the ``count`` highest ``scores`` (out, in) per row; the first wins a tie."""
    rows, columns = scores.shape
    found = []
    for first in range(0, rows, max(1, SORTED // columns)):
        part = scores[first : first + max(1, SORTED // columns)].float()
        best = part.argsort(dim=1, descending=True, stable=True)[:, :count].sort(dim=1).values.cpu()
        found.append(best + columns * torch.arange(first, first + len(part))[:, None])
    return torch.cat(found).flatten().to(torch.int32)


def part_of(density: float, count: int) -> int:
    """The density's share of ``count``, at least one."""
    return max(1, round(density * count))


def count_of(density: float, shapes: Mapping[str, tuple[int, int]]) -> int:
    """The density's share of the entries of all ``shapes``, at least one."""
    return part_of(density, sum(rows * columns for rows, columns in shapes.values()))


def size_of(density: float, scope: str, shapes: Mapping[str, tuple[int, int]]) -> int:
    """The number of entries that a `Selection` picks."""
    if scope == "global":
        return count_of(density, shapes)
    if scope == "tensor":
        return sum(part_of(density, rows * columns) for rows, columns in shapes.values())
    return sum(rows * part_of(density, columns) for rows, columns in shapes.values())
