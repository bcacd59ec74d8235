"""In place of the plots before the first step: what will run, or how far its preparation is."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import Qt

from sparsezo_gui.gui import formatting
from sparsezo_gui.gui.widgets.basic import Card, add, label
from sparsezo_gui.gui.widgets.next_run import fault_of
from sparsezo_gui.gui.workspace import Workspace


class Outlook(Card):
    """A title and a few lines."""

    def __init__(self, workspace: Workspace) -> None:
        super().__init__()
        self._workspace = workspace
        self._title = label("", "figure", name="Run summary")
        self._text = label("", "dim", wrap=True, name="What happens next")
        for part in (self._title, self._text):
            part.setAlignment(Qt.AlignmentFlag.AlignHCenter)
        add(self.box, None, self._title, self._text, None)

    def refresh(self) -> None:
        """Shows the run that is being prepared, else the recipe."""
        workspace, record, recipe = self._workspace, self._workspace.run.record, self._workspace.recipe
        if workspace.run.running and record is not None:
            loading = "Waiting for the engine to load…" if workspace.engine_state == "loading" else "Starting…"
            self._title.setText("Preparing the run")
            now, overall = record.progress, record.overall
            self._text.setText(formatting.progress(now, overall) if now and overall else loading)
            return
        why = workspace.start_blocker or workspace.faults.first
        if not why and fault_of(workspace)[0]:
            why = "Not ready to start"  # the bar above says why
        elif not why and record is not None and record.state == "failed":
            why = "The run did not start"
        density = getattr(recipe.mask, "density", None)
        part = f", {100 * density:g} % of the weights" if density else ""
        self._title.setText(why or "Ready to start")
        self._text.setText(
            f"{recipe.model.id} in {recipe.model.bits} bits, tuned on {Path(recipe.data.source).name}\n"
            f"{type(recipe.mask).title}{part}, {formatting.count(recipe.loop.steps)} steps of "
            f"{recipe.loop.batch_size} examples"
        )
