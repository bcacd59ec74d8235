"""What a plot is made of: levels, marks, its title, axes, and the area of the curves. pyqtgraph comes without types."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import pyqtgraph as pg
from PySide6.QtCore import QRectF, Qt, Signal
from PySide6.QtGui import QColor, QFont, QFontMetricsF
from PySide6.QtWidgets import QApplication, QGraphicsSceneResizeEvent

from sparsezo_gui.gui.formatting import count
from sparsezo_gui.gui.theme import colours, theme
from sparsezo_gui.gui.widgets.safe_text import tooltip

LEAST = 4  # pixels of a rectangle to zoom into; a smaller one was a click


def text_points() -> float:
    """Size of titles, legends and marks; plots have less room than pages for larger text."""
    return 9 * min(theme().text_scale, 1.25)


def text_size() -> str:
    """The same in a style sheet."""
    return f"{text_points():g}pt"


class Level(pg.InfiniteLine):  # type: ignore[misc]
    """A horizontal line, dashed or dotted, so that it is recognisable without colour; ``name`` is written on it."""

    def __init__(self, dashed: bool, name: str = "") -> None:
        options = {"position": 0.99, "anchors": [(1, 1), (1, 1)]}
        super().__init__(angle=0, label=name or None, labelOpts=options)
        self._dashed = dashed
        self._log = False
        self._value = math.nan
        self.hide()

    def show_level(self, value: float, name: str = "") -> None:
        """Moves the line; hides it if the value is NaN."""
        self._value = value
        self.setVisible(value == value and (not self._log or value > 0))
        if name:
            self.label.setFormat(name)
        if self.isVisible() or value == value:
            self.setValue(math.log10(value) if self._log and value > 0 else value)

    def set_log(self, on: bool) -> None:
        """Follows the axis."""
        self._log = on

    def repaint_all(self) -> None:
        """Applies the theme's colours."""
        style = Qt.PenStyle.DashLine if self._dashed else Qt.PenStyle.DotLine
        self.setPen(pg.mkPen(colours().dim, width=1, style=style))
        if getattr(self, "label", None) is not None:
            self.label.setColor(colours().dim)


class Mark(pg.InfiniteLine):  # type: ignore[misc]
    """A dotted line at a step where something happened, with a word for it on top."""

    def __init__(self, step: float, word: str, role: str) -> None:
        colour = getattr(colours(), role)
        super().__init__(
            step, angle=90, pen=pg.mkPen(colour, width=1, style=Qt.PenStyle.DotLine), label=word,
            labelOpts={"position": 0.95, "color": colour, "fill": colours().base, "anchors": [(0, 0.5), (1, 0.5)]},
        )  # fmt: skip


class Title(pg.LabelItem):  # type: ignore[misc]
    """A label that does not widen its column, because all plots in a row have equal width: it shows the first of its
    texts that fits, or else the last one, elided."""

    def __init__(self, parent: pg.PlotItem) -> None:
        self._texts: tuple[str, ...] = ("",)
        self._room = math.nan
        super().__init__("", parent=parent)

    def updateMin(self) -> None:
        """See the class."""
        super().updateMin()
        self.setMinimumWidth(0)
        self.setPreferredWidth(0)

    def show_first_of(self, *texts: str) -> None:
        """Shows one of these texts, the longest first."""
        self._texts = texts
        self._fit()

    def resizeEvent(self, event: QGraphicsSceneResizeEvent | None) -> None:
        """Shows the text that fits now."""
        super().resizeEvent(event)
        if self.size().width() not in (self._room, 0):
            self._fit()

    def _fit(self) -> None:
        self._room, font = self.size().width(), QFont(QApplication.font())
        font.setPointSizeF(text_points())
        metrics, room = QFontMetricsF(font), self._room - 2 * self.item.document().documentMargin()
        fitting = (text for text in self._texts if metrics.horizontalAdvance(text) <= room)
        text = next(fitting, "") or metrics.elidedText(self._texts[-1], Qt.TextElideMode.ElideRight, room)
        self.setToolTip("" if text == self._texts[0] else tooltip(self._texts[0]))
        self.setText(escape(text), color=colours().text, size=text_size(), justify="left")  # pyqtgraph writes HTML


class Axis(pg.AxisItem):  # type: ignore[misc]
    """Steps as counts, as many as fit side by side, and shares in percent."""

    percent = False

    def tickSpacing(self, low: float, high: float, size: float) -> list[tuple[float, float]]:
        """Distances of the ticks of each level, with their first places."""
        found: list[tuple[float, float]] = super().tickSpacing(low, high, size)
        if self.orientation == "bottom":
            metrics = QFontMetricsF(self.style["tickFont"] or QApplication.font())
            room = 1.5 * metrics.horizontalAdvance(count(max(abs(low), abs(high))))
            step, first = found[0]
            while step < high - low and step * size < room * (high - low):
                step *= 2
            found[0] = (step, first)
        return found

    def tickStrings(self, values: Sequence[float], scale: float, spacing: float) -> list[str]:
        """Texts of the ticks."""
        if self.percent:
            return [f"{100 * value:.4g} %" for value in values]
        if self.orientation == "bottom" and spacing >= 1:
            return [f"{'-' if value < 0 else ''}{count(abs(value))}" for value in values]
        found: list[str] = super().tickStrings(values, scale, spacing)
        return found


class View(pg.ViewBox):  # type: ignore[misc]
    """The area of the curves: a rectangle drawn with the mouse is zoomed into, the wheel zooms along the steps, and a
    double click shows everything. Nothing leads outside the data."""

    reset = Signal()

    def __init__(self) -> None:
        super().__init__(enableMenu=False)
        self.setMouseMode(self.RectMode)
        self.setMouseEnabled(x=True, y=False)

    def mouseDragEvent(self, event: Any, axis: int | None = None) -> None:
        """Only the left button drags."""
        if event.button() == Qt.MouseButton.LeftButton:
            super().mouseDragEvent(event, axis)
        else:
            event.ignore()

    def mouseClickEvent(self, event: Any) -> None:
        """A double click shows everything."""
        if event.double() and event.button() == Qt.MouseButton.LeftButton:
            event.accept()
            self.reset.emit()

    def showAxRect(self, rectangle: QRectF, **options: Any) -> None:
        """Zooms into the part of a rectangle that shows data."""
        inside = rectangle.normalized().intersected(self.viewRect())
        width, height = self.viewPixelSize()
        if inside.width() >= LEAST * width and inside.height() >= LEAST * height:
            super().showAxRect(inside, padding=0, **options)

    def repaint_all(self) -> None:
        """Applies the theme's colours to the rectangle."""
        fill = QColor(colours().accent)
        fill.setAlpha(40)
        self.rbScaleBox.setPen(pg.mkPen(colours().accent, width=1))
        self.rbScaleBox.setBrush(pg.mkBrush(fill))
