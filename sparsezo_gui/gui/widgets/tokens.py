"""What the model will see: the text of examples; trained tokens are bold, underlined and highlighted."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtGui import QColor, QFont, QTextCharFormat, QTextCursor
from PySide6.QtWidgets import QTextEdit

from sparsezo_gui.gui.formatting import count
from sparsezo_gui.gui.theme import GRID, colours, theme
from sparsezo_gui.gui.widgets.safe_text import safe_text


class TokenView(QTextEdit):
    """Read-only; each example starts with a line that gives its token count if known."""

    def __init__(self) -> None:
        super().__init__()
        self.setReadOnly(True)
        self.setTabChangesFocus(True)
        self.setAccessibleName("What the model will see")
        self.setProperty("role", "code")
        self.setMinimumHeight(24 * GRID)
        self.setPlaceholderText("No examples yet.")
        self._examples: list[list[tuple[str, bool]]] = []
        self._left_out: Sequence[int] = ()
        self._counted = True
        theme().changed.connect(self._write)

    def show_examples(
        self, examples: Sequence[Sequence[tuple[str, bool]]], counted: bool, left_out: Sequence[int]
    ) -> None:
        """Shows examples as pieces (text, trained), which are tokens if ``counted``; ``left_out`` is the number of
        characters missing from the middle of each."""
        self._counted, self._left_out = counted, left_out
        self._examples = [[(safe_text(str(text)), bool(trained)) for text, trained in example] for example in examples]
        self._write()

    def _write(self) -> None:
        c = colours()
        plain, head, mark = QTextCharFormat(), QTextCharFormat(), QTextCharFormat()
        plain.setForeground(QColor(c.text))
        head.setForeground(QColor(c.dim))
        mark.setForeground(QColor(c.text))
        mark.setBackground(QColor(c.accent_soft))
        mark.setFontUnderline(True)
        mark.setUnderlineColor(QColor(c.accent))
        mark.setFontWeight(QFont.Weight.Bold)
        self.clear()
        cursor = QTextCursor(self.document())
        cursor.beginEditBlock()
        for index, example in enumerate(self._examples):
            trained = sum(is_trained for _, is_trained in example)
            gap = "\n\n" if index else ""
            detail = f": {count(len(example))} tokens, {count(trained)} trained" if self._counted else ""
            if left_out := self._left_out[index] if index < len(self._left_out) else 0:
                detail = f": {count(left_out)} characters in the middle are hidden"
            cursor.insertText(f"{gap}Example {index + 1}{detail}\n", head)
            for text, is_trained in example:
                # A trained line break would be invisible without a symbol.
                cursor.insertText(text.replace("\n", "⏎\n") if is_trained else text, mark if is_trained else plain)
        cursor.endEditBlock()
        self.moveCursor(QTextCursor.MoveOperation.Start)
