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

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from sparsezo_gui.answers import Part
from sparsezo_gui.engine.layers.patch import DensePatch
from sparsezo_gui.engine.spaces.space import Space
from sparsezo_gui.engine.spaces.values import TunedValues
from sparsezo_gui.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sparsezo_gui.engine.frozen import FrozenModel
    from sparsezo_gui.engine.passes import Shape
    from sparsezo_gui.engine.pretrained.spec import ModelSpec
    from sparsezo_gui.engine.spaces.mask import Mask
    from sparsezo_gui.engine.spaces.originals import Changes, Start
    from sparsezo_gui.engine.spaces.pieces import Directions
    from sparsezo_gui.engine.zo.estimators import Estimator
    from sparsezo_gui.engine.zo.generator import Source
    from sparsezo_gui.recipe.recipe import Recipe

DRAWN = 40  # bytes for every value of a piece that is being drawn: counters and words in 64 bits
BLOCKS = "blocks"
"""Part of a mask: the number of blocks drawn for each step. Other parts are named after a weight and hold the threshold
up to which its values are tuned in a step."""


class DenseSpace(Space):
    """All eligible weights, updated in place."""

    in_place: ClassVar[bool] = True
    packs: ClassVar[int] = 2  # since every pack draws directions as long as the model

    def tuned_values(self, model: FrozenModel, mask: Mask) -> TunedValues:
        """See `Space.tuned_values`."""
        return DenseValues(model, mask)

    def refusal(self, recipe: Recipe) -> str:
        """See `Space.refusal`."""
        mask, estimator, update, bits = recipe.mask, recipe.estimator, recipe.update, recipe.model.bits
        if bits < 16:
            return (
                f"[mask] rule = '{mask.rule}' tunes every weight, and {bits}-bit weights cannot be updated in place. "
                "Set [model] bits = 32 or 16, or [mask] rule = 'sensitive', which tunes a few weights of a frozen "
                "model."
            )
        if not estimator.drawable_in_pieces or estimator.per_example or estimator.backwards:
            return (
                f"[estimator] rule = '{estimator.rule}' keeps vectors with one number per tuned weight, which takes "
                f"too much memory with [mask] rule = '{mask.rule}', where every weight is tuned. Set [estimator] rule "
                "= 'two-sided', or [mask] rule = 'sensitive'."
            )
        if update.long or update.decay:
            what = "decay" if update.decay else f"rule = '{update.rule}'"
            return (
                f"[update] {what} needs a copy of all tuned weights, and [mask] rule = '{mask.rule}' tunes every "
                "weight. Set [update] rule = 'scalar-normalised' and decay = 0, or [mask] rule = 'sensitive'."
            )
        if recipe.selection.candidates(recipe.loop.batch_size):
            return (
                f"[selection] rule = '{recipe.selection.rule}' stores vectors with one number per tuned weight, and "
                f"[mask] rule = '{mask.rule}' tunes every weight. Set [selection] rule = 'shuffled', or [mask] rule = "
                "'sensitive'."
            )
        return ""

    def counts(self, mask: Mask, spec: ModelSpec) -> Mapping[str, int]:
        """See `Space.counts`."""
        return {name: math.prod(shape) for name, shape in spec.linears.items()}

    def memory(self, recipe: Recipe, spec: ModelSpec, width: int) -> Iterator[Part]:
        """See `Space.memory`: the values are the model's weights, and directions are drawn where they are used."""
        yield from ()

    def workspace(self, recipe: Recipe, spec: ModelSpec, shape: Shape, largest: int, device_kind: str) -> Part:
        """A span of a weight with its directions, where it is moved to, and its own numbers, in fp32 and as computed;
        or what a step moves at once of its ``largest`` entries, with three more copies; and what drawing takes."""
        import torch

        from sparsezo_gui.engine.spaces.pieces import MOVED, PIECE

        perturbations, width = recipe.estimator.perturbations(recipe.loop.batch_size), shape.width
        span = (4 * (perturbations + 1) + (4 if recipe.model.bits < 32 else 0) + (width if width < 4 else 0)) * largest
        step = 4 * (perturbations + 3) * min(MOVED, largest)
        drawn = DRAWN * min(PIECE[device_kind] * (torch.get_num_threads() if device_kind == "cpu" else 1), largest)
        return Part("Workspace", max(span, step) + drawn, "A part of a weight at a time, and its random directions.")


class DenseValues(TunedValues):
    """All eligible weights, in layer order, or the part of them chosen for a step."""

    def __init__(self, model: FrozenModel, mask: Mask) -> None:
        import torch

        from sparsezo_gui.engine.device import give_back_freed
        from sparsezo_gui.engine.layers.weights import DenseWeight

        super().__init__(model, mask)
        dtype = _format(model)
        for layer in model.tunable.values():
            layer.frozen = None  # type: ignore[assignment]  # frees the loaded weight before the copy exists
        give_back_freed()
        self.values = torch.empty(model.spec.eligible, dtype=dtype, device=model.device)
        self.reset()
        for name, part in self.slices.items():
            model.layers[name].hold(DenseWeight(self.values[part].view(model.spec.linears[name])))
        self.thresholds = {name: part.item() for name, part in mask.parts.items() if name != BLOCKS}

    @property
    def start(self) -> Start:
        """The original values, read piece by piece."""
        from sparsezo_gui.engine.spaces.originals import Start

        return Start(self.model.checkpoint, self.slices, self.values.dtype)

    def reset(self) -> None:
        """See `TunedValues.reset`."""
        start = self.start
        for name, part in self.slices.items():
            self.values[part] = start.weight(name)

    def draw(self, estimator: Estimator, source: Source, batch_size: int) -> tuple[Source, int]:
        """See `TunedValues.draw`: draws nothing yet, returns the source and the number of directions."""
        return source, estimator.perturbations(batch_size)

    def shape(
        self, estimator: Estimator, drawn: tuple[Source, int], step: int, state: object, basis: Tensor | None = None
    ) -> Directions:
        """See `TunedValues.shape`."""
        from sparsezo_gui.engine.spaces.pieces import Directions

        source, perturbations = drawn
        return Directions(source, perturbations, self.values, self._tuned(source), self.thresholds, estimator.signs)

    def _tuned(self, source: Source) -> dict[str, slice]:
        """Slices of the values tuned in a step, by weight name."""
        if BLOCKS not in self.mask.parts:
            return self.slices
        from sparsezo_gui.engine.zo import generator

        spec = self.model.spec
        chosen = generator.choice(source.seed, source.step, int(self.mask.parts[BLOCKS]), len(spec.tunable_blocks))
        blocks = {spec.tunable_blocks[number] for number in chosen}
        return {name: part for name, part in self.slices.items() if spec.block(name) in blocks}

    def probed(self, directions: Directions, offsets: Tensor) -> AbstractContextManager[None]:
        """See `TunedValues.probed`."""
        # If forward passes run one after the other, each needs only few of the directions.
        perturbations = offsets.any(dim=0).nonzero().view(-1).tolist()
        by_point = offsets[:, perturbations].tolist()
        return self._held({
            name: DensePatch(len(offsets), by_point, partial(self._rows, directions, perturbations, name))
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
        from sparsezo_gui.engine.spaces.originals import OnDisk

        now, start = {name: layer.frozen for name, layer in self.model.tunable.items()}, self.start
        try:
            for name, layer in self.model.tunable.items():
                layer.hold(OnDisk(start, name, layer.frozen.shape, self.model.device))
            with self.applied():
                yield
        finally:
            for name, layer in self.model.tunable.items():
                layer.hold(now[name])

    def changes(self, held: bool = False) -> Changes:
        """See `TunedValues.changes`."""
        from sparsezo_gui.engine.spaces.originals import Changes

        return Changes(self.values, self.start)

    def project(self, name: str, gradient: Tensor, x: Tensor) -> Tensor:
        """See `TunedValues.project`."""
        return (gradient.float().mT @ x.float()).flatten()


def weight(model: FrozenModel, name: str) -> Tensor:
    """The original weight (out, in), in the model's format."""
    return model.checkpoint.read(name).to(_format(model))


def _format(model: FrozenModel) -> torch.dtype:
    """The format of the weights. Raises `UserError` if they cannot be changed."""
    from sparsezo_gui.engine.layers.weights import DenseWeight

    stores = [layer.frozen for layer in model.tunable.values() if isinstance(layer.frozen, DenseWeight)]
    if len(stores) < len(model.tunable):
        raise UserError(
            f"The weights of '{model.source.id}' are quantised, but a [mask] rule that tunes every weight must change "
            "them. Use the 16-bit original of this model, or set [mask] rule = 'sensitive'."
        )
    if any(frozen.device.type != model.device.type for frozen in stores):
        from sparsezo_gui.engine import device as devices

        raise UserError(
            f"'{model.source.id}' is too large for {devices.name(model.device)}, but a [mask] rule that tunes every "
            "weight needs all of them there. Set [model] device = 'cpu' or bits = 16, or [mask] rule = 'sensitive'."
        )
    return stores[0].weight.dtype
