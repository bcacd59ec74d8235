"""The dialog for sharing: the contents of the file, and whether to include examples."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from PySide6.QtWidgets import QCheckBox, QFileDialog, QPlainTextEdit, QWidget

from sparsezo_gui.answers import Content
from sparsezo_gui.gui.formatting import file_name
from sparsezo_gui.gui.run_requests import ListContents
from sparsezo_gui.gui.theme import GRID
from sparsezo_gui.gui.widgets.basic import button, label, row
from sparsezo_gui.gui.widgets.dialogs import Dialog
from sparsezo_gui.gui.workspace import Workspace


def file_lines(contents: Iterable[Content]) -> str:
    """One line per file in a shared run."""
    return "\n".join(f"{each.file}: {each.holds}" for each in contents)


class ShareDialog(Dialog):
    """Lists the files to share before anything is written; ``on_accept`` is called with the file and the choice."""

    def __init__(
        self, workspace: Workspace, folder: Path, name: str, on_accept: Callable[[Path, bool], None], parent: QWidget
    ) -> None:
        super().__init__(f"Share {name}", parent)
        self._workspace, self._folder, self._name, self._on_accept = workspace, folder, name, on_accept
        self._list = QPlainTextEdit(readOnly=True)
        self._list.setAccessibleName("Files to share")
        self._list.setTabChangesFocus(True)
        self._list.setMinimumSize(72 * GRID, 24 * GRID)
        self._examples = QCheckBox("Include the best and worst examples, which quote rows of your data")
        self._examples.setAccessibleName("Share examples")
        self._examples.toggled.connect(self._show)
        self._save = button("Save…", self._ask, role="primary", name="Save the shared run")
        self._save.setDefault(True)  # else Enter would press the first button
        self.layout_.addWidget(label("The file will contain:", "heading"))
        self.layout_.addWidget(self._list, 1)
        self.layout_.addWidget(self._examples)
        self.layout_.addLayout(row(None, button("Cancel", self.reject, name="Cancel sharing"), self._save))
        workspace.on(ListContents, call=self._show)
        workspace.of(ListContents).forget()
        workspace.ask(ListContents(folder))
        self._show()

    def _show(self) -> None:
        channel = self._workspace.of(ListContents)
        found = channel.answer if channel.answered_request == ListContents(self._folder) else None
        if found is not None:
            self._list.setPlainText(file_lines(found.with_examples if self._examples.isChecked() else found.contents))
        else:
            self._list.setPlainText(channel.problem.message if channel.problem else "Listing the files…")
        self._examples.setVisible(found is not None and found.contents != found.with_examples)
        self._save.setEnabled(found is not None)

    def _ask(self) -> None:
        name = file_name(self._name) or "run"
        text, _ = QFileDialog.getSaveFileName(self, "Share", str(Path.home() / f"{name}.zip"), "Runs (*.zip)")
        if text:
            self._on_accept(Path(text), self._examples.isChecked())
            self.accept()
