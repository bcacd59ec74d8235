"""The plots of a run: loss on top; step latency, memory and a selectable plot below; one x axis for all.

Fast thanks to a few rules: one-pixel opaque pens without antialiasing, peak downsampling, clipping to the view, arrays
that are views of the record's columns, and one ``setData`` per curve and tick of the page's timer. Only the smoothed
loss is wide and antialiased, and therefore thinned.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QPointF, Qt, Signal
from PySide6.QtGui import QAction, QResizeEvent
from PySide6.QtWidgets import QVBoxLayout, QWidget

from sparsezo_gui.gui import formatting
from sparsezo_gui.gui.plots import shown
from sparsezo_gui.gui.plots.files import png, svg, table
from sparsezo_gui.gui.plots.panel import Panel, show_wide
from sparsezo_gui.gui.record import FIELDS, SMOOTHING, RunRecord
from sparsezo_gui.gui.saving import save
from sparsezo_gui.gui.theme import GRID, colours, theme
from sparsezo_gui.gui.widgets.safe_text import safe_sentence
from sparsezo_gui.recipe.metrics import metric

EXTRA_PLOTS = {"metric": "Metric", "gradient_estimate": "Gradient estimate", "rate": "Learning rate"}
NEAR = 4  # times the peak: a memory limit further away is told, not drawn, so that the curve stays visible


class Board(QWidget):
    """Four linked plots with a crosshair; `readout` gives the values at it."""

    readout = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        pg.setConfigOptions(antialias=False, useOpenGL=False)
        self._record = RunRecord()
        self._extra = "metric"
        self._drawn = (-1, -1)
        self._memory_name, self._limit, self._smoothing = "Memory", 0, SMOOTHING
        self._view = pg.GraphicsLayoutWidget()
        self._view.setContextMenuPolicy(Qt.ContextMenuPolicy.ActionsContextMenu)
        self._view.setAccessibleName("Plots of the run")
        self._view.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._view)
        self.loss, self.latency = Panel("Loss"), Panel("Step latency")
        self.memory, self.extra = Panel("Memory"), Panel("Metric")
        self.panels = (self.loss, self.latency, self.memory, self.extra)
        grid = self._view.ci
        grid.setSpacing(GRID)
        grid.setContentsMargins(GRID, GRID, 2 * GRID, GRID)
        grid.addItem(self.loss, 0, 0, 1, 3)
        for index, panel in enumerate(self.panels[1:]):
            grid.addItem(panel, 1, index)
        grid.layout.setRowStretchFactor(0, 8)
        grid.layout.setRowStretchFactor(1, 5)
        self._make_curves()
        self._follows, self._linking = True, False
        for panel in self.panels:
            panel.disableAutoRange("x")
            panel.view.setAutoVisible(y=True)
            panel.view.sigXRangeChanged.connect(self._x_changed)
            panel.view.sigRangeChangedManually.connect(self._taken_over)
            panel.view.reset.connect(self.show_all)
        self._mouse = pg.SignalProxy(self._view.scene().sigMouseMoved, rateLimit=30, slot=self._moved)
        theme().changed.connect(self.repaint_all)
        self.repaint_all()

    def _make_curves(self) -> None:
        self.loss.add_legend()
        self._trials = self.loss.line("dim")
        self._raw = self.loss.line("faint", "per step")
        self._smooth = self.loss.line("accent", "smoothed", width=2)
        self._evaluated = self.loss.points("second", "validation")
        self._seconds = self.latency.line("accent")
        self._bytes = self.memory.line("accent")
        self._extra_line = self.extra.line("accent")
        self._extra_points = self.extra.points("second")
        self._extra_band = self.extra.band("second")
        self._capacity = self.memory.level(dashed=True, name="limit")
        self._median, self._high = self.latency.level(dashed=False), self.latency.level(dashed=True)
        self._base = self.extra.level(dashed=True, name="base")

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

    def add_actions(self, actions: list[QAction]) -> None:
        """Gives the plots a context menu."""
        self._view.addActions(actions)

    def show_record(self, record: RunRecord, memory_name: str) -> None:
        """Shows another run."""
        self._record, self._drawn = record, (-1, -1)
        self.set_memory(memory_name, 0)
        self.show_all()

    def set_memory(self, name: str, limit: int) -> None:
        """Says whose memory is plotted, and how many bytes the run can use (0: unknown)."""
        if (name, limit) != (self._memory_name, self._limit):
            self._memory_name, self._limit, self._drawn = name, limit, (-1, -1)
            self._draw_memory()

    def set_smoothing(self, smoothing: float) -> None:
        """How much of the running mean of the loss each step keeps, 0 … 1."""
        self._smoothing = smoothing
        self._drawn = (-1, -1)
        self.draw()

    def show_all(self) -> None:
        """Shows all steps, and follows new ones."""
        self._follows, self._drawn = True, (-1, -1)
        for panel in self.panels:
            if panel is not self.memory:
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
            if panel.view is not but:
                panel.setXRange(low, high, padding=0)
        self._linking = False
        self._draw_smooth(low, high)

    def _draw_smooth(self, low: float, high: float) -> None:
        show_wide(self._smooth, self._record.columns["step"], self._record.columns["smooth"], low, high)

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
        columns.smooth_again(self._smoothing)
        last, first = max(record.step, 1), float(record.trials[0].min(initial=0))
        for panel in self.panels:
            panel.view.setLimits(xMin=first - 0.015 * last, xMax=1.015 * last)
        self._trials.setData(*record.trials, connect="finite")
        self._raw.setData(steps, columns["loss"])
        self._seconds.setData(steps, columns["seconds"] * 1000)
        _, _, middle, high = record.speed()
        self._median.show_level(middle * 1000)
        self._high.show_level(high * 1000)
        figures = [f"Step, ms: p50 {_short(middle)}, p95 {_short(high)}"] if middle == middle else []
        self.latency.set_title(*figures, "Step, ms")
        if self._follows:
            self._set_x(first - 0.015 * last, 1.015 * last)
        else:
            self._draw_smooth(*self.loss.viewRange()[0])
        self._evaluated.setData(*_columns(shown.losses(record)))
        self._draw_memory()
        self._draw_extra(steps)
        self.loss.show_marks(shown.marks(record))

    def _draw_memory(self) -> None:
        """From zero, so that the curve shows how much there is rather than how it wavers."""
        columns, limit = self._record.columns, self._limit
        used = columns["memory"] / 2**30
        self._bytes.setData(columns["step"], used)
        peak = float(np.nanmax(used)) if used.size else 0.0
        near = 0 < limit / 2**30 <= NEAR * peak
        self._capacity.show_level(limit / 2**30 if near else float("nan"), f"limit {formatting.size(limit)}")
        told = [f"{self._memory_name} · limit {formatting.size(limit)}"] if limit and not near else []
        self.memory.set_title(*told, self._memory_name)
        if self._follows:
            self.memory.setYRange(0, 1.15 * max(peak, limit / 2**30 if near else 0, 1e-3), padding=0)

    def _draw_extra(self, steps: np.ndarray) -> None:
        columns, kind = self._record.columns, self._extra
        self._extra_line.setData(*((steps, np.abs(columns[kind])) if kind in FIELDS else _columns([])))
        name, points = shown.decisive(self._record) if kind == "metric" else ("", [])
        percent = bool(name) and metric(name).percent
        self.extra.set_percent(percent)
        self._extra_points.setData(*_columns(points))
        ranges = shown.ranges(self._record, name) if percent else []
        for place, edge in enumerate(self._extra_band):
            edge.setData(*_columns([(step, bounds[place]) for step, bounds in ranges]))
        whole = any(not e.partial for e in self._record.evaluations if (e.step, e.split) == (0, "validation"))
        base = next((value for step, value in points if step == 0 and whole), float("nan"))
        self._base.show_level(base, f"base {formatting.metric(name, base)}" if base == base else "")
        title = metric(name).title if name else EXTRA_PLOTS[kind]
        confidence = [f"{title} · validation, 95 % confidence"] if ranges else []
        self.extra.set_title(*confidence, *([f"{title} · validation"] if name else ()), title)

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
            f"Step {formatting.grouped(values['step'])} · loss {values['loss']:.4f} · "
            f"smoothed {values['smooth']:.4f} · {formatting.latency(values['seconds'])} · "
            f"{formatting.size(values['memory'])} · |g| {abs(values['gradient_estimate']):.3g} · "
            f"rate {values['rate']:.3g}{self._noted(values['step'])}"
        )

    def _noted(self, step: float) -> str:
        """What is marked close to ``step``."""
        low, high = self.loss.viewRange()[0]
        near = [note for note in self._record.notes
                if note.level == "warning" and note.step and abs(note.step - step) < 0.01 * (high - low)]  # fmt: skip
        return f"\nStep {formatting.grouped(near[-1].step)}: {safe_sentence(near[-1].text)}" if near else ""

    def save_png(self, path: Path) -> None:
        """Saves all plots as an image, twice their size on screen."""
        save(path, png(self._view))

    def save_svg(self, path: Path) -> None:
        """Saves all plots as a drawing that stays sharp at every size."""
        save(path, svg(self._view))

    def save_csv(self, path: Path) -> None:
        """Saves all steps, one line each, in seconds and bytes."""
        save(path, table(self._record.columns))


def _short(seconds: float) -> str:
    """Milliseconds with at least two digits."""
    return f"{seconds * 1000:.0f}" if seconds >= 0.0095 else f"{seconds * 1000:.2g}"


def _columns(points: list[tuple[int, float]]) -> tuple[np.ndarray, np.ndarray]:
    values = np.array(points, dtype=float).reshape(-1, 2)
    return values[:, 0], values[:, 1]
