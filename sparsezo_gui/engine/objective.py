"""Measures the loss of encoded examples, for several perturbations at once.

A choice is scored as in MeZO (arXiv 2305.17333, appendix E): each candidate's mean log-probability per token, and
cross-entropy over the candidates. Anything else is the mean negative log-likelihood of the trained tokens.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sparsezo_gui.engine.data.encode import Encoded, Row
from sparsezo_gui.engine.forward import log_probabilities, packs
from sparsezo_gui.engine.frozen import FrozenModel
from sparsezo_gui.engine.layers.patch import Owners
from sparsezo_gui.engine.pack import Pack

WORTHWHILE = 0.1  # share of a pack's tokens from which a common prefix is computed once


@dataclass(frozen=True, slots=True)
class Measured:
    """Losses of examples: ``sums`` fp64 (points, examples), each over ``weights`` (examples,) tokens, or 1 for choices.

    ``scores`` holds each example's candidates, (points, choices) mean log-probability, and is empty without choices.
    """

    sums: Tensor
    weights: Tensor
    scores: tuple[Tensor, ...]

    @property
    def loss(self) -> Tensor:
        """Mean loss in nats, fp64 (points,)."""
        return self.sums.sum(dim=1) / self.weights.sum()


def measure(model: FrozenModel, examples: Sequence[Encoded], points: int = 1, owners: Owners | None = None) -> Measured:
    """Losses of ``examples`` for the ``points`` held by the model's layers.

    If the values differ between examples, the layers read from ``owners`` which example a row belongs to.
    """
    (found,) = Passes(model, examples, (Place(points, nullcontext, owners),), model.workers.here).measured()
    return found


class Place(NamedTuple):
    """Where losses are measured: inside ``held()``, the model's layers hold ``points`` points; see `measure`."""

    points: int
    held: Callable[[], AbstractContextManager[None]]
    owners: Owners | None = None


@dataclass(frozen=True)
class Passes:
    """Forward passes of ``examples`` at ``places``. One pass, of a pack at a place, is a unit: workers share these, and
    how many workers there are does not change a bit of any. ``asked`` describes the places to other workers; without
    it, this process makes all passes. See `sparsezo_gui.engine.workers`.
    """

    model: FrozenModel
    examples: Sequence[Encoded]
    places: tuple[Place, ...]
    asked: dict[str, Any] | None = None

    @cached_property
    def packs(self) -> list[list[list[Encoded]]]:
        """The packs of each place."""
        return [list(packs_of(self.examples, self.model.pack_rows, place.points)) for place in self.places]

    @cached_property
    def units(self) -> list[tuple[int, int]]:
        """Numbers of the place and of its pack, in order."""
        return [(place, pack) for place, packs in enumerate(self.packs) for pack in range(len(packs))]

    @property
    def rows(self) -> list[int]:
        """Rows of each unit, tokens × points."""
        return [
            self.places[place].points * sum(map(count_tokens, self.packs[place][pack])) for place, pack in self.units
        ]

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Shape of what each unit gives."""
        return [
            (self.places[place].points, len(self.packs[place][pack]) * width_of(self.packs[place][pack]))
            for place, pack in self.units
        ]

    @torch.no_grad()
    def run(self, units: range) -> list[Tensor]:
        """Makes the passes ``units``: of each, the summed log-probabilities of candidates, see `summed`."""
        found: list[Tensor] = []
        for place, group in groupby(units, lambda unit: self.units[unit][0]):
            points, held, owners = self.places[place]
            with held():
                # All packs are queued before waiting for the first result.
                ran = []
                for _, number in (self.units[unit] for unit in group):
                    part, first = self.packs[place][number], sum(map(len, self.packs[place][:number]))
                    pack, pairs = pack_of(self.model, part, owners, first)
                    ran.append((part, log_probabilities(self.model, pack, points), pairs))
                found += [summed(*each) for each in ran]
        return found

    def measured(self) -> list[Measured]:
        """The likelihoods at each place, from passes that all workers make."""
        found = iter(self.model.workers.run(self))
        return [joined([_losses(part, next(found)) for part in packs]) for packs in self.packs]


def joined(parts: Sequence[Measured]) -> Measured:
    """Losses of several packs."""
    return Measured(
        torch.cat([part.sums for part in parts], dim=1),
        torch.cat([part.weights for part in parts]),
        tuple(scores for part in parts for scores in part.scores),
    )


def points_at_once(points: int, longest: int, rows: int, compute: str) -> int:
    """How many of ``points`` run together in ``rows`` rows, so that an example of ``longest`` tokens fits.

    In int8 all of them do: the others are quantised as differences from the first, which must be present.
    """
    return points if compute == "int8" else min(points, max(1, rows // longest))


def packs_of(examples: Sequence[Encoded], rows: int, points: int) -> Iterator[list[Encoded]]:
    """Splits examples, in order, so that no forward pass has more than ``rows`` rows; one example is never split."""
    part: list[Encoded] = []
    tokens = 0
    for example in examples:
        size = count_tokens(example)
        if part and (tokens + size) * points > rows:
            yield part
            part, tokens = [], 0
        part.append(example)
        tokens += size
    if part:
        yield part


def count_tokens(example: Encoded) -> int:
    """Tokens that a packed forward pass of ``example`` processes."""
    return sum(len(row.tokens) for row in example.joined)


def count_scored(example: Encoded) -> int:
    """Positions of ``example`` at which logits are needed."""
    return sum(len(set(row.positions)) for row in example.joined)


def weight_of(example: Encoded) -> int:
    """Weight of an example in the loss of its batch: 1 for a choice, or its number of trained tokens."""
    return 1 if example.choices else sum(len(row.targets) for row in example.rows)


def pack_of(
    model: FrozenModel, examples: Sequence[Encoded], owners: Owners | None = None, first: int = 0
) -> tuple[Pack, list[tuple[int, int]]]:
    """The pack of ``examples``, and the example and candidate of each of its pairs.

    Rows of one shape are put together; where they begin alike and that is worth it, they share their beginning. The
    pack's examples are those from the ``first`` on.
    """
    joined = packs(model.module)
    rows = sorted(
        ((row, number) for number, each in enumerate(examples) for row in (each.joined if joined else each.rows)),
        key=lambda item: (len(item[0].tokens), item[0].branches),
    )
    pairs = [(number, choice) for row, number in rows for choice in row.choices]
    ordered = [row for row, _ in rows]
    if owners is not None:
        lengths = [len(row.tokens) if joined else len(ordered[-1].tokens) for row in ordered]  # padded to the longest
        ends = list(itertools.accumulate(lengths))
        owners.stretches = [
            (end - length, end, first + number) for end, length, (_, number) in zip(ends, lengths, rows, strict=True)
        ]
    alone = not joined or owners is not None or model.prefix is not None
    return Pack.of(ordered, 0 if alone else _shared(ordered), model.device), pairs


def _shared(rows: Sequence[Row]) -> int:
    """Length of the rows' common prefix if sharing it saves a worthwhile part of the pack; else 0."""
    most = min(min(row.trunk, len(row.tokens) - 1) for row in rows)
    first, *others = (row.tokens[:most] for row in rows)
    alike = next((place for place in range(most) if any(row[place] != first[place] for row in others)), most)
    spared = alike * len(others)
    return alike if spared >= WORTHWHILE * sum(len(row.tokens) for row in rows) else 0


def gathered(examples: Sequence[Encoded], found: Tensor, owners: list[tuple[int, int]]) -> Measured:
    """Losses of a pack's examples from log p of its pairs, ``found`` (points, P), and their ``owners`` (see
    `pack_of`). Differentiable."""
    return _losses(examples, summed(examples, found, owners))


def summed(examples: Sequence[Encoded], found: Tensor, owners: list[tuple[int, int]]) -> Tensor:
    """Summed log p of each candidate of each example, fp64 (points, examples · width), on the CPU."""
    width = width_of(examples)
    slot = torch.tensor([number * width + choice for number, choice in owners], dtype=torch.int64)
    found = found.double().cpu()
    return torch.zeros(len(found), len(examples) * width, dtype=torch.float64).index_add_(1, slot, found)


def width_of(examples: Sequence[Encoded]) -> int:
    """Most candidates of an example; 1 without choices."""
    return max(1, max(example.choices for example in examples))


def _losses(examples: Sequence[Encoded], summed: Tensor) -> Measured:
    """Losses from `summed` log-probabilities."""
    width = width_of(examples)
    sums = summed.unflatten(1, (-1, width))
    losses, weights, scores = [], [], []
    for number, example in enumerate(examples):
        owners = torch.tensor([choice for row in example.rows for choice in row.choices], dtype=torch.int64)
        counts = torch.bincount(owners, minlength=width).double()
        if example.choices:
            means = sums[:, number, : example.choices] / counts[: example.choices]
            losses.append(-means.log_softmax(dim=1)[:, example.label])
            weights.append(1.0)
            scores.append(means)
        else:
            losses.append(-sums[:, number, 0])
            weights.append(float(counts[0]))
    return Measured(torch.stack(losses, dim=1), torch.tensor(weights, dtype=torch.float64), tuple(scores))
