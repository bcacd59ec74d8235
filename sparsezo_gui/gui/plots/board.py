"""The plots of a run: loss on top; step latency, memory and a selectable plot below; one x axis for all.

Fast thanks to a few rules: one-pixel opaque pens without antialiasing, peak downsampling, clipping to the view, arrays
that are views of the record's columns, and one ``setData`` per curve and tick of the page's timer.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyqtgraph as pg
from pyqtgraph.exporters import ImageExporter
from PySide6.QtCore import QPointF, Qt, Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QVBoxLayout, QWidget

from sparsezo_gui.gui import formatting
from sparsezo_gui.gui.plots.panel import Panel
from sparsezo_gui.gui.record import FIELDS, RunRecord
from sparsezo_gui.gui.theme import GRID, colours, theme
from sparsezo_gui.recipe.metrics import deciding

EXTRA_PLOTS = {"metric": "Metric", "gradient_estimate": "Gradient estimate", "rate": "Learning rate"}
WIDE = 70 * GRID  # width from which titles have room for numbers


class Board(QWidget):
    """Four linked plots with a crosshair; `readout` gives the values at it."""

    readout = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        pg.setConfigOptions(antialias=False, useOpenGL=False)
        self._record = RunRecord()
        self._extra = "metric"
        self._drawn = (-1, -1)
        self._view = pg.GraphicsLayoutWidget()
        self._view.setAccessibleName("Plots of the run")
        self._view.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._view)
        self.loss, self.latency = Panel("Loss"), Panel("Step latency")
        self.memory, self.extra = Panel("Memory"), Panel("Metric")
        # Memory that hardly changes appears as a flat line, not as noise in the seventh digit.
        self.memory.getViewBox().setLimits(minYRange=0.02)
        self.panels = (self.loss, self.latency, self.memory, self.extra)
        grid = self._view.ci
        grid.setSpacing(GRID)
        grid.setContentsMargins(GRID, GRID, 2 * GRID, GRID)
        grid.addItem(self.loss, 0, 0, 1, 3)
        for index, panel in enumerate(self.panels[1:]):
            grid.addItem(panel, 1, index)
        grid.layout.setRowStretchFactor(0, 8)
        grid.layout.setRowStretchFactor(1, 5)
        self._trials = self.loss.line("dim")
        self._raw = self.loss.line("faint")
        self._smooth = self.loss.line("accent")
        self._evaluated = self.loss.points("second")
        self._seconds = self.latency.line("accent")
        self._bytes = self.memory.line("accent")
        self._extra_line = self.extra.line("accent")
        self._extra_points = self.extra.points("second")
        self._median, self._high = self.latency.level(dashed=False), self.latency.level(dashed=True)
        self._base = self.extra.level(dashed=True)
        self._follows, self._linking = True, False
        for panel in self.panels:
            panel.disableAutoRange("x")
            panel.getViewBox().sigXRangeChanged.connect(self._x_changed)
            panel.getViewBox().sigRangeChangedManually.connect(self._taken_over)
        self._mouse = pg.SignalProxy(self._view.scene().sigMouseMoved, rateLimit=30, slot=self._moved)
        theme().changed.connect(self.repaint_all)
        self.repaint_all()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """The small plots share the width equally, regardless of their titles and tick labels."""
        super().resizeEvent(event)
        for index in range(3):
            self._view.ci.layout.setColumnFixedWidth(index, max((self.width() - 5 * GRID) / 3, 60))
        # The view was resized earlier, while the columns still had their previous width.
        self._view.ci.setGeometry(self._view.range)

    def repaint_all(self) -> None:
        """Applies the theme's colours."""
        self._view.setBackground(colours().base)
        for panel in self.panels:
            panel.repaint_all()

    def show_record(self, record: RunRecord, memory_name: str) -> None:
        """Shows another run."""
        self._record, self._drawn = record, (-1, -1)
        self.memory.set_title(memory_name)
        self.show_all()

    def show_all(self) -> None:
        """Shows all steps, and follows new ones."""
        self._follows, self._drawn = True, (-1, -1)
        for panel in self.panels:
            panel.enableAutoRange("y")
        self.draw()

    def set_log(self, on: bool) -> None:
        """Sets a logarithmic loss axis."""
        self.loss.set_log(on)
        self._drawn = (-1, -1)
        self.draw()

    def _taken_over(self, _: object = None) -> None:
        self._follows = False

    def _x_changed(self, view: object, limits: tuple[float, float]) -> None:
        # Not setXLink: it aligns plots by their position on screen, and these are side by side.
        if not self._linking:
            self._set_x(*limits, but=view)

    def _set_x(self, low: float, high: float, but: object = None) -> None:
        self._linking = True
        for panel in self.panels:
            if panel.getViewBox() is not but:
                panel.setXRange(low, high, padding=0)
        self._linking = False

    def set_extra(self, kind: str) -> None:
        """Chooses what the third small plot shows: a key of `EXTRA_PLOTS`."""
        self._extra, self._drawn = kind, (-1, -1)
        self.extra.enableAutoRange("y")
        self.draw()

    def paint(self) -> None:
        """Paints immediately, so that its cost can be measured."""
        self._view.viewport().repaint()

    def draw(self) -> None:
        """Draws what is new, if anything."""
        columns, record = self._record.columns, self._record
        state = (columns.size, record.changes)
        if state == self._drawn:
            return
        self._drawn = state
        steps = columns["step"]
        self._trials.setData(*record.trials, connect="finite")
        self._raw.setData(steps, columns["loss"])
        self._smooth.setData(steps, columns["smooth"])
        self._seconds.setData(steps, columns["seconds"] * 1000)
        self._bytes.setData(steps, columns["memory"] / 2**30)
        _, _, middle, high = record.speed()
        self._median.show_level(middle * 1000)
        self._high.show_level(high * 1000)
        wide = self.width() > WIDE
        figures = f": p50 {_short(middle)}, p95 {_short(high)}" if middle == middle and wide else ""
        self.latency.set_title(f"Step, ms{figures}")
        if self._follows:
            last = max(record.step, 1)
            first = float(record.trials[0].min(initial=0))
            self._set_x(first - 0.015 * last, 1.015 * last)
        self._draw_evaluations()
        self._draw_extra(steps)

    def _draw_evaluations(self) -> None:
        points = [(e.step, e.metrics["loss"]) for e in self._record.evaluations
                  if e.split == "validation" and "loss" in e.metrics]  # fmt: skip
        self._evaluated.setData(*_columns(points))

    def _draw_extra(self, steps: np.ndarray) -> None:
        columns, kind = self._record.columns, self._extra
        self._extra_line.setData(*((steps, np.abs(columns[kind])) if kind in FIELDS else _columns([])))
        name, points = self._metric() if kind == "metric" else ("", [])
        self._extra_points.setData(*_columns(points))
        whole = any(not e.partial for e in self._record.evaluations if (e.step, e.split) == (0, "validation"))
        base = next((value for step, value in points if step == 0 and whole), float("nan"))
        self._base.show_level(base)
        detail = f" · base {formatting.metric(name, base)}" if base == base else " (validation)"
        detail = detail if self.width() > WIDE else ""
        self.extra.set_title(f"{formatting.field_label(name)}{detail}" if name else EXTRA_PLOTS[kind])

    def _metric(self) -> tuple[str, list[tuple[int, float]]]:
        """The metric that decides which step is best, or else the loss, with its values."""
        evaluations = [e for e in self._record.evaluations if e.split == "validation"]
        if not evaluations:
            return "", []
        name = deciding(evaluations[-1].metrics, evaluations[-1].metric) or "loss"
        return name, [(e.step, e.metrics[name]) for e in evaluations if name in e.metrics]

    def _moved(self, arguments: tuple[QPointF]) -> None:
        place = arguments[0]
        panel = next((panel for panel in self.panels if panel.sceneBoundingRect().contains(place)), None)
        columns = self._record.columns
        if panel is None or not columns.size:
            self.move_crosshair(None)
            return
        self.move_crosshair(round(panel.getViewBox().mapSceneToView(place).x()))

    def move_crosshair(self, step: int | None) -> None:
        """Puts the crosshair at the nearest step and emits its values."""
        columns = self._record.columns
        if step is None or not columns.size:
            for panel in self.panels:
                panel.hide_crosshair()
            self.readout.emit("")
            return
        row = int(np.clip(np.searchsorted(columns["step"], step), 0, columns.size - 1))
        values = {name: float(columns[name][row]) for name in FIELDS}
        heights = (
            values["smooth"],
            values["seconds"] * 1000,
            values["memory"] / 2**30,
            abs(values[self._extra]) if self._extra in values else float("nan"),
        )
        for panel, height in zip(self.panels, heights, strict=True):
            panel.show_crosshair(values["step"], height)
        self.readout.emit(
            f"Step {values['step']:.0f} · loss {values['loss']:.4f} · smoothed {values['smooth']:.4f} · "
            f"{formatting.latency(values['seconds'])} · {formatting.size(values['memory'])} · "
            f"|g| {abs(values['gradient_estimate']):.3g} · rate {values['rate']:.3g}"
        )

    def save_png(self, path: Path) -> None:
        """Saves all plots as an image, twice their size on screen."""
        exporter = ImageExporter(self._view.scene())
        exporter.parameters()["width"] = int(self._view.width() * 2)
        if not exporter.export(str(path)):
            raise OSError(f"{path} could not be written")

    def save_csv(self, path: Path) -> None:
        """Saves all steps, one line each, in seconds and bytes."""
        columns = self._record.columns
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(FIELDS)
            writer.writerows(zip(*(columns[name].tolist() for name in FIELDS), strict=True))


def _short(seconds: float) -> str:
    """Milliseconds with at least two digits."""
    return f"{seconds * 1000:.0f}" if seconds >= 0.0095 else f"{seconds * 1000:.2g}"


def _columns(points: list[tuple[int, float]]) -> tuple[np.ndarray, np.ndarray]:
    values = np.array(points, dtype=float).reshape(-1, 2)
    return values[:, 0], values[:, 1]
