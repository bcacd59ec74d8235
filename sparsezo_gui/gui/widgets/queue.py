"""The queue of runs: what waits, and in which order."""

from __future__ import annotations

from PySide6.QtWidgets import QListWidget, QWidget

from sparsezo_gui.gui.following import short
from sparsezo_gui.gui.formatting import count
from sparsezo_gui.gui.theme import GRID
from sparsezo_gui.gui.widgets.basic import button, label, row
from sparsezo_gui.gui.widgets.dialogs import Dialog
from sparsezo_gui.gui.widgets.safe_text import safe_name
from sparsezo_gui.gui.workspace import Workspace


class QueueDialog(Dialog):
    """Lists the runs that wait; one can be removed, or the first be started now."""

    def __init__(self, workspace: Workspace, parent: QWidget) -> None:
        super().__init__("Queue", parent)
        self._workspace = workspace
        self._list = QListWidget()
        self._list.setAccessibleName("Runs in the queue")
        self._list.setMinimumSize(64 * GRID, 24 * GRID)
        self._remove = button("Remove", self._take, name="Remove from the queue")
        self._start = button("Start now", self._begin, image="play", name="Start the queue")
        note = "Each run starts when the one before it has finished or failed. If you stop a run, the others wait."
        self.layout_.addWidget(label(note, "hint", wrap=True))
        self.layout_.addWidget(self._list, 1)
        close = button("Close", self.accept, name="Close the queue")
        close.setDefault(True)
        self.layout_.addLayout(row(self._remove, self._start, None, close))
        workspace.queue.changed.connect(self._show)
        workspace.run.changed.connect(self._show)
        self._show()

    def _show(self) -> None:
        self._list.clear()
        for recipe in self._workspace.queue.recipes:
            parts = (recipe.run.name, short(recipe.model.id), short(recipe.data.source))
            self._list.addItem(safe_name(" · ".join((*parts, f"{count(recipe.loop.steps)} steps"))))
        self._list.setCurrentRow(0)
        self._remove.setEnabled(self._list.count() > 0)
        self._start.setEnabled(self._list.count() > 0 and not self._workspace.run.running)

    def _take(self) -> None:
        self._workspace.queue.remove(self._list.currentRow())

    def _begin(self) -> None:
        self._workspace.queue.start_next()
        self.accept()
