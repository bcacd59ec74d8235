"""Text from outside as Qt is given it. Qt reads mark-up in labels and tooltips where the text looks like it, keys in
buttons and menus, and a sign for changes in titles; here is what keeps each of them from it.

Every label is a `Label`; a tooltip is a `tip`, an entry of a menu an `entry`, the title of a window a `title`. Lists,
tables, combo boxes, editors and what is painted show text as it is: there, `named` keeps names from misleading.
"""

from __future__ import annotations

import re
from html import escape

from PySide6.QtCore import QSize, Qt
from PySide6.QtWidgets import QLabel

from sparsezo_gui.plain import printable, readable

LONGEST = 20_000  # characters of a label, which Qt lays out whole
LONGEST_NAME = 500
LONGEST_TIP = 2000
WIDEST = 640  # pixels that a label may ask for
_LONG_WORD = re.compile(r"([^\s/\\-]{48})(?=[^\s/\\-])")
_SPACES = "\n\t\u00a0\u2009\u202f"  # in our own sentences


def cut(text: str, longest: int) -> str:
    """``text``, or its beginning where it is longer."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def named(text: str) -> str:
    """A name of a file, a model, a run or a column, in one line, with what is not seen in it escaped."""
    return printable(cut(text, LONGEST_NAME), keep="\u00a0\u2009\u202f")


def sentence(text: str) -> str:
    """One or several sentences, which may quote names."""
    return printable(cut(text, LONGEST), keep=_SPACES)


def content(text: str, longest: int = LONGEST) -> str:
    """A text that is read for its own sake, such as an answer or an example."""
    return readable(cut(text, longest))


def breakable(text: str) -> str:
    """``text`` with places in very long words where a line may end, since Qt ends none within a word."""
    return _LONG_WORD.sub("\\1\u200b", text)


def tip(text: str) -> str:
    """A tooltip that shows ``text`` as it is, wrapped: mark-up in which all of it is escaped, since Qt would guess."""
    shown = escape(breakable(content(text, LONGEST_TIP)))
    return f'<p style="white-space: pre-wrap">{shown}</p>' if text else ""


def entry(text: str) -> str:
    """The entry of a menu: '&' would make the next letter a key, and a tab what follows it."""
    return named(text).replace("&", "&&")


def title(text: str) -> str:
    """The title of a window, in which '[*]' would stand for changes."""
    return named(text).replace("[*]", "[*][*]")


class Label(QLabel):
    """A label that shows its text as it is, never as mark-up: a sentence, or a text to ``read`` such as an answer.

    However long a word is, it makes no window wider than the screen, and goes on in the next line where lines wrap.
    """

    def __init__(self, text: str = "", read: bool = False) -> None:
        super().__init__()
        self._read, self._text = read, ""
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setText(text)

    def setText(self, text: str) -> None:
        """Shows another text."""
        self._text = content(text) if self._read else sentence(text)
        copied = self.textInteractionFlags() & Qt.TextInteractionFlag.TextSelectableByMouse
        super().setText(self._text if copied else breakable(self._text))

    def text(self) -> str:
        """What is shown, without the places where long words may be broken."""
        return self._text

    def minimumSizeHint(self) -> QSize:
        """See the class."""
        size = super().minimumSizeHint()
        return QSize(min(size.width(), WIDEST), size.height())
