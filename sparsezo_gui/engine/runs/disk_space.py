"""How much a run will write, and whether the disk has enough space, checked before the start.

Without space for the journal and the mask, a run is refused. Too little space for checkpoints, gradients or an
export only gives a notice: without the first two, a run takes longer to open, and an export can go to another disk.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sparsezo_gui.engine.pretrained.source import ModelSource
from sparsezo_gui.engine.runs.checkpoints import PACKED, spacing
from sparsezo_gui.engine.runs.gradients import RECORD_BYTES
from sparsezo_gui.engine.runs.journal import HEADER_BYTES, record_dtype
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe.registry import SPACES
from sparsezo_gui.sizes import size

SMALL = 1 << 20  # bytes that are not checked: a failing write is reported too, and pauses the run if the recipe says so
VALUE, GRADIENT = 4, 2  # bytes of a tuned value and of its gradient


@dataclass(frozen=True)
class DiskSpace:
    """Bytes on the disk: the minimum for the run itself, those of all checkpoints and exact gradients it may keep, and
    those of an exported model."""

    least: int
    checkpoints: int
    gradients: int
    export: int


def needed(recipe: Recipe, source: ModelSource) -> DiskSpace:
    """Disk space for the run of ``recipe`` from ``source``."""
    spec, steps = recipe.mask.tunable(source.spec), recipe.loop.steps
    tuned = recipe.mask.tuned(spec)
    journal = HEADER_BYTES + steps * record_dtype(recipe.recorded).itemsize
    mask = SPACES[recipe.mask.space].mask_bytes(recipe.mask, spec)
    one = round((PACKED + recipe.state_vectors) * tuned * VALUE)
    budget = recipe.run.gradients * 2**20
    recording = steps if recipe.estimator.exact else sum(map(recipe.mask.due, range(1, steps + 1)))
    gradients = recording * (RECORD_BYTES + GRADIENT * recipe.gradient_size(tuned))
    count = -(-steps // spacing(tuned, again=gradients > budget))
    checkpoints = min(recipe.run.checkpoints * 2**20, count * one)
    export = sum(file.stat().st_size for file in set(source.weights.values()))
    return DiskSpace(journal + mask, checkpoints, min(gradients, budget), export)


def check(recipe: Recipe, source: ModelSource, folder: Path) -> Iterator[str]:
    """Sentences about what will not fit on the disk of ``folder``. Raises `UserError` if the run itself does not."""
    space, free = needed(recipe, source), shutil.disk_usage(folder).free
    if space.least > max(free, SMALL):
        raise UserError(
            f"{folder}: the run needs {size(space.least)} for its journal and mask, but only {size(free)} are free on "
            "this disk. Free some space, or choose a folder on another disk with --run or [run] folder."
        )
    cache = space.checkpoints + space.gradients
    if space.least + cache > max(free, SMALL):
        what = "checkpoints and gradients" if space.gradients else "checkpoints"
        yield (
            f"The {what} of this run may take {size(cache)}, but only {size(free)} are free on the disk of {folder}. "
            f"Free some space, set a smaller [run] {what.replace('and', 'or')}, or choose a folder on another disk."
        )
    elif space.least + cache + space.export > max(free, SMALL):
        yield (
            f"After this run, the disk of {folder} may have too little space for the merged model "
            f"({size(space.export)}; {size(free)} are free now). Export it to another disk, or only the tuned values."
        )
