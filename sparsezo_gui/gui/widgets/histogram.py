"""A small histogram of lengths with the truncation limit, and a bar chart of shares."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QWidget

from sparsezo_gui.gui.theme import GRID, colours, theme
from sparsezo_gui.gui.widgets.safe_text import safe_name


class Histogram(QWidget):
    """Bars of (low, high, count); bars beyond ``limit`` are hatched."""

    def __init__(self, name: str, unit: str) -> None:
        super().__init__()
        self.setAccessibleName(name)
        self.setMinimumHeight(12 * GRID)
        self._unit = unit
        self._bars: list[tuple[float, float, int]] = []
        self._limit = 0.0
        theme().changed.connect(self.update)

    def sizeHint(self) -> QSize:
        """About three times as wide as high."""
        return QSize(36 * GRID, 12 * GRID)

    def show_bars(self, bars: Sequence[tuple[float, float, int]], limit: float) -> None:
        """Shows the bars and the limit."""
        self._bars, self._limit = list(bars), limit
        if bars:
            top = max(bars, key=lambda bar: bar[2])
            self.setAccessibleDescription(
                f"From {bars[0][0]:.0f} to {bars[-1][1]:.0f} {self._unit}; most examples have "
                f"{top[0]:.0f} to {top[1]:.0f}."
            )
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Bars on a baseline, with both ends of the range below."""
        if not self._bars:
            return
        c, painter = colours(), QPainter(self)
        line = painter.fontMetrics().height()
        floor = self.height() - line - 4
        low, high = self._bars[0][0], max(self._bars[-1][1], self._bars[0][0] + 1)
        most = max(count for _, _, count in self._bars) or 1
        scale = self.width() / (high - low)
        for left, right, count in self._bars:
            height = max((floor - 2) * count / most, 1.0 if count else 0.0)
            box = QRectF((left - low) * scale, floor - height, max((right - left) * scale - 1, 1), height)
            cut = bool(self._limit) and left >= self._limit
            if cut:
                painter.fillRect(box, Qt.BrushStyle.BDiagPattern)
            painter.fillRect(box, QColor(c.warning) if cut else QColor(c.accent))
        painter.setPen(QColor(c.strong_border))
        painter.drawLine(QPointF(0, floor), QPointF(self.width(), floor))
        painter.setPen(QColor(c.dim))
        text = QRectF(0, floor + 4, self.width(), line)
        painter.drawText(text, Qt.AlignmentFlag.AlignLeft, f"{low:.0f}")
        painter.drawText(text, Qt.AlignmentFlag.AlignRight, f"{high:.0f} {self._unit}")
        if low < self._limit < high:
            place = (self._limit - low) * scale
            painter.setPen(QPen(QColor(c.warning), 1, Qt.PenStyle.DashLine))
            painter.drawLine(QPointF(place, 0), QPointF(place, floor))


class ShareBars(QWidget):
    """Horizontal bars of (name, count), such as the class balance."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.setAccessibleName(name)
        self._shares: list[tuple[str, int]] = []
        theme().changed.connect(self.update)

    def show_shares(self, shares: Sequence[tuple[str, int]]) -> None:
        """Shows at most eight bars; the last one sums up the rest."""
        shares = sorted(((safe_name(name), count) for name, count in shares), key=lambda share: -share[1])
        if len(shares) > 8:
            shares = [*shares[:7], (f"{len(shares) - 7} others", sum(count for _, count in shares[7:]))]
        self._shares = list(shares)
        self.setAccessibleDescription("; ".join(f"{name} {count}" for name, count in shares))
        self.setFixedHeight(max(len(shares), 1) * 3 * GRID)
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Name, bar, count and percentage."""
        c, painter = colours(), QPainter(self)
        total = sum(count for _, count in self._shares) or 1
        metrics = painter.fontMetrics()
        names = min(max((metrics.horizontalAdvance(n) for n, _ in self._shares), default=0) + GRID, self.width() // 3)
        figures = metrics.horizontalAdvance("100 000  100 %") + GRID
        most = max((count for _, count in self._shares), default=1) or 1
        room = max(self.width() - names - figures, 1)
        for index, (name, count) in enumerate(self._shares):
            top, height = index * 3 * GRID, 3 * GRID
            painter.setPen(QColor(c.text))
            middle = Qt.AlignmentFlag.AlignVCenter
            painter.drawText(
                QRectF(0, top, names - GRID // 2, height),
                middle,
                metrics.elidedText(name, Qt.TextElideMode.ElideRight, names - GRID // 2),
            )
            bar = QRectF(names, top + GRID * 0.75, room * count / most, height - 1.5 * GRID)
            painter.fillRect(bar, QColor(c.accent))
            painter.setPen(QColor(c.dim))
            painter.drawText(
                QRectF(names + bar.width() + GRID, top, figures, height),
                middle,
                f"{count:,}  {100 * count / total:.0f} %".replace(",", "\u2009"),
            )
