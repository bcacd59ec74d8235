"""Smoothed loss curves of one or several runs, and a mark at a step."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import pyqtgraph as pg
from PySide6.QtCore import Qt
from PySide6.QtGui import QColor
from PySide6.QtWidgets import QVBoxLayout, QWidget

from sparsezo_gui.gui.plots.panel import Panel, show_wide
from sparsezo_gui.gui.record import RunRecord
from sparsezo_gui.gui.theme import GRID, colours, theme
from sparsezo_gui.gui.widgets.safe_text import cut, safe_name

MOST = 6  # curves, each with a colour and a dash of its own
ROLES = ("accent", "second", "good", "error", "dim", "text")
DASHES: tuple[list[float], ...] = ([], [6, 3], [2, 3], [8, 3, 2, 3], [1, 2], [10, 4])
LONGEST = 24  # characters of a name in the legend


class Overlay(QWidget):
    """Redraws when other runs are shown or the theme changes."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._view = pg.GraphicsLayoutWidget()
        self._view.setAccessibleName(name)
        self._view.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._view.ci.setContentsMargins(0, 0, GRID, 0)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._view)
        self.panel = Panel("Smoothed loss")
        self.panel.view.reset.connect(self._whole)
        self._view.addItem(self.panel)
        self.panel.add_legend()
        self.curves: list[pg.PlotDataItem] = []
        self._records: Sequence[RunRecord] = ()
        self._step = pg.InfiniteLine(angle=90)
        self.panel.addItem(self._step, ignoreBounds=True)
        self._step.hide()
        theme().changed.connect(self._draw)
        self._draw()

    def show_records(self, records: Sequence[RunRecord]) -> None:
        """Shows the curves of some runs."""
        self._records = records[:MOST]
        self._draw()
        self._whole()

    def mark(self, step: int | None) -> None:
        """Marks a step; None: no step."""
        self._step.setVisible(step is not None)
        if step is not None:
            self._step.setValue(step)

    def _whole(self) -> None:
        self.panel.view.setLimits(xMin=None, xMax=None)
        last = max((record.step for record in self._records), default=1) or 1
        self.panel.view.setLimits(xMin=-0.01 * last, xMax=1.02 * last)
        self.panel.setXRange(-0.01 * last, 1.02 * last, padding=0)
        self.panel.enableAutoRange("y")

    def _draw(self) -> None:
        c = colours()
        self._view.setBackground(c.base)
        for curve in self.curves:
            self.panel.removeItem(curve)
        self.curves = []
        several = len(self._records) > 1
        for place, record in enumerate(self._records):
            name = escape(cut(safe_name(record.name), LONGEST))  # a legend reads HTML
            curve = pg.PlotDataItem(name=name, antialias=True)
            colour = QColor(getattr(c, ROLES[place]))
            pen = pg.mkPen(colour, width=2)
            if DASHES[place]:
                pen.setDashPattern(DASHES[place])
            curve.setPen(pen)
            self.panel.addItem(curve)
            show_wide(curve, record.columns["step"], record.columns["smooth"], 0, record.step)
            self.curves.append(curve)
        self.panel.legend.setVisible(several)
        self._step.setPen(pg.mkPen(c.text, width=1))
        self.panel.repaint_all()
