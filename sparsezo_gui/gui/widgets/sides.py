"""Parts side by side, or one below the other where there is no room."""

from __future__ import annotations

from PySide6.QtCore import QSize
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QBoxLayout, QWidget

from sparsezo_gui.gui.widgets.basic import Part, add


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
