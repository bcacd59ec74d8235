"""Parts side by side, or below one another where there is no room."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QSize
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QBoxLayout, QGridLayout, QWidget

from sparsezo_gui.gui.theme import GRID, theme
from sparsezo_gui.gui.widgets.basic import Part, add, clear, row

NARROW = 700  # pixels of a page below which it has one column
PLOTTED = 900  # the same of a page whose plots need width
AROUND = 9 * GRID  # pixels of a page beside the content of a card


class Sides(QWidget):
    """Stacks its parts when it is narrower than ``stacked`` pixels (0: than they need)."""

    def __init__(self, *parts: Part, stacked: int = 0, spacing: int) -> None:
        super().__init__()
        self._stacked = stacked
        self.box = QBoxLayout(QBoxLayout.Direction.LeftToRight, self)
        self.box.setContentsMargins(0, 0, 0, 0)
        self.box.setSpacing(spacing)
        add(self.box, *parts)

    def minimumSizeHint(self) -> QSize:
        """As wide as the widest part: the others go below it."""
        parts = [self.box.itemAt(place) for place in range(self.box.count())]
        widths = [part.minimumSize().width() for part in parts if part is not None]
        return QSize(max(widths, default=0), super().minimumSizeHint().height())

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Decides the direction."""
        super().resizeEvent(event)
        parts = [self.box.itemAt(place) for place in range(self.box.count())]
        needed = sum(part.minimumSize().width() for part in parts if part is not None)
        needed = self._stacked or needed + self.box.spacing() * (len(parts) - 1)
        narrow = event.size().width() < needed
        self.box.setDirection(QBoxLayout.Direction.TopToBottom if narrow else QBoxLayout.Direction.LeftToRight)


def halves(first: Sequence[Part], second: Sequence[Part], spacing: int) -> Sides:
    """Two groups on one line, or one below the other."""
    result = Sides(row(*first, None, spacing=spacing), row(*second, None, spacing=spacing), spacing=spacing)
    result.box.setStretch(1, 1)
    return result


class Columns(QWidget):
    """Parts in at most ``most`` columns of at least ``least`` pixels; in one on a narrow page."""

    def __init__(self, most: int, least: int, horizontal: int, vertical: int) -> None:
        super().__init__()
        self._most, self._least, self._across = most, least, most
        self._parts: Sequence[QWidget] = ()
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setHorizontalSpacing(horizontal)
        self._grid.setVerticalSpacing(vertical)

    def fill(self, parts: Sequence[QWidget]) -> None:
        """Shows other parts, row by row."""
        clear(self._grid)
        self._parts = parts
        self._place()

    def minimumSizeHint(self) -> QSize:
        """As wide as the widest part: the others go below it."""
        widest = max((part.minimumSizeHint().width() for part in self._parts), default=0)
        return QSize(widest, super().minimumSizeHint().height())

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Decides how many are side by side."""
        super().resizeEvent(event)
        width, gap = event.size().width(), self._grid.horizontalSpacing()
        fitting = int((width + gap) / (self._least * theme().text_scale + gap))
        across = 1 if width < NARROW - AROUND else max(1, min(self._most, fitting))
        if across != self._across:
            self._across = across
            self._place()

    def _place(self) -> None:
        for place in range(self._most):
            self._grid.setColumnStretch(place, int(place < self._across))
        for index, part in enumerate(self._parts):
            self._grid.addWidget(part, index // self._across, index % self._across)
