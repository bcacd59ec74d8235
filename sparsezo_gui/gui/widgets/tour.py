"""The tour: from the bundled model to a tuned one and its export, on the pages themselves; then the user's own data."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QFileDialog, QFrame, QVBoxLayout

from sparsezo_gui.errors import UserError
from sparsezo_gui.gui.formatting import count
from sparsezo_gui.gui.saving import save, with_suffix
from sparsezo_gui.gui.theme import GRID
from sparsezo_gui.gui.widgets.basic import button, label, row
from sparsezo_gui.gui.workspace import Workspace
from sparsezo_gui.recipe import Recipe, load

TOURED = "toured"
"""The setting that says whether the tour was shown."""
EXAMPLE = (("text", "label"), ("My parcel has not arrived yet.", "delivery"), ("I was charged twice.", "billing"),
           ("The app closes when I open it.", "technical"))  # fmt: skip
"""The rows of the file to fill in."""


@dataclass(frozen=True)
class Stop:
    """A step of the tour on a ``page``."""

    page: str
    title: str
    text: str


STOPS = (
    Stop("model", "A model", "This small model comes with the program, so nothing is downloaded. Its badge says that "
         "tuning it fits this computer. Later, choose any model here, on this computer or on the Hub."),
    Stop("data", "Examples", "It will learn which team a customer's message is for. Below the rows you see the exact "
         "text that the model gets; it learns the underlined part."),
    Stop("method", "A way to tune", "Each card is a way to tune, with its memory and time. The one in use needs only "
         "forward passes, like a chat does. Leave it for now."),
    Stop("run", "The run", "Start it: in a minute or two, the loss falls and more answers are right. You can pause, "
         "stop and resume at any time."),
    Stop("export", "Use it", "The model is tuned. Choose a format, press Export, and it works in other programs. To "
         "ask it something here first, open the chat with Ctrl+J."),
    Stop("data", "Your own data", "Now with your examples: save a file to fill in, one example a row, and press Reload "
         "when it is filled. Any CSV, JSON or Parquet file works as well."),
)  # fmt: skip


class Tour(QFrame):
    """Hidden until it begins. The recipe from before comes back when it ends, unless own data were chosen."""

    go_to = Signal(str)
    start = Signal()

    def __init__(self, workspace: Workspace) -> None:
        super().__init__()
        self.setProperty("role", "next")
        self._workspace, self._stop, self._started = workspace, 0, False
        self._before: tuple[Recipe, Path | None] | None = None
        self._title = label("", "heading", name="Tour")
        self._text = label("", wrap=True, name="What the tour says")
        self._fault = label("", "error", wrap=True, name="Tour problem")
        self._save = button("Save a file to fill in…", self._save_file, image="file")
        self._next = button("Next", self._go_on, role="primary", name="Next step of the tour")
        self._skip = button("Skip the tour", self.end)
        line = row(self._title, self._text, self._skip, self._save, self._next, spacing=2 * GRID)
        line.setStretch(1, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(3 * GRID, GRID, 3 * GRID, GRID)
        layout.addLayout(line)
        layout.addWidget(self._fault)
        workspace.run.changed.connect(self._run_changed)
        self.hide()

    def begin(self) -> None:
        """Starts with the first step and the bundled recipe."""
        self._workspace.store.setValue(TOURED, True)
        self._before = self._workspace.recipe, self._workspace.recipe_path
        self._workspace.set_recipe(load("starter"))
        self.show()
        self._show(0)

    def end(self) -> None:
        """Ends at any step."""
        self.hide()
        if self._before is not None:
            self._workspace.set_recipe(*self._before)
            self._before = None

    def _show(self, number: int) -> None:
        self._stop, self._started = number, False
        stop, last = STOPS[number], number == len(STOPS) - 1
        self._title.setText(f"{stop.title} ({count(number + 1)} of {count(len(STOPS))})")
        self._text.setText(stop.text)
        self._next.setText("Start" if stop.page == "run" else "Finish" if last else "Next")
        self._next.setEnabled(True)
        self._save.setVisible(last)
        self._skip.setVisible(not last)
        self._fault.hide()
        self.go_to.emit(stop.page)

    def _go_on(self) -> None:
        if STOPS[self._stop].page == "run" and not self._started:
            self._started = True
            self._next.setText("Next")
            self.start.emit()
        elif self._stop + 1 < len(STOPS):
            self._show(self._stop + 1)
        else:
            self.end()

    def _run_changed(self) -> None:
        """Once the run is done, its export is next."""
        record = self._workspace.run.record
        if self._started and self.isVisible() and record is not None and record.state == "done":
            self._show(self._stop + 1)

    def _save_file(self) -> None:
        place = str(Path.home() / "examples.csv")
        chosen, _ = QFileDialog.getSaveFileName(self, "Save a file to fill in", place, "CSV table (*.csv)")
        if not chosen:
            return
        path = with_suffix(chosen, ".csv")
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(EXAMPLE)
        try:
            save(path, text.getvalue().encode())
        except UserError as error:
            self._fault.setText(str(error))
            self._fault.show()
            return
        self._before = None
        own = {"source": str(path), "task": "choice", "columns": {}, "answers": [],
               "template": "{{ text }}"}  # fmt: skip
        self._workspace.change("data", **own)
        self._text.setText("Fill in the file with your examples, then press Reload here and Start above.")
        self._save.hide()
