"""Dialogs: recipe as text, learning rate of a running loop, keyboard shortcuts, about."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QDialog, QGridLayout, QMessageBox, QPlainTextEdit, QVBoxLayout, QWidget

from sparsezo_gui import __version__
from sparsezo_gui.errors import UserError
from sparsezo_gui.gui.theme import GRID
from sparsezo_gui.gui.widgets import safe_text
from sparsezo_gui.gui.widgets.basic import button, label, restyle, row
from sparsezo_gui.gui.widgets.edits import NumberEdit
from sparsezo_gui.gui.workspace import Workspace
from sparsezo_gui.recipe import dump


class Dialog(QDialog):
    """A dialog with the usual margins that deletes itself when closed."""

    def __init__(self, title: str, parent: QWidget) -> None:
        super().__init__(parent)
        self.setWindowTitle(safe_text.window_title(title))
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.layout_ = QVBoxLayout(self)
        self.layout_.setContentsMargins(3 * GRID, 2 * GRID, 3 * GRID, 2 * GRID)
        self.layout_.setSpacing(GRID)


class Confirmation(Dialog):
    """Asks before something that cannot be undone; the safe answer is the default."""

    def __init__(self, title: str, sentence: str, word: str, on_accept: Callable[[], object], parent: QWidget) -> None:
        super().__init__(title, parent)
        note = label(sentence, wrap=True, name=title)
        note.setMinimumWidth(48 * GRID)
        keep = button("Cancel", self.reject)
        keep.setDefault(True)
        self.accepted.connect(on_accept)
        self.layout_.addWidget(note)
        self.layout_.addLayout(row(None, keep, button(word, self.accept, name=f"Yes: {word.lower()}")))


class RecipeDialog(Dialog):
    """The whole recipe as TOML text, to read, copy, edit and apply."""

    def __init__(self, workspace: Workspace, parent: QWidget) -> None:
        super().__init__("Recipe as text", parent)
        self._workspace = workspace
        self.resize(88 * GRID, 80 * GRID)
        self.text = QPlainTextEdit(dump(workspace.recipe))
        self.text.setAccessibleName("Recipe text")
        self.text.setProperty("role", "code")
        self.text.setTabChangesFocus(True)
        self._say = label(
            "To run this recipe without the window:  sparsezo train recipe.toml",
            "hint",
            wrap=True,
            name="Recipe problems",
        )
        apply = button("Apply", self.apply, role="primary", name="Apply recipe text")
        copy = button("Copy", self._to_clipboard, image="copy", name="Copy recipe text")
        close = button("Close", self.reject, name="Close recipe text")
        self.layout_.addWidget(self.text, 1)
        self.layout_.addWidget(self._say)
        self.layout_.addLayout(row(copy, None, close, apply))

    def apply(self) -> None:
        """Applies the text, or shows what is wrong with it."""
        try:
            self._workspace.apply_text(self.text.toPlainText())
        except UserError as error:
            self._say.setText(str(error).replace("recipe: ", ""))
            restyle(self._say, role="error")
            return
        self.accept()

    def _to_clipboard(self) -> None:
        QGuiApplication.clipboard().setText(self.text.toPlainText())


class RateDialog(Dialog):
    """A factor for the scheduled learning rate of the running loop."""

    def __init__(self, rate: float, on_accept: Callable[[float], None], parent: QWidget) -> None:
        super().__init__("Change learning rate", parent)
        self._on_accept = on_accept
        self._edit = NumberEdit(whole=False)
        self._edit.setAccessibleName("Rate factor")
        self._edit.setText("0.5")
        self._edit.selectAll()
        self._say = label("", "error", wrap=True)
        text = (
            "Multiplies the scheduled learning rate from the next step on. Go below 1 if the loss jumps, above 1 if it "
            "hardly falls."
        )
        if rate == rate:
            text += f" The current rate is {rate:.3g}."
        note = label(text, wrap=True)
        note.setMinimumWidth(48 * GRID)
        self.layout_.addWidget(note)
        self.layout_.addLayout(row(label("Factor", "heading"), self._edit, None))
        self.layout_.addWidget(self._say)
        change = button("Change", self._take, role="primary")
        change.setDefault(True)  # else Enter would press the first button
        self.layout_.addLayout(row(None, button("Cancel", self.reject), change))

    def _take(self) -> None:
        value = self._edit.value()
        if isinstance(value, str) or not 0 < value <= 1000:
            self._say.setText("Enter a factor above 0 and up to 1\u2009000, such as 0.5 or 2.")
            return
        self._on_accept(float(value))
        self.accept()


def ask_to_close(parent: QWidget, stop: Callable[[], object]) -> None:
    """Asks whether to stop the run and close; the safe answer is the default."""
    text = "A run is in progress. It will stop after the current step, and you can resume it later."
    box = QMessageBox(QMessageBox.Icon.Question, "Close SparseZO", text, QMessageBox.StandardButton.NoButton, parent)
    box.setTextFormat(Qt.TextFormat.PlainText)
    box.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    box.addButton("Stop and close", QMessageBox.ButtonRole.AcceptRole).clicked.connect(lambda: stop())
    keep = box.addButton("Keep running", QMessageBox.ButtonRole.RejectRole)
    box.setDefaultButton(keep)
    box.setEscapeButton(keep)
    box.open()


class ShortcutsDialog(Dialog):
    """Actions and their shortcuts in two columns."""

    def __init__(self, keys: list[tuple[str, str]], parent: QWidget) -> None:
        super().__init__("Keyboard shortcuts", parent)
        grid = QGridLayout()
        grid.setHorizontalSpacing(4 * GRID)
        for line, (title, sequence) in enumerate(keys):
            grid.addWidget(label(title), line, 0)
            grid.addWidget(label(sequence, "heading"), line, 1)
        self.layout_.addLayout(grid)
        self.layout_.addWidget(label("Up and Down change whole numbers by 1, others by a factor of 10.", "hint"))
        self.layout_.addLayout(row(None, button("Close", self.accept)))


class AboutDialog(Dialog):
    """Name, version and a short description."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__("About SparseZO", parent)
        note = label(
            "Sparse zeroth-order fine-tuning of 4-bit language models, on a laptop. If you can chat with a model on "
            "your computer, you can fine-tune it there.\n\nBased on Guo et al., arXiv 2406.02913; Malladi et "
            "al., arXiv 2305.17333; Liu et al., arXiv 2402.15751. Apache License 2.0.",
            wrap=True,
        )
        note.setMinimumWidth(56 * GRID)
        self.layout_.addWidget(label(f"SparseZO {__version__}", "title"))
        self.layout_.addWidget(note)
        self.layout_.addLayout(row(None, button("Close", self.accept)))
