"""Runs that start one after another, as for a night: prepared recipes, kept in the settings."""

from __future__ import annotations

from PySide6.QtCore import QObject, QSettings, QTimer, Signal

from sparsezo_gui.errors import UserError
from sparsezo_gui.gui.kept import texts
from sparsezo_gui.gui.run_control import RunControl
from sparsezo_gui.recipe import Recipe, dump, loads

KEY = "queue"
NEXT_AFTER = ("done", "failed")  # a run that the user stopped, or closed the window on, is followed by none


class Queue(QObject):
    """The next one starts when a run has finished or failed; ``run`` starts them."""

    changed = Signal()

    def __init__(self, run: RunControl, store: QSettings) -> None:
        super().__init__()
        self._run, self._store = run, store
        self._was_running = False
        self.recipes: list[Recipe] = []
        for text in texts(store, KEY):
            try:
                self.recipes.append(loads(text))
            except UserError:
                continue  # from another version of SparseZO
        run.changed.connect(self._follow)

    def add(self, recipe: Recipe) -> None:
        """Adds a run at the end."""
        self.recipes.append(recipe)
        self._keep()

    def remove(self, place: int) -> None:
        """Removes the run at a place."""
        del self.recipes[place]
        self._keep()

    def start_next(self) -> None:
        """Starts the first run of the queue, if none is in progress."""
        if self.recipes and not self._run.running:
            recipe = self.recipes.pop(0)
            self._keep()
            self._run.start(recipe)

    def _keep(self) -> None:
        self._store.setValue(KEY, [dump(recipe) for recipe in self.recipes])
        self.changed.emit()

    def _follow(self) -> None:
        running = self._run.running and not self._run.inspecting
        record = self._run.record
        if self._was_running and not running and record is not None and record.state in NEXT_AFTER:
            QTimer.singleShot(0, self.start_next)  # after all others have seen the end of this one
        self._was_running = running
