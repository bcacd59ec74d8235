"""The losses that the tried learning rates reached."""

from __future__ import annotations

import math

from PySide6.QtCore import QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QWidget

from sparsezo_gui.answers import RateReport
from sparsezo_gui.answers.method import short_rate
from sparsezo_gui.gui.theme import GRID, colours, theme


class RateChart(QWidget):
    """A dot for each rate with its loss, evenly spaced, with the best one filled; the initial loss is a dashed line.
    Rates that diverged are crosses at the top."""

    def __init__(self) -> None:
        super().__init__()
        self.setAccessibleName("Losses by learning rate")
        self.setMinimumHeight(14 * GRID)
        self._report: RateReport | None = None
        theme().changed.connect(self.update)

    def sizeHint(self) -> QSize:
        """Wide and low."""
        return QSize(60 * GRID, 16 * GRID)

    def show_report(self, report: RateReport) -> None:
        """Shows the longest of the short runs."""
        self._report = report
        parts = (f"{short_rate(each.rate)}: {_words(each.loss)}" for each in report.last)
        self.setAccessibleDescription(f"Initial loss {report.base:.3g}. {'; '.join(parts)}.")
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """See the class."""
        report = self._report
        if report is None or not report.last:
            return
        c, painter = colours(), QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        line, left = painter.fontMetrics().height(), painter.fontMetrics().horizontalAdvance("loss 0.000") + GRID
        frame = QRectF(left, line / 2, self.width() - left - 4 * GRID, self.height() - 1.5 * line - GRID)
        known = [rung.loss for rung in report.last if rung.loss is not None and math.isfinite(rung.loss)]
        low, high = min([report.base, *known]), report.base
        span = (high - low) or 1.0
        low, high = low - 0.1 * span, high + 0.5 * span

        def height(loss: float) -> float:
            return frame.bottom() - frame.height() * (loss - low) / (high - low)

        painter.setPen(QPen(QColor(c.dim), 1, Qt.PenStyle.DashLine))
        painter.drawLine(QPointF(frame.left(), height(report.base)), QPointF(frame.right(), height(report.base)))
        painter.setPen(QColor(c.dim))
        beside = QRectF(0, height(report.base) - line / 2, left - GRID / 2, line)
        painter.drawText(beside, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter, f"loss {report.base:.3g}")
        apart = frame.width() / max(len(report.last), 1)
        for index, rung in enumerate(report.last):
            x = frame.left() + (index + 0.5) * apart
            painter.setPen(QColor(c.dim))
            below = QRectF(x - apart / 2, frame.bottom() + GRID / 2, apart, line)
            painter.drawText(below, Qt.AlignmentFlag.AlignHCenter, short_rate(rung.rate))
            loss, top = rung.loss, frame.top() + 4
            diverged = loss is None or not math.isfinite(loss) or loss > high
            y = top if loss is None or diverged else height(loss)
            text = "diverged" if diverged else f"{loss:.3g}"
            aside = QRectF(x + GRID, y - line / 2, painter.fontMetrics().horizontalAdvance(text) + GRID, line)
            painter.fillRect(aside, QColor(c.base))  # on the dashed line
            painter.drawText(aside, Qt.AlignmentFlag.AlignCenter, text)
            painter.setPen(QPen(QColor(c.accent), 2))
            if diverged:
                painter.setPen(QPen(QColor(c.error), 2))
                painter.drawLine(QPointF(x - 4, top - 4), QPointF(x + 4, top + 4))
                painter.drawLine(QPointF(x - 4, top + 4), QPointF(x + 4, top - 4))
                continue
            painter.setBrush(QColor(c.accent if rung is report.best else c.base))
            painter.drawEllipse(QPointF(x, y), 4, 4)


def _words(loss: float | None) -> str:
    return "diverged" if loss is None or not math.isfinite(loss) else f"{loss:.3g}"
