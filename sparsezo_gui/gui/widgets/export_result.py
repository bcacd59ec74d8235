"""What was exported: the result of its check, where it is, what to do with it, and a place to try it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from PySide6.QtCore import QUrl, Signal
from PySide6.QtGui import QDesktopServices, QGuiApplication
from PySide6.QtWidgets import QFrame, QLineEdit, QVBoxLayout, QWidget

from sparsezo_gui.answers import Exported, Pushed
from sparsezo_gui.gui import formatting
from sparsezo_gui.gui.run_requests import AskExport, ExportRun
from sparsezo_gui.gui.theme import GRID, icon, theme
from sparsezo_gui.gui.widgets.basic import button, clear, column, label, row
from sparsezo_gui.gui.widgets.dialogs import Confirmation
from sparsezo_gui.gui.widgets.safe_text import safe_sentence
from sparsezo_gui.gui.wording import grouped_numbers
from sparsezo_gui.gui.workspace import Workspace


def bytes_of(path: Path) -> int:
    """Size of a file, or of the files in a folder; 0 if there is none."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(each.lstat().st_size for each in files if each.is_file())


class Copyable(QWidget):
    """A command, and a button that copies it."""

    def __init__(self, title: str, command: str) -> None:
        super().__init__()
        text = label(safe_sentence(command), "code", wrap=True, name=f"Command for {title}", read=True)
        copy = button("Copy", lambda: QGuiApplication.clipboard().setText(command), role="flat", image="copy",
                      name=f"Copy the command for {title}")  # fmt: skip
        line = row(label(title, "heading"), text, copy)
        line.setStretch(1, 1)
        self.setLayout(line)


class ExportResult(QFrame):
    """A green card, hidden until something was exported."""

    deleted = Signal()
    refused = Signal(str)  # why something cannot be done

    def __init__(self, workspace: Workspace) -> None:
        super().__init__()
        self.setProperty("role", "good")
        self.setAccessibleName("Exported")
        self._workspace = workspace
        self._exported: Exported | None = None
        self._folder = Path()
        self._image = label()
        self._said = label("", wrap=True, name="Export result", read=True)
        self._where = label("", "dim", wrap=True, name="Where the export is", read=True)
        self._open = button("Open folder", self._reveal, image="folder", name="Open the folder of the export")
        self._delete = button("Delete…", self._ask_to_delete, name="Delete the export")
        self._commands = QVBoxLayout()
        self._commands.setContentsMargins(0, 0, 0, 0)
        self._prompt = QLineEdit()
        self._prompt.setAccessibleName("Prompt for the exported file")
        self._prompt.setPlaceholderText("Try it: type a prompt like those in the run's examples")
        self._prompt.textChanged.connect(self.refresh)
        self._ask = button("Ask the exported file", self.ask, name="Ask the exported file")
        self._prompt.returnPressed.connect(self.ask)
        self._answer = label("", wrap=True, name="Answer of the exported file", read=True)
        head = row(self._image, self._said, self._open, self._delete)
        head.setStretch(1, 1)
        line = row(self._prompt, self._ask)
        line.setStretch(0, 1)
        whole = column(head, self._where, self._commands, line, self._answer, spacing=GRID)
        whole.setContentsMargins(2 * GRID, 2 * GRID, 2 * GRID, 2 * GRID)
        self.setLayout(whole)
        workspace.on(AskExport, call=self.refresh)
        workspace.blocker_changed.connect(self.refresh)
        theme().changed.connect(self._paint)
        self._paint()
        self.hide()

    def _paint(self) -> None:
        self._image.setPixmap(icon("evaluate", "good").pixmap(20, 20))

    def show_export(
        self, exported: Exported | None, pushed: Pushed | None, commands: Callable[[str], dict[str, str]]
    ) -> None:
        """Shows the last export, if there is one and it still exists; ``commands`` serve what is at a place."""
        out = Path(exported.out) if exported is not None else None
        if exported is None or out is None or not out.exists():
            self._exported = None
            self.hide()
            return
        request = self._workspace.of(ExportRun).answered_request
        self._said.setText(result(exported, pushed))
        if exported is not self._exported:
            self._exported = exported
            self._folder = request.folder if isinstance(request, ExportRun) else Path()
            self._workspace.of(AskExport).forget()
            self._where.setText(safe_sentence(f"{out} · {formatting.size(bytes_of(out))}"))
            clear(self._commands)
            for title, command in commands(str(out)).items():
                self._commands.addWidget(Copyable(title, command))
        self.refresh()
        self.show()

    def refresh(self) -> None:
        """Follows the question to the exported file."""
        channel, blocker = self._workspace.of(AskExport), self._workspace.blocker
        self._ask.setEnabled(not blocker and bool(self._prompt.text().strip()))
        self._ask.setToolTip(blocker or "Loads what was written and lets it answer.")
        text = ""
        if channel.busy:
            text = f"{channel.progress.stage}…" if channel.progress else "Loading what was written…"
        elif channel.problem is not None:
            text = channel.problem.message
        elif channel.answer is not None:
            text = channel.answer or "It gave an empty answer."
        self._answer.setText(text)
        self._answer.setVisible(bool(text))

    def ask(self) -> None:
        """Loads what was exported and lets it answer."""
        if self._exported is not None and self._ask.isEnabled():
            self._workspace.of(AskExport).forget()
            self._workspace.ask(AskExport(self._folder, Path(self._exported.out), self._prompt.text()))
            self.refresh()

    def _reveal(self) -> None:
        if self._exported is not None:
            out = Path(self._exported.out)
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(out if out.is_dir() else out.parent)))

    def _ask_to_delete(self) -> None:
        if self._exported is not None:
            out = Path(self._exported.out)
            what = f"{out} will be deleted{' with all that is in it' if out.is_dir() else ''}"
            sentence = f"{what}: {formatting.size(bytes_of(out))}. The run stays, and can be exported again."
            Confirmation("Delete the export", sentence, "Delete", partial(self._remove, out), self).open()

    def _remove(self, out: Path) -> None:
        try:
            shutil.rmtree(out) if out.is_dir() and not out.is_symlink() else out.unlink(missing_ok=True)
        except OSError as error:
            self.refused.emit(f"{out}: cannot be deleted ({error.strerror}). Close what uses it, then try again.")
            return
        self.hide()
        self.deleted.emit()


def result(exported: Exported, pushed: Pushed | None) -> str:
    """The result of the last export in sentences."""
    told = [f"Step {formatting.count(exported.step)} exported and checked.", *exported.notes]
    if pushed is not None:
        seen = "only you can see it" if pushed.private else "everybody can see it"
        told.append(f"Uploaded to {pushed.address}; {seen}.")
    return grouped_numbers(" ".join(told))
