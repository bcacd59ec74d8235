"""Measures the loss of encoded examples, for several perturbations at once.

A choice is scored as in MeZO (arXiv 2305.17333, appendix E): each candidate's mean log-probability per token, and
cross-entropy over the candidates. Anything else is the mean negative log-likelihood of the trained tokens.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
    # All packs are queued before waiting for the first result.
    ran, first = [], 0
    for part in packs_of(examples, model.pack_rows, points):
        pack, pairs = pack_of(model, part, owners, first)
        ran.append((part, log_probabilities(model, pack, points), pairs))
        first += len(part)
    parts = [gathered(*each) for each in ran]
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
    width = max(1, max(example.choices for example in examples))
    slot = torch.tensor([number * width + choice for number, choice in owners], dtype=torch.int64)
    found = found.double().cpu()
    sums = torch.zeros(len(found), len(examples) * width, dtype=torch.float64).index_add_(1, slot, found)
    counts = torch.zeros(len(examples) * width, dtype=torch.float64).index_add_(0, slot, torch.ones(len(slot)).double())
    return _losses(examples, sums.unflatten(1, (-1, width)), counts.view(-1, width))


def _losses(examples: Sequence[Encoded], sums: Tensor, counts: Tensor) -> Measured:
    """Losses from summed log-probabilities (points, examples, width) and the number of tokens in each sum."""
    losses, weights, scores = [], [], []
    for number, example in enumerate(examples):
        if example.choices:
            means = sums[:, number, : example.choices] / counts[number, : example.choices]
            losses.append(-means.log_softmax(dim=1)[:, example.label])
            weights.append(1.0)
            scores.append(means)
        else:
            losses.append(-sums[:, number, 0])
            weights.append(float(counts[number, 0]))
    return Measured(torch.stack(losses, dim=1), torch.tensor(weights, dtype=torch.float64), tuple(scores))
