"""One plot: a title, a legend, curves in the theme's colours, levels, marks, and a crosshair."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import Qt
from PySide6.QtGui import QColor

from sparsezo_gui.gui.plots.parts import Axis, Level, Mark, Title, View, text_size
from sparsezo_gui.gui.theme import GRID, colours, theme

POINTS = 1000  # of a wide antialiased curve at most: beyond, painting takes longer than a tick


class Panel(pg.PlotItem):  # type: ignore[misc]
    """A plot item in the theme's colours."""

    titleLabel: Title

    def __init__(self, title: str) -> None:
        self.view = View()
        axes = {place: Axis(orientation=place) for place in ("left", "bottom")}
        super().__init__(viewBox=self.view, axisItems=axes, enableMenu=False)
        self._titles: tuple[str, ...] = (title,)
        self.log = False
        self._curves: list[tuple[pg.PlotDataItem, str, float, bool]] = []
        self._bands: list[tuple[pg.FillBetweenItem, str]] = []
        self._levels: list[Level] = []
        self._marks: list[Mark] = []
        self._marked: Sequence[tuple[float, str, str]] = ()
        self.hideButtons()
        self.layout.removeItem(self.titleLabel)
        self.titleLabel.setParentItem(None)
        self.titleLabel = Title(self)
        self.layout.addItem(self.titleLabel, 0, 0, 1, 2)
        self.setTitle("")  # makes room for one
        self.showGrid(x=False, y=True, alpha=0.15)
        for axis in axes.values():
            axis.enableAutoSIPrefix(False)
        # Labelled ticks only: painting minor grid lines takes longer than painting the curves.
        self.getAxis("left").setStyle(maxTickLevel=0)
        self.getAxis("bottom").setStyle(hideOverlappingLabels=False, maxTickLevel=0)
        self._vertical = pg.InfiniteLine(angle=90)
        self._dot = pg.ScatterPlotItem(size=7)
        for item in (self._vertical, self._dot):
            item.setZValue(10)
            item.hide()
            self.addItem(item, ignoreBounds=True)

    def add_legend(self) -> None:
        """Shows a legend of the named curves that are added later; a click on an entry hides its curve."""
        self.addLegend(offset=(-GRID, 4), colCount=4, horSpacing=GRID, frame=False)

    def line(self, role: str, name: str = "", width: float = 1) -> pg.PlotDataItem:
        """A curve in a colour of the theme. A wider one is antialiased: draw it with `show_wide`."""
        item = pg.PlotDataItem(
            name=name or None, antialias=width > 1, autoDownsample=width == 1, downsampleMethod="peak",
            clipToView=width == 1, skipFiniteCheck=False,
        )  # fmt: skip
        return self._add(item, role, width, False)

    def points(self, role: str, name: str = "") -> pg.PlotDataItem:
        """A few marked points, joined by a dashed line."""
        item = pg.PlotDataItem(name=name or None, symbol="o", symbolSize=7, antialias=True)
        return self._add(item, role, 1, True)

    def band(self, role: str) -> tuple[pg.PlotCurveItem, pg.PlotCurveItem]:
        """The lower and the upper edge of a pale band."""
        edges = pg.PlotCurveItem(pen=None), pg.PlotCurveItem(pen=None)
        band = pg.FillBetweenItem(*edges)
        band.setZValue(-10)
        for item in (*edges, band):
            self.addItem(item)
        self._bands.append((band, role))
        return edges

    def level(self, dashed: bool, name: str = "") -> Level:
        """A horizontal line that does not stretch the axis."""
        level = Level(dashed, name)
        self._levels.append(level)
        self.addItem(level, ignoreBounds=True)
        return level

    def show_marks(self, marks: Sequence[tuple[float, str, str]]) -> None:
        """Marks steps, each with a word and a colour of the theme."""
        if list(marks) != list(self._marked):
            self._marked = marks
            self._mark()

    def _mark(self) -> None:
        for mark in self._marks:
            self.removeItem(mark)
        self._marks = [Mark(*each) for each in self._marked]
        for mark in self._marks:
            self.addItem(mark, ignoreBounds=True)

    def _add(self, item: pg.PlotDataItem, role: str, width: float, marked: bool) -> pg.PlotDataItem:
        self._curves.append((item, role, width, marked))
        self.addItem(item)
        return item

    @property
    def title_text(self) -> str:
        """The title, as long as there is room for all of it."""
        return self._titles[0]

    def set_title(self, *texts: str) -> None:
        """Changes the title to the first of ``texts`` for which there is room."""
        if texts != self._titles:
            self._titles = texts
            self.titleLabel.show_first_of(*texts)

    def set_percent(self, on: bool) -> None:
        """Whether the y axis is of shares: in percent, over at least 10 points, inside 0 … 100 %."""
        axis = self.getAxis("left")
        if axis.percent != on:
            axis.percent, axis.picture = on, None
            low, high = (-0.01, 1.01) if on else (None, None)
            self.view.setLimits(minYRange=0.1 if on else None, yMin=low, yMax=high)
            axis.update()

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

    def repaint_all(self) -> None:
        """Applies the theme's colours."""
        c = colours()
        self.titleLabel.show_first_of(*self._titles)
        scale = min(theme().text_scale, 1.25)
        self.getAxis("left").setWidth(int(56 * scale))
        self.setLabel("bottom", "Step", color=c.dim, **{"font-size": text_size()})
        for name in ("left", "bottom"):
            axis = self.getAxis(name)
            axis.setPen(pg.mkPen(c.strong_border, width=1))
            axis.setTextPen(pg.mkPen(c.dim))
        for item, role, width, marked in self._curves:
            style = Qt.PenStyle.DashLine if marked else Qt.PenStyle.SolidLine
            item.setPen(pg.mkPen(getattr(c, role), width=width, style=style))
            if marked:
                item.setSymbolBrush(pg.mkBrush(getattr(c, role)))
                item.setSymbolPen(pg.mkPen(c.base, width=1))
        for band, role in self._bands:
            fill = QColor(getattr(c, role))
            fill.setAlpha(46)
            band.setBrush(pg.mkBrush(fill))
        self._vertical.setPen(pg.mkPen(c.dim, width=1))
        self._dot.setBrush(pg.mkBrush(c.text))
        self._dot.setPen(pg.mkPen(c.base, width=1))
        for level in self._levels:
            level.repaint_all()
        self._mark()
        self.view.repaint_all()
        if self.legend is not None:
            self.legend.setBrush(pg.mkBrush(c.base))
            self.legend.setLabelTextColor(pg.mkColor(c.dim))
            self.legend.setLabelTextSize(text_size())
            for _, text in self.legend.items:
                text.setText(text.text, color=c.dim, size=text_size())


def show_wide(item: pg.PlotDataItem, x: np.ndarray, y: np.ndarray, low: float, high: float) -> None:
    """Fills a wide smooth curve with what is between ``low`` and ``high``, thinned so that it is painted quickly."""
    first, last = np.searchsorted(x, (low, high))
    part = slice(max(int(first) - 1, 0), int(last) + 1)
    stride = max((part.stop - part.start) // POINTS, 1)
    item.setData(x[part][::stride], y[part][::stride], connect="finite")
