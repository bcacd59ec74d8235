"""Dense tuning: every weight of the blocks is tuned, with the memory of inference.

The tuned values are the weights: one flat vector in the format of the loaded model (fp32, or the checkpoint's 16 bits),
of which each layer's store is a view. The original weights are not copied but read from the checkpoint again when
needed, and no direction as long as the model exists: each piece is drawn where it is used, from its position. In a
forward pass every span of a weight W becomes W + Σ offset·direction in temporary memory, for all perturbations while it
is in the cache, as in Sparse MeZO (arXiv 2402.15751). So W itself is never perturbed, and a run stopped between two
forward passes leaves no trace. MeZO's in-place cycle of +ε, −2ε, +ε (arXiv 2305.17333, algorithm 1) leaves a rounding
error behind. A step updates the values in place, piece by piece, with stochastic rounding for 16 bits (see
`sparsezo_gui.engine.zo.stochastic_rounding`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Self

import torch
from torch import Tensor

from sparsezo_gui.engine import device as devices
from sparsezo_gui.engine.frozen import FrozenModel
from sparsezo_gui.engine.layers.patch import DensePatch
from sparsezo_gui.engine.layers.weights import DenseWeight, FrozenWeight
from sparsezo_gui.engine.pretrained.weights import Checkpoint
from sparsezo_gui.engine.spaces.mask import Mask
from sparsezo_gui.engine.spaces.values import TunedValues
from sparsezo_gui.engine.zo import generator
from sparsezo_gui.engine.zo.estimators import Estimator
from sparsezo_gui.engine.zo.generator import Source
from sparsezo_gui.engine.zo.stochastic_rounding import stochastic_round
from sparsezo_gui.engine.zo.updates import Pieces
from sparsezo_gui.errors import UserError

PIECE = {"cpu": 2**18, "cuda": 2**22}  # values drawn at a time: on a CPU by one thread, to fit its cache
ALIGNED = 128  # directions can be drawn from multiples of this position
MOVED = 2**20  # values updated at a time
BLOCKS = "blocks"
"""Part of a mask: the number of blocks drawn for each step. Other parts are named after a weight and hold the threshold
up to which its values are tuned in a step."""


class DenseValues(TunedValues):
    """All eligible weights, in layer order, or the part of them chosen for a step."""

    def __init__(self, model: FrozenModel, mask: Mask) -> None:
        self.model, self.mask, self.slices = model, mask, {}
        dtype, count = _format(model), 0
        for name, (rows, columns) in model.spec.linears.items():
            self.slices[name] = slice(count, count + rows * columns)
            count += rows * columns
        for layer in model.layers.values():
            layer.frozen = None  # type: ignore[assignment]  # frees the loaded weight before the copy exists
        devices.give_back_freed()
        self.values = torch.empty(count, dtype=dtype, device=model.device)
        self.reset()
        for name, part in self.slices.items():
            model.layers[name].hold(DenseWeight(self.values[part].view(model.spec.linears[name])))
        self.thresholds = {name: part.item() for name, part in mask.parts.items() if name != BLOCKS}

    @property
    def start(self) -> Start:
        """The original values, read piece by piece."""
        return Start(self.model.checkpoint, self.slices, self.values.dtype)

    def reset(self) -> None:
        """See `TunedValues.reset`."""
        start = self.start
        for name, part in self.slices.items():
            self.values[part] = start.weight(name)

    def draw(self, estimator: Estimator, source: Source, batch_size: int) -> tuple[Source, int]:
        """See `TunedValues.draw`: draws nothing yet, returns the source and the number of directions."""
        return source, estimator.perturbations(batch_size)

    def shape(self, estimator: Estimator, drawn: tuple[Source, int], step: int, state: object) -> Directions:
        """See `TunedValues.shape`."""
        source, perturbations = drawn
        return Directions(source, perturbations, self.values, self._tuned(source), self.thresholds, estimator.signs)

    def _tuned(self, source: Source) -> dict[str, slice]:
        """Slices of the values tuned in a step, by weight name."""
        if BLOCKS not in self.mask.parts:
            return self.slices
        spec = self.model.spec
        kept = generator.choice(source.seed, source.step, int(self.mask.parts[BLOCKS]), spec.layers)
        blocks = tuple(f"{spec.blocks}.{number}." for number in kept)
        return {name: part for name, part in self.slices.items() if name.startswith(blocks)}

    def probed(self, directions: Directions, offsets: Tensor) -> AbstractContextManager[None]:
        """See `TunedValues.probed`."""
        # If forward passes run one after the other, each needs only few of the directions.
        perturbations = offsets.any(dim=0).nonzero().view(-1).tolist()
        by_side = offsets[:, perturbations].tolist()
        return self._held({
            name: DensePatch(len(offsets), by_side, partial(self._rows, directions, perturbations, name))
            for name in directions.tuned
        }, len(offsets))  # fmt: skip

    def _rows(self, directions: Directions, perturbations: Sequence[int], name: str, first: int, last: int) -> Tensor:
        columns = self.model.spec.linears[name][1]
        drawn = directions.of(name, first * columns, (last - first) * columns, perturbations)
        return drawn.view(-1, last - first, columns)

    def applied(self) -> AbstractContextManager[None]:
        """See `TunedValues.applied`; the model already holds the values."""
        return self._held({})

    @contextmanager
    def base(self) -> Iterator[None]:
        """See `TunedValues.base`. Each weight is read from the checkpoint when needed, which is slow."""
        now, start = {name: layer.frozen for name, layer in self.model.layers.items()}, self.start
        try:
            for name, layer in self.model.layers.items():
                layer.hold(_OnDisk(start, name, layer.frozen.shape, self.model.device))
            with self.applied():
                yield
        finally:
            for name, layer in self.model.layers.items():
                layer.hold(now[name])

    def changes(self, held: bool = False) -> Changes:
        """See `TunedValues.changes`."""
        return Changes(self)

    def project(self, name: str, gradient: Tensor, x: Tensor) -> Tensor:
        """See `TunedValues.project`."""
        return (gradient.float().mT @ x.float()).flatten()


def weight(model: FrozenModel, name: str) -> Tensor:
    """The original weight (out, in), in the model's format."""
    return model.checkpoint.read(name).to(_format(model))


def _format(model: FrozenModel) -> torch.dtype:
    """The format of the weights. Raises `UserError` if they cannot be changed."""
    stores = [layer.frozen for layer in model.layers.values() if isinstance(layer.frozen, DenseWeight)]
    if len(stores) < len(model.layers):
        raise UserError(
            f"The weights of '{model.source.id}' are quantised, but a [mask] rule that tunes every weight must change "
            "them. Use the 16-bit original of this model, or set [mask] rule = 'sensitive'."
        )
    if any(frozen.device.type != model.device.type for frozen in stores):
        raise UserError(
            f"'{model.source.id}' is too large for {devices.name(model.device)}, but a [mask] rule that tunes every "
            "weight needs all of them there. Set [model] device = 'cpu' or bits = 16, or [mask] rule = 'sensitive'."
        )
    return stores[0].weight.dtype


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

    def __init__(self, tuned: DenseValues) -> None:
        self._tuned, self._start = tuned, tuned.start

    def __getitem__(self, name: str) -> tuple[Tensor, Tensor]:
        values = self._tuned.values[self._tuned.slices[name]].cpu()
        indices = (values != self._start.weight(name)).nonzero().view(-1)
        return indices.int(), values[indices].float()

    def __contains__(self, name: object) -> bool:
        return name in self._tuned.slices

    def __iter__(self) -> Iterator[str]:
        return iter(self._tuned.slices)

    def __len__(self) -> int:
        return len(self._tuned.slices)


@dataclass(frozen=True)
class _OnDisk(FrozenWeight):
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
