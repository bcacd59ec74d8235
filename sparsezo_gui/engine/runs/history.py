"""A run's history as plain arrays, for plots and lists. Does not need torch."""

from __future__ import annotations

from pathlib import Path

from sparsezo_gui.answers import History
from sparsezo_gui.engine.runs.folder import open_run
from sparsezo_gui.engine.runs.lineage import lineage_of
from sparsezo_gui.engine.runs.listing import summary
from sparsezo_gui.recipe import outcome


def history(folder: str | Path) -> History:
    """Reads the run in ``folder``."""
    run = open_run(folder)
    lineage = lineage_of(run)
    parts = [part.steps for part in lineage.segments]
    return History(summary(run.path), run.recipe, parts, outcome.on_lineage(run.events()), lineage.fault)
