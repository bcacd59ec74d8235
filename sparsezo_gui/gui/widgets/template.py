"""The prompt template: an editor whose text takes effect as one types, with what is wrong right below it."""

from __future__ import annotations

from PySide6.QtCore import QTimer, Signal
from PySide6.QtWidgets import QPlainTextEdit, QWidget

from sparsezo_gui.gui.theme import GRID
from sparsezo_gui.gui.widgets.basic import column, label, restyle

PAUSE_MS = 400  # in typing, after which the text takes effect
HELP = "Write {{ column }} to insert a column. Leave it empty for the task's own prompt."


class TemplateEdit(QWidget):
    """Follows what is typed after a short pause."""

    typed = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.text = QPlainTextEdit()
        self.text.setAccessibleName("Prompt template")
        self.text.setTabChangesFocus(True)
        self.text.setProperty("role", "code")
        self.text.setPlaceholderText("{{ column }}")
        self.text.setMinimumHeight(10 * GRID)
        self._said = label("", "hint", wrap=True, name="Template problem")
        self._pause = QTimer(self, interval=PAUSE_MS, singleShot=True)
        self._pause.timeout.connect(lambda: self.typed.emit(self.text.toPlainText()))
        self._shown = ""
        self.text.textChanged.connect(self._changed)
        self.setLayout(column(self.text, self._said, spacing=GRID // 2))
        self.show_fault("")

    def show_template(self, text: str) -> None:
        """Shows the recipe's template, unless the user is typing."""
        if not self._pause.isActive() and text != self.text.toPlainText():
            self._shown = text
            self.text.setPlainText(text)

    def show_fault(self, sentence: str) -> None:
        """Shows what is wrong with the text, or the help if nothing is."""
        self._said.setText(sentence[:1].upper() + sentence[1:] or HELP)
        restyle(self._said, role="error" if sentence else "hint")
        restyle(self.text, invalid="true" if sentence else "false")

    def _changed(self) -> None:
        if self.text.toPlainText() != self._shown:
            self._shown = self.text.toPlainText()
            self._pause.start()
