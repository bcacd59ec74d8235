"""The tree of runs: each with its state, step and result, and its branches below it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QHeaderView, QTreeWidget, QTreeWidgetItem

from sparsezo_gui.answers import RunSummary
from sparsezo_gui.gui import formatting
from sparsezo_gui.gui.record import STATES
from sparsezo_gui.gui.theme import GRID
from sparsezo_gui.gui.widgets.safe_text import safe_name, tooltip
from sparsezo_gui.recipe.metrics import deciding

COLUMNS = ("Run", "State", "Step", "Result", "Started")
PATH = Qt.ItemDataRole.UserRole


class RunTree(QTreeWidget):
    """One run is selected if there are any."""

    def __init__(self) -> None:
        super().__init__()
        self.setAccessibleName("Runs")
        self.setHeaderLabels(COLUMNS)
        self.setUniformRowHeights(True)
        self.setIndentation(2 * GRID)
        self.header().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        self.header().setMaximumSectionSize(28 * GRID)  # a long name leaves room for the other columns

    @property
    def path(self) -> Path | None:
        """Folder of the selected run."""
        item: QTreeWidgetItem | None = self.currentItem()
        return Path(item.data(0, PATH)) if item is not None else None

    def show_runs(self, runs: Sequence[RunSummary], selected: str) -> None:
        """Shows runs, each after its parent, and selects the one at that path, else the first; emits no signal."""
        self.blockSignals(True)
        self.clear()
        items: dict[str, QTreeWidgetItem] = {}
        for run in runs:
            item = QTreeWidgetItem(items.get(run.parent, self), _cells(run))
            item.setData(0, PATH, run.path)
            item.setToolTip(0, tooltip(f"{safe_name(run.name)}\n{safe_name(run.path)}"))
            items[run.path] = item
        self.expandAll()
        if items:
            self.setCurrentItem(items.get(selected) or next(iter(items.values())))
        self.blockSignals(False)


def _cells(run: RunSummary) -> list[str]:
    name = f"{run.name}  (from {formatting.count(run.start)})" if run.parent else run.name
    metric = deciding(run.metrics)
    result = formatting.metric(metric, run.metrics[metric]) if metric else ""
    step = f"{formatting.count(run.step)} of {formatting.count(run.steps)}" if run.steps else ""
    cells = [name, STATES.get(run.state, run.state), step, result, run.created[:16].replace("T", " ")]
    return [safe_name(cell) for cell in cells]
