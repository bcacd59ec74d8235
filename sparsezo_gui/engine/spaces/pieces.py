"""Directions as long as the model: each piece is drawn from its position where it is used, and none is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from sparsezo_gui.engine.zo import generator
from sparsezo_gui.engine.zo.generator import Source
from sparsezo_gui.engine.zo.stochastic_rounding import stochastic_round
from sparsezo_gui.engine.zo.updates import Pieces

PIECE = {"cpu": 2**18, "cuda": 2**22}  # values drawn at a time: on a CPU by one thread, to fit its cache
ALIGNED = 128  # directions can be drawn from multiples of this position
MOVED = 2**20  # values updated at a time


@dataclass(frozen=True)
class Directions(Pieces):
    """Directions (``perturbations``, n) of a step, drawn only as needed: normal, or ``signs``.

    They are zero outside the weights in ``tuned``, and where ``values`` exceed their weight's threshold.
    """

    source: Source
    perturbations: int
    values: Tensor
    tuned: Mapping[str, slice]
    thresholds: Mapping[str, float]
    signs: bool = False

    def of(self, name: str, first: int, count: int, perturbations: Sequence[int]) -> Tensor:
        """These ``perturbations`` (q) of ``count`` values of weight ``name`` from ``first`` on, fp32 (q, count)."""
        begin = self.tuned[name].start + first
        drawn = torch.empty(len(perturbations), count, device=self.values.device)
        for direction, probe in zip(drawn, perturbations, strict=True):
            _fill(direction, self.source, probe, begin, generator.signs if self.signs else generator.normal)
        if name in self.thresholds:
            # From the values before the step: the same for all its forward passes and the update.
            drawn *= self.values[begin : begin + count].float().abs() <= self.thresholds[name]
        return drawn

    def parts(self) -> Iterator[tuple[slice, Tensor]]:
        """See `Pieces`."""
        for name, part in self.tuned.items():
            for first in range(part.start, part.stop, MOVED):
                last = min(first + MOVED, part.stop)
                yield slice(first, last), self.of(name, first - part.start, last - first, range(self.perturbations))

    def rounded(self, moved: Tensor, part: slice, dtype: torch.dtype) -> Tensor:
        """See `Pieces`."""
        early = part.start % 8
        halves = generator.rounding(
            self.source.seed, self.source.step, len(moved) + early, moved.device, part.start - early
        )
        return stochastic_round(moved, dtype, halves[early:])


def _fill(direction: Tensor, source: Source, probe: int, begin: int, values: Callable[..., Tensor]) -> None:
    """Writes the ``values`` of a direction from ``begin`` on, with PyTorch's number of threads."""
    device = direction.device

    def draw(place: int) -> None:
        early = (begin + place) % ALIGNED
        piece = direction[place : place + PIECE[device.type]]
        drawn = values(source.seed, source.step, probe, len(piece) + early, device, begin + place - early)
        piece.copy_(drawn[early:])

    places = range(0, len(direction), PIECE[device.type])
    if device.type == "cpu" and len(places) > 1 and torch.get_num_threads() > 1:
        list(_threads(torch.get_num_threads()).map(draw, places))
    else:
        for place in places:
            draw(place)


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count)
