"""A run's history as plain arrays, for plots and lists. Does not need torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sparsezo_gui.engine.runs.folder import open_run
from sparsezo_gui.engine.runs.lineage import lineage_of
from sparsezo_gui.engine.runs.listing import RunSummary, summary
from sparsezo_gui.recipe import Recipe, outcome
from sparsezo_gui.recipe.events import Event


@dataclass(frozen=True)
class History:
    """``steps`` has one structured array (step, tokens, loss, rate, time, seconds, memory, slopes) for each run of the
    lineage, from the root on; ``events`` are those that still count; ``fault`` is a sentence."""

    run: RunSummary
    recipe: Recipe
    steps: list[np.ndarray]
    events: list[Event]
    fault: str


def history(folder: str | Path) -> History:
    """Reads the run in ``folder``."""
    run = open_run(folder)
    lineage = lineage_of(run)
    parts = [part.steps for part in lineage.segments]
    return History(summary(run.path), run.recipe, parts, outcome.on_lineage(run.events()), lineage.fault)
