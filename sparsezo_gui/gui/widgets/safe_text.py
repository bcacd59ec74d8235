"""Makes untrusted text safe to display. Qt interprets mark-up in labels and tooltips, shortcuts in buttons and menus,
and a modification marker in window titles; the functions here prevent that.

Use `Label` for labels, `tooltip` for tooltips, `menu_text` for menu entries, `window_title` for window titles. Lists,
tables, combo boxes, editors and painted text show text as it is: for those, `safe_name` makes misleading characters
visible.
"""

from __future__ import annotations

import re
from html import escape
from math import ceil
from typing import Any

from PySide6.QtCore import QPointF, QSize, Qt
from PySide6.QtGui import QPainter, QPaintEvent, QTextLayout
from PySide6.QtWidgets import QLabel, QStyle

from sparsezo_gui.gui.widgets.prose import lay_out
from sparsezo_gui.plain import printable, readable

LONGEST = 20_000  # characters of a label, since Qt lays out all of it
LONGEST_NAME = 500
LONGEST_TIP = 2000
WIDEST = 640  # pixels, upper limit of a label's minimum width
KEPT = 8  # layouts of a label
_LONG_WORD = re.compile(r"([^\s/\\-]{48})(?=[^\s/\\-])")
_PERCENT = re.compile(r"(?<=\d) %")
_SPACES = "\n\t\u00a0\u2009\u202f"  # used in our own sentences


def cut(text: str, longest: int) -> str:
    """``text``, truncated to ``longest`` characters."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def safe_name(text: str) -> str:
    """The name of a file, model, run or column on one line, with invisible characters escaped."""
    return printable(cut(text, LONGEST_NAME), keep="\u00a0\u2009\u202f")


def safe_sentence(text: str) -> str:
    """One or more sentences, which may quote names."""
    return printable(cut(text, LONGEST), keep=_SPACES)


def safe_text(text: str, longest: int = LONGEST) -> str:
    """Text to read, such as an answer or an example."""
    return readable(cut(text, longest))


def breakable(text: str) -> str:
    """``text`` with line-break opportunities in very long words, because Qt never wraps within a word, and with none
    between a number and its %."""
    return _PERCENT.sub("\u00a0%", _LONG_WORD.sub("\\1\u200b", text))


def tooltip(text: str) -> str:
    """A wrapped tooltip that shows ``text`` as it is: as escaped HTML, because Qt would guess the format."""
    shown = escape(breakable(safe_text(text, LONGEST_TIP)))
    return f'<p style="white-space: pre-wrap">{shown}</p>' if text else ""


def menu_text(text: str) -> str:
    """Text for a menu entry, in which '&' and a tab would introduce a shortcut."""
    return safe_name(text).replace("&", "&&")


def window_title(text: str) -> str:
    """Text for a window title, in which '[*]' would be the modification marker."""
    return safe_name(text).replace("[*]", "[*][*]")


class Label(QLabel):
    """A label that shows its text as it is, never as mark-up: a sentence, or text to ``read`` such as an answer.

    Long words never make a window wider than the screen; they continue on the next line if the label wraps.
    """

    def __init__(self, text: str = "", read: bool = False) -> None:
        super().__init__()
        self._read, self._text = read, ""
        self._laid: dict[tuple[Any, ...], tuple[QTextLayout, float]] = {}
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setText(text)

    def setText(self, text: str) -> None:
        """Changes the text."""
        self._text = safe_text(text) if self._read else safe_sentence(text)
        copied = self.textInteractionFlags() & Qt.TextInteractionFlag.TextSelectableByMouse
        super().setText(self._text if copied else breakable(self._text))

    def text(self) -> str:
        """The displayed text, without the line-break opportunities."""
        return self._text

    def minimumSizeHint(self) -> QSize:
        """See the class."""
        size = super().minimumSizeHint()
        return QSize(min(size.width(), WIDEST), size.height())

    @property
    def _is_prose(self) -> bool:
        """Whether it may have several lines; what can be selected is Qt's to lay out."""
        return self.wordWrap() and self.textInteractionFlags() == Qt.TextInteractionFlag.LinksAccessibleByMouse

    def sizeHint(self) -> QSize:
        """As wide as Qt has it, and as high as the lines are then."""
        size = super().sizeHint()
        return QSize(size.width(), self.heightForWidth(size.width())) if self._is_prose else size

    def heightForWidth(self, width: int) -> int:
        """The height of all lines."""
        if not self._is_prose:
            return super().heightForWidth(width)
        edges = self.contentsMargins()
        _, height = self._lay_out(width - edges.left() - edges.right())
        return ceil(height) + edges.top() + edges.bottom()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Lines with room between them."""
        if not self._is_prose:
            super().paintEvent(event)
            return
        painter, room = QPainter(self), self.contentsRect()
        layout, height = self._lay_out(room.width())
        free = 0.0 if self.alignment() & Qt.AlignmentFlag.AlignTop else room.height() - height
        top = room.top() + max(free, 0.0) / (1 if self.alignment() & Qt.AlignmentFlag.AlignBottom else 2)
        painter.setPen(self.palette().color(self.foregroundRole()))
        layout.draw(painter, QPointF(room.left(), top))

    def _lay_out(self, width: int) -> tuple[QTextLayout, float]:
        """The lines, kept for the last few widths: Qt asks for heights dozens of times when a page is shown."""
        align = QStyle.visualAlignment(self.layoutDirection(), self.alignment())
        align &= Qt.AlignmentFlag.AlignHorizontal_Mask
        text, font, width = super().text(), self.font(), max(width, 1)
        key = text, font.key(), width, align, self.logicalDpiY()
        if key not in self._laid:
            if len(self._laid) == KEPT:
                self._laid.clear()
            self._laid[key] = lay_out(text, font, width, align)
        return self._laid[key]
