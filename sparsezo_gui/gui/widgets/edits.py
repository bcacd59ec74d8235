"""Editors of what is written as text: a text, several texts, or a number."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import Qt
from PySide6.QtGui import QColor, QKeyEvent, QPainter, QPaintEvent
from PySide6.QtWidgets import QLineEdit

from sparsezo_gui.gui import formatting
from sparsezo_gui.gui.theme import GRID, colours


class TextEdit(QLineEdit):
    """A text; base of editors of what is written as text."""

    def value(self) -> Any:
        """What was written."""
        return self.text()

    def show_value(self, value: Any) -> None:
        """Shows a value. Leaves the text alone while the user is typing."""
        if not self.isModified() and self.written(value) != self.text():
            self.setText(self.written(value))

    def written(self, value: Any) -> str:
        """A value as text."""
        return str(value)


class ListEdit(TextEdit):
    """Several texts, separated by commas."""

    def value(self) -> tuple[str, ...]:
        """The texts that are not empty."""
        return tuple(word.strip() for word in self.text().split(",") if word.strip())

    def written(self, value: tuple[str, ...]) -> str:
        """See the class."""
        return ", ".join(value)


class NumberEdit(TextEdit):
    """A number such as 2000, 1e-4 or 0.1 %; arrow keys change whole numbers by 1 and others by a factor of 10."""

    def __init__(self, whole: bool, unit: str = "") -> None:
        super().__init__()
        self.whole, self.unit = whole, unit

    def paintEvent(self, event: QPaintEvent) -> None:
        """Writes the unit inside, at the right end."""
        room = self.fontMetrics().horizontalAdvance(self.unit) + GRID if self.unit else 0
        if room != self.textMargins().right():
            self.setTextMargins(0, 0, room, 0)
        super().paintEvent(event)
        if self.unit:
            painter = QPainter(self)
            painter.setPen(QColor(colours().dim))
            place = self.rect().adjusted(0, 0, -GRID - 2, 0)
            painter.drawText(place, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter, self.unit)

    def value(self) -> int | float | str:
        """The number, or the text if it is not a number."""
        text = self.text().strip().replace(" ", "").replace("\u2009", "")
        try:
            if text.endswith("%"):
                return float(f"{float(text[:-1]) / 100:.12g}")
            return int(text) if self.whole else float(text)
        except ValueError:
            try:
                number = float(text)
            except ValueError:
                return self.text()
            return int(number) if number.is_integer() else number

    def written(self, value: float) -> str:
        """See `formatting.number`."""
        return formatting.number(value)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """See the class."""
        direction = {Qt.Key.Key_Up: 1, Qt.Key.Key_Down: -1}.get(Qt.Key(event.key()), 0)
        value = self.value()
        if not direction or isinstance(value, str):
            super().keyPressEvent(event)
            return
        self.setText(formatting.number(value + direction if self.whole else float(f"{value * 10.0**direction:.12g}")))
        self.setModified(True)
        self.editingFinished.emit()
