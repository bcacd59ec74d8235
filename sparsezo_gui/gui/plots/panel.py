"""One plot: a title, curves in the theme's colours, levels, and a crosshair. pyqtgraph comes without types."""

from __future__ import annotations

import math
from html import escape
from typing import Any

import pyqtgraph as pg
from PySide6.QtCore import Qt

from sparsezo_gui.gui.theme import colours, theme


class Level(pg.InfiniteLine):  # type: ignore[misc]
    """A horizontal line, dashed or dotted, so that it is recognisable without colour."""

    def __init__(self, dashed: bool) -> None:
        super().__init__(angle=0)
        self._dashed = dashed
        self._log = False
        self._value = math.nan
        self.hide()

    def show_level(self, value: float) -> None:
        """Moves the line; hides it if the value is NaN."""
        self._value = value
        self.setVisible(value == value and (not self._log or value > 0))
        if self.isVisible() or value == value:
            self.setValue(math.log10(value) if self._log and value > 0 else value)

    def set_log(self, on: bool) -> None:
        """Follows the axis."""
        self._log = on

    def repaint_all(self) -> None:
        """Applies the theme's colours."""
        style = Qt.PenStyle.DashLine if self._dashed else Qt.PenStyle.DotLine
        self.setPen(pg.mkPen(colours().dim, width=1, style=style))


class Title(pg.LabelItem):  # type: ignore[misc]
    """A label that does not widen its column, because all plots in a row have equal width; it is clipped instead."""

    def __init__(self, parent: Panel) -> None:
        super().__init__("", parent=parent)
        self.setFlag(self.GraphicsItemFlag.ItemClipsChildrenToShape)

    def updateMin(self) -> None:
        """See the class."""
        super().updateMin()
        self.setMinimumWidth(0)
        self.setPreferredWidth(0)


class Panel(pg.PlotItem):  # type: ignore[misc]
    """A plot item in the theme's colours."""

    titleLabel: pg.LabelItem

    def __init__(self, title: str) -> None:
        super().__init__(enableMenu=False)
        self.title_text = title
        self.log = False
        self._curves: list[tuple[pg.PlotDataItem, str, bool]] = []
        self._levels: list[Level] = []
        self.hideButtons()
        self.layout.removeItem(self.titleLabel)
        self.titleLabel.setParentItem(None)
        self.titleLabel = Title(self)
        self.layout.addItem(self.titleLabel, 0, 0, 1, 2)
        self.setMouseEnabled(x=True, y=True)
        self.showGrid(x=False, y=True, alpha=0.15)
        self.getAxis("left").setWidth(52)
        self.getAxis("left").enableAutoSIPrefix(False)
        self.getAxis("bottom").enableAutoSIPrefix(False)
        # Labelled ticks only: painting minor grid lines takes longer than painting the curves.
        self.getAxis("left").setStyle(maxTickLevel=0)
        self.getAxis("bottom").setStyle(hideOverlappingLabels=False, maxTickLevel=0)
        self._vertical = pg.InfiniteLine(angle=90)
        self._dot = pg.ScatterPlotItem(size=7)
        for item in (self._vertical, self._dot):
            item.setZValue(10)
            item.hide()
            self.addItem(item, ignoreBounds=True)

    def line(self, role: str) -> pg.PlotDataItem:
        """A curve in a colour of the theme."""
        item = pg.PlotDataItem(
            antialias=False, autoDownsample=True, downsampleMethod="peak", clipToView=True, skipFiniteCheck=False
        )
        return self._add(item, role, False)

    def points(self, role: str) -> pg.PlotDataItem:
        """A few marked points, joined by a dashed line."""
        item = pg.PlotDataItem(symbol="o", symbolSize=7, antialias=False)
        return self._add(item, role, True)

    def level(self, dashed: bool) -> Level:
        """A horizontal line that does not stretch the axis."""
        level = Level(dashed)
        self._levels.append(level)
        self.addItem(level, ignoreBounds=True)
        return level

    def _add(self, item: pg.PlotDataItem, role: str, marked: bool) -> pg.PlotDataItem:
        self._curves.append((item, role, marked))
        self.addItem(item)
        return item

    def set_title(self, text: str) -> None:
        """Changes the title."""
        if text != self.title_text:
            self.title_text = text
            self._title()

    def set_log(self, on: bool) -> None:
        """Sets a logarithmic y axis."""
        self.log = on
        self.setLogMode(y=on)
        for level in self._levels:
            level.set_log(on)

    def show_crosshair(self, x: float, y: float) -> None:
        """Shows the crosshair at a point; only its line if y is NaN."""
        self._vertical.setValue(x)
        self._vertical.show()
        shown = y == y and (not self.log or y > 0)
        self._dot.setVisible(shown)
        if shown:
            self._dot.setData([x], [math.log10(y) if self.log else y])

    def hide_crosshair(self) -> None:
        """Hides the crosshair."""
        self._vertical.hide()
        self._dot.hide()

    def _title(self) -> None:
        size = f"{9 * min(theme().text_scale, 1.25):g}pt"
        options: dict[str, Any] = {"color": colours().text, "size": size, "justify": "left"}
        self.setTitle(escape(self.title_text), **options)  # pyqtgraph writes HTML

    def repaint_all(self) -> None:
        """Applies the theme's colours."""
        c = colours()
        self._title()
        for name in ("left", "bottom"):
            axis = self.getAxis(name)
            axis.setPen(pg.mkPen(c.strong_border, width=1))
            axis.setTextPen(pg.mkPen(c.dim))
        for item, role, marked in self._curves:
            pen = pg.mkPen(getattr(c, role), width=1, style=Qt.PenStyle.DashLine if marked else Qt.PenStyle.SolidLine)
            item.setPen(pen)
            if marked:
                item.setSymbolBrush(pg.mkBrush(getattr(c, role)))
                item.setSymbolPen(pg.mkPen(c.base, width=1))
        self._vertical.setPen(pg.mkPen(c.dim, width=1))
        self._dot.setBrush(pg.mkBrush(c.text))
        self._dot.setPen(pg.mkPen(c.base, width=1))
        for level in self._levels:
            level.repaint_all()
