"""What an estimator measures: the loss of a batch at perturbed values, by forward passes of the frozen model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sparsezo_gui.engine.data.encode import Encoded
from sparsezo_gui.engine.frozen import FrozenModel
from sparsezo_gui.engine.gradient import gradient
from sparsezo_gui.engine.layers.patch import Owners
from sparsezo_gui.engine.objective import Measured, count_tokens, points_at_once, weight_of
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
        found = []
        for part in offsets.split(self._at_once(len(offsets))):
            owners = Owners()
            with self.tuned.per_example(self.directions, part, owners):
                measured = self.objective.measure(self.model, self.batch, len(part), owners, self.base)
            found.append(_by_example(measured))
        return torch.cat(found)

    def gradient(self, offsets: Tensor | None = None, blocks: int | None = None) -> tuple[Tensor, float]:
        """See `Probe.gradient`."""
        with self.tuned.applied() if offsets is None else self.tuned.probed(self.directions, offsets[None]):
            return gradient(self.model, self.tuned, self.objective, self.batch, blocks, self.base)

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

    def _measured(self, offsets: Tensor) -> list[Measured]:
        found = []
        for part in offsets.split(self._at_once(len(offsets))):
            with self.tuned.probed(self.directions, part):
                found.append(self.objective.measure(self.model, self.batch, len(part), base=self.base))
        return found

    def _at_once(self, points: int) -> int:
        longest = max(map(count_tokens, self.batch))
        return points_at_once(points, longest, self.model.pack_rows, self.compute)


def _by_example(measured: Measured) -> Tensor:
    """Losses fp64 (points, examples), weighted so that their mean is the batch loss."""
    return measured.sums * (len(measured.weights) / measured.weights.sum())
