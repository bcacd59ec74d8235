"""Distribution of a mask over its model: counts by decoder block and by kind of weight."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import TYPE_CHECKING

from sparsezo_gui.answers import Cost, MaskReport, Tally
from sparsezo_gui.engine.masks.rule import Search
from sparsezo_gui.recipe.events import Progress
from sparsezo_gui.recipe.registry import SPACES

if TYPE_CHECKING:
    from sparsezo_gui.engine.pretrained.spec import ModelSpec
    from sparsezo_gui.engine.spaces.mask import Mask
    from sparsezo_gui.recipe import Recipe


def report(mask: Mask, spec: ModelSpec, cost: Cost) -> MaskReport:
    """``mask`` in numbers, including blocks and kinds without tuned weights."""
    counts = SPACES[mask.space].counts(mask, spec)
    layers, kinds = dict[str, list[int]](), dict[str, list[int]]()
    for name, (rows, columns) in spec.linears.items():
        tuned = counts.get(name, 0)
        layer = name.removeprefix(f"{spec.blocks}.").partition(".")[0]
        for groups, label in ((layers, layer), (kinds, kind_of(name))):
            sums = groups.setdefault(label, [0, 0])
            sums[0] += tuned
            sums[1] += rows * columns
    return MaskReport(mask.size, mask.eligible, cost, _tallies(layers), _tallies(kinds))


def kind_of(name: str) -> str:
    """The kind of weight, such as 'q_proj' or 'down_proj': the last part of its module's name."""
    return name.removesuffix(".weight").rpartition(".")[2]


def _tallies(groups: dict[str, list[int]]) -> tuple[Tally, ...]:
    return tuple(Tally(label, tuned, weights) for label, (tuned, weights) in groups.items())


def find_mask(recipe: Recipe) -> Generator[Progress, None, MaskReport]:
    """Loads the model and finds the mask that a run of ``recipe`` would find. Closing the generator cancels.

    Raises `UserError`.
    """
    # Imported here, so that reading a report does not load torch.
    from sparsezo_gui.engine import frozen
    from sparsezo_gui.engine.masks.kept import find_once
    from sparsezo_gui.engine.masks.overlap import overlaps

    model = yield from frozen.load(recipe.model)
    model.spec = recipe.mask.tunable(model.spec)
    mask, cost = yield from find_once(recipe.mask, model, Search(recipe.loop.seed, recipe.data), recipe.model)
    return replace(report(mask, model.spec, cost), overlaps=overlaps(mask))
