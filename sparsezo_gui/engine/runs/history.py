"""A run's history as plain arrays, for plots and lists. Does not need torch."""

from __future__ import annotations

from pathlib import Path

from sparsezo_gui.answers import History
from sparsezo_gui.engine.runs.folder import find, open_resolved
from sparsezo_gui.engine.runs.lineage import lineage_of
from sparsezo_gui.engine.runs.listing import summary
from sparsezo_gui.engine.runs.preparing import RECIPE, is_start
from sparsezo_gui.recipe import load, outcome


def history(folder: str | Path) -> History:
    """Reads the run in ``folder``, if only its recipe because it is still prepared."""
    path = find(folder)
    if is_start(path):
        return History(summary(path), load(path / RECIPE), [], [], "")
    run = open_resolved(path)
    lineage = lineage_of(run)
    parts = [part.steps for part in lineage.segments]
    return History(summary(run.path), run.recipe, parts, outcome.on_lineage(run.events()), lineage.fault)
