"""What an estimator measures: the loss of a batch at perturbed values, by forward passes of the frozen model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sparsezo_gui.engine.data.encode import Encoded
from sparsezo_gui.engine.frozen import FrozenModel
from sparsezo_gui.engine.gradient import gradient
from sparsezo_gui.engine.layers.patch import Owners
from sparsezo_gui.engine.objective import Measured, Passes, Place, count_tokens, points_at_once, weight_of
from sparsezo_gui.engine.objectives import Objective
from sparsezo_gui.engine.spaces.values import TunedValues


@dataclass(frozen=True)
class ModelProbe:
    """See `sparsezo_gui.engine.zo.estimators.Probe`.

    Perturbations run together, through each weight while it is in the cache, as far as the longest example allows.
    """

    model: FrozenModel
    tuned: TunedValues
    objective: Objective
    batch: Sequence[Encoded]
    directions: Any
    compute: str
    base: Tensor | None = None
    """What the objective compares the batch against."""
    shared: bool = False
    """Whether ``directions`` are those of the next step, which all workers know, so that they share the passes."""

    @torch.no_grad()
    def losses(self, offsets: Tensor) -> Tensor:
        """See `Probe.losses`."""
        return torch.cat([part.loss for part in self._measured(offsets)])

    @torch.no_grad()
    def examples(self, offsets: Tensor) -> Tensor:
        """See `Probe.examples`."""
        return torch.cat([_by_example(part) for part in self._measured(offsets)])

    @torch.no_grad()
    def isolated_losses(self, offsets: Tensor) -> Tensor:
        """See `Probe.isolated_losses`."""
        if not self.batch:
            return torch.zeros(len(offsets), 0, dtype=torch.float64)
        return torch.cat([part.sums / part.weights for part in self._measured(offsets)])

    @torch.no_grad()
    def own_losses(self, offsets: Tensor) -> Tensor:
        """See `Probe.own_losses`."""
        return torch.cat([_by_example(part) for part in self._measured(offsets, own=True)])

    def gradient(self, offsets: Tensor | None = None, blocks: int | None = None) -> tuple[Tensor, float]:
        """See `Probe.gradient`."""
        asked = {"at": "current" if offsets is None else "probed", "parts": [] if offsets is None else [offsets[None]]}
        with self.tuned.applied() if offsets is None else self.tuned.probed(self.directions, offsets[None]):
            return gradient(
                self.model, self.tuned, self.objective, self.batch, blocks, self.base, asked if self.shared else None
            )

    def part(self, chosen: Sequence[int]) -> ModelProbe:
        """See `Probe.part`."""
        base = None if self.base is None else self.base[list(chosen)]
        return replace(self, batch=[self.batch[place] for place in chosen], base=base)

    @property
    def lengths(self) -> list[int]:
        """See `Probe.lengths`."""
        return [example.length for example in self.batch]

    @property
    def weights(self) -> list[int]:
        """See `Probe.weights`."""
        return list(map(weight_of, self.batch))

    def _measured(self, offsets: Tensor, own: bool = False) -> list[Measured]:
        """Losses at ``offsets``, in parts: along all directions or, if ``own``, of each example along its own one."""
        parts = offsets.split(self._at_once(len(offsets)))
        if self.objective.writes:
            return [self._written(part) for part in parts]
        places = places_along(self.tuned, self.directions, parts, own)
        asked = {"at": "own" if own else "probed", "parts": list(parts)} if self.shared else None
        found = Passes(self.model, self.batch, places, asked).measured()
        return [self.objective.losses_of(each, self.batch, self.base) for each in found]

    def _written(self, offsets: Tensor) -> Measured:
        with self.tuned.probed(self.directions, offsets):
            return self.objective.measure(self.model, self.batch, len(offsets), base=self.base)

    def _at_once(self, points: int) -> int:
        longest = max(map(count_tokens, self.batch))
        return points_at_once(points, longest, self.model.pack_rows, self.compute)


def places_along(tuned: TunedValues, directions: Any, parts: Sequence[Tensor], own: bool) -> tuple[Place, ...]:
    """Where the losses of ``parts`` of the offsets are measured; see `ModelProbe`."""
    if not own:
        return tuple(Place(len(part), partial(tuned.probed, directions, part)) for part in parts)
    owners = [Owners() for _ in parts]
    return tuple(
        Place(len(part), partial(tuned.per_example, directions, part, each), each)
        for part, each in zip(parts, owners, strict=True)
    )


def _by_example(measured: Measured) -> Tensor:
    """Losses fp64 (points, examples), weighted so that their mean is the batch loss."""
    return measured.sums * (len(measured.weights) / measured.weights.sum())
