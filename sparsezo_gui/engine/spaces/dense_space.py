"""The space of all weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar

from sparsezo_gui.answers import Part
from sparsezo_gui.engine.spaces.space import Space

if TYPE_CHECKING:
    from sparsezo_gui.engine.memory import Shape
    from sparsezo_gui.engine.pretrained.spec import ModelSpec
    from sparsezo_gui.engine.spaces.mask import Mask
    from sparsezo_gui.recipe.recipe import Recipe

DRAWN = 40  # bytes for every value of a piece that is being drawn: counters and words in 64 bits


class DenseSpace(Space):
    """All eligible weights, updated in place."""

    values: ClassVar[str] = "sparsezo_gui.engine.spaces.dense:DenseValues"
    in_place: ClassVar[bool] = True
    packs: ClassVar[int] = 2  # since every pack draws directions as long as the model

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
        or what a step moves at once of its ``largest`` entries, with three more copies. To draw takes some more."""
        import torch

        from sparsezo_gui.engine.spaces.dense import MOVED, PIECE

        perturbations, width = recipe.estimator.perturbations(recipe.loop.batch_size), shape.width
        span = (4 * (perturbations + 1) + (4 if recipe.model.bits < 32 else 0) + (width if width < 4 else 0)) * largest
        step = 4 * (perturbations + 3) * min(MOVED, largest)
        drawn = DRAWN * min(PIECE[device_kind] * (torch.get_num_threads() if device_kind == "cpu" else 1), largest)
        return Part("Workspace", max(span, step) + drawn, "A part of a weight at a time, and its random directions.")
