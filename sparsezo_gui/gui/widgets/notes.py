"""The notes of a run: a text that is saved with a button, or when another run is selected."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtWidgets import QPlainTextEdit, QWidget

from sparsezo_gui.answers import RunSummary
from sparsezo_gui.gui.run_requests import SaveNotes
from sparsezo_gui.gui.theme import GRID
from sparsezo_gui.gui.widgets.basic import button, column, label, row
from sparsezo_gui.gui.workspace import Workspace
from sparsezo_gui.plain import readable


class Notes(QWidget):
    """Shows the notes of one run; what was typed is never lost."""

    def __init__(self, workspace: Workspace) -> None:
        super().__init__()
        self._workspace = workspace
        self._path = ""  # of the run whose notes are in the editor
        self._text = QPlainTextEdit()
        self._text.setAccessibleName("Notes")
        self._text.setPlaceholderText("Notes about this run")
        self._text.setTabChangesFocus(True)
        self._text.setMinimumHeight(5 * GRID)
        self._save = button("Save notes", self._keep, name="Save notes")
        self._text.document().modificationChanged.connect(self._save.setEnabled)
        self._save.setEnabled(False)
        self.setLayout(column(label("Notes", "heading"), self._text, row(None, self._save)))

    def show_run(self, run: RunSummary) -> None:
        """Shows the notes of a run, unless other ones are being typed for it."""
        document = self._text.document()
        if self._path != run.path and document.isModified():
            self._keep()
        self._path = run.path
        if not document.isModified():
            self._text.setPlainText(readable(run.notes))
            document.setModified(False)

    def _keep(self) -> None:
        if self._path:
            self._workspace.ask(SaveNotes(Path(self._path), self._text.toPlainText()))
        self._text.document().setModified(False)
