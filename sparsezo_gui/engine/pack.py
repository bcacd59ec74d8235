"""Packs: sequences that go through the model together, as one row of tokens without padding."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from sparsezo_gui.engine.data.encode import Row

# (first token, number of sequences, tokens of each, lengths of its branches) of every run of sequences of one shape.
Run = tuple[int, int, int, tuple[int, ...]]
Runs = tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class Pack:
    """Sequences through the model at once, those of one shape together, and the scored pairs in them.

    ``tokens`` (N,) and ``positions`` (N,) are int64; the first ``prefix`` of them begin every sequence, of which
    ``shapes`` are the further length and the branches. ``places`` (U,) are the places in ``tokens`` at which logits are
    needed; the i-th pair is ``targets[i]`` as predicted at ``places[inverse[i]]``.
    """

    tokens: Tensor
    positions: Tensor
    prefix: int
    shapes: tuple[tuple[int, tuple[int, ...]], ...]
    places: Tensor
    inverse: Tensor
    targets: Tensor
    rows: tuple[Row, ...]

    @classmethod
    def of(cls, rows: Sequence[Row], prefix: int, device: torch.device) -> Pack:
        """A pack on ``device`` from rows in order of their shape, the first ``prefix`` tokens of which are the same.

        Its pairs are those of the rows, in their order.
        """
        shapes = tuple((len(row.tokens) - prefix, row.branches) for row in rows)
        tokens = [*rows[0].tokens[:prefix], *(token for row in rows for token in row.tokens[prefix:])]
        positions = [*range(prefix), *(place for row in rows for place in row.places[prefix:])]
        starts = itertools.accumulate((length for length, _ in shapes), initial=0)
        # Several targets may be scored at one place (the candidates of a choice): its logits are computed once.
        scored = [
            position if position < prefix else start + position
            for row, start in zip(rows, starts, strict=False)
            for position in row.positions
        ]
        places = sorted(set(scored))
        number = {place: index for index, place in enumerate(places)}
        inverse = [number[place] for place in scored]
        targets = [target for row in rows for target in row.targets]
        one, two, three, four, five = (
            _moved(values, device) for values in (tokens, positions, places, inverse, targets)
        )
        return cls(one, two, prefix, shapes, three, four, five, tuple(rows))

    @property
    def runs(self) -> Runs:
        """Runs of equal shapes; see `Runs`."""
        found, first = [], self.prefix
        for (length, branches), group in groupby(self.shapes):
            count = len(list(group))
            found.append((first, count, length, branches))
            first += count * length
        return tuple(found)


def _moved(values: list[int], device: torch.device) -> Tensor:
    """int64 on ``device``; copied asynchronously from pinned memory to a GPU."""
    tensor = torch.tensor(values, dtype=torch.int64, pin_memory=device.type == "cuda")
    return tensor.to(device, non_blocking=True)
