"""A run's past as plain arrays, for plots and lists. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sparsezo_gui.engine.runs import journal
from sparsezo_gui.engine.runs.folder import RunSummary, open_run, summary
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe.events import Event


@dataclass(frozen=True)
class History:
    """``steps`` is a structured array (step, tokens, loss, rate, time, seconds, memory, slopes); ``fault`` a sentence.
    """

    run: RunSummary
    recipe: Recipe
    steps: np.ndarray
    events: list[Event]
    fault: str


def history(folder: str | Path) -> History:
    """Reads the run in ``folder``."""
    run = open_run(folder)
    found = journal.read(run.journal) if run.journal.exists() else None
    steps = found.records if found else np.zeros(0, journal.record_dtype(1))
    return History(summary(run.path), run.recipe, steps, run.events(), found.fault if found else "")
