"""Several runs beside one another: their results, and the settings in which their recipes differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QHeaderView, QStackedWidget, QTableWidget, QTableWidgetItem, QWidget

from sparsezo_gui.answers import RunSummary
from sparsezo_gui.gui import formatting
from sparsezo_gui.gui.differences import table
from sparsezo_gui.gui.plots.overlay import MOST, Overlay
from sparsezo_gui.gui.run_requests import ReadCurves
from sparsezo_gui.gui.theme import GRID
from sparsezo_gui.gui.widgets.basic import card, column, label
from sparsezo_gui.gui.widgets.safe_text import safe_name, tooltip
from sparsezo_gui.gui.workspace import Workspace
from sparsezo_gui.recipe.metrics import deciding, metric


class Comparison(QTableWidget):
    """A column for each run; a row for each metric, then for each setting that differs."""

    def __init__(self) -> None:
        super().__init__()
        self.setAccessibleName("Differences of the selected runs")
        self.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        self.setShowGrid(False)
        self.setAlternatingRowColors(True)
        self.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        self.horizontalHeader().setMaximumSectionSize(30 * GRID)
        self.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)

    def show_runs(self, runs: Sequence[RunSummary]) -> None:
        """Shows some runs."""
        rows = {"Step": [formatting.count(run.step) for run in runs]}
        for name in dict.fromkeys(name for run in runs for name in (deciding(run.metrics), "loss") if name):
            rows[metric(name).title] = [
                formatting.metric(name, run.metrics[name]) if name in run.metrics else "–" for run in runs
            ]
        rows |= table([Path(run.path) for run in runs])
        self.setRowCount(len(rows))
        self.setColumnCount(len(runs))
        self.setHorizontalHeaderLabels([safe_name(run.name) for run in runs])
        self.setVerticalHeaderLabels([safe_name(name) for name in rows])
        for line, values in enumerate(rows.values()):
            for place, value in enumerate(values):
                cell = QTableWidgetItem(safe_name(value))
                cell.setToolTip(tooltip(value))
                self.setItem(line, place, cell)


class RunView(QWidget):
    """The curves of the selected runs; below them the ``detail`` of one, or how several differ."""

    def __init__(self, workspace: Workspace, detail: QWidget) -> None:
        super().__init__()
        self._workspace = workspace
        self._asked: object = None  # the runs whose curves are shown, and their last steps
        self.overlay, self.comparison = Overlay("Curves of the selected runs"), Comparison()
        self._curves = card(self.overlay)
        self._curves.box.setContentsMargins(1, 1, 1, 1)
        self._curves.setMinimumHeight(18 * GRID)
        self._below = QStackedWidget()
        self._below.addWidget(detail)
        self._below.addWidget(card(label("Differences", "heading"), self.comparison))
        whole = column(self._curves, self._below, spacing=GRID)
        whole.setStretch(0, 2)
        whole.setStretch(1, 3)
        self.setLayout(whole)
        workspace.on(ReadCurves, call=self._show_curves)

    def show_runs(self, runs: Sequence[RunSummary]) -> None:
        """Shows some runs; damaged ones have no curve."""
        sound = [run for run in runs if run.state != "damaged"]
        self._below.setCurrentIndex(int(len(sound) > 1))
        if len(sound) > 1:
            self.comparison.show_runs(sound)
        self._curves.setVisible(bool(sound))
        wanted = [(Path(run.path), run.step) for run in sound[:MOST]]
        if wanted and wanted != self._asked:
            self._asked = wanted
            self._workspace.ask(ReadCurves(tuple(folder for folder, _ in wanted)))

    def resizeEvent(self, event: QResizeEvent) -> None:
        """As high as its wrapped texts need, which the splitter around it does not ask for."""
        super().resizeEvent(event)
        shown = self._below.currentWidget()
        if shown is not None and (layout := shown.layout()) is not None:
            below = layout.minimumHeightForWidth(event.size().width())
            self.setMinimumHeight(self._curves.minimumHeight() + GRID + max(below, 0))

    def mark(self, step: int) -> None:
        """Marks a step of the only selected run."""
        self.overlay.mark(step if self._below.currentIndex() == 0 else None)

    def _show_curves(self) -> None:
        channel = self._workspace.of(ReadCurves)
        if channel.answer is not None and not channel.busy:
            self.overlay.show_records(channel.answer)
