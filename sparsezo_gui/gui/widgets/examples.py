"""The worst, best and changed examples of an evaluation as sortable tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QHeaderView, QTableWidget, QTableWidgetItem, QTabWidget, QWidget

from sparsezo_gui.gui import formatting
from sparsezo_gui.gui.theme import GRID
from sparsezo_gui.gui.widgets.basic import button, label, row
from sparsezo_gui.gui.widgets.dialogs import Dialog
from sparsezo_gui.gui.widgets.safe_text import safe_text, tooltip
from sparsezo_gui.recipe.events import Examples

KINDS = {"worst": "Worst examples", "best": "Best examples", "changed": "Changed answers"}
HEADS = ("No.", "Prompt", "Expected", "Answer", "Base model", "Loss")
LONGEST_CELL = 400  # characters shown of a prompt or an answer


class ExamplesDialog(Dialog):
    """The worst, best and changed examples of an evaluation as sortable tables."""

    def __init__(self, found: Examples, parent: QWidget) -> None:
        split = formatting.field_label(found.split).lower()
        super().__init__(f"Examples at step {formatting.count(found.step)}, {split}", parent)
        self.resize(120 * GRID, 64 * GRID)
        tabs = QTabWidget()
        tabs.setAccessibleName("Kinds of examples")
        for kind, title in KINDS.items():
            examples = getattr(found, kind)
            tabs.addTab(_table(title, examples), f"{title} ({len(examples)})")
        note = "The changed answers list first those that are wrong now. Click a column to sort."
        self.layout_.addWidget(tabs, 1)
        self.layout_.addLayout(row(label(note, "hint"), None, button("Close", self.accept, name="Close examples")))


def _table(name: str, examples: Sequence[dict[str, Any]]) -> QTableWidget:
    table = QTableWidget(len(examples), len(HEADS))
    table.setAccessibleName(name)
    table.setHorizontalHeaderLabels(HEADS)
    table.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
    table.setSelectionBehavior(QTableWidget.SelectionBehavior.SelectRows)
    table.setAlternatingRowColors(True)
    table.setShowGrid(False)
    table.verticalHeader().hide()
    for line, each in enumerate(examples):
        cells = (each["number"], each["prompt"].strip(), each["expected"], each["answer"], each.get("before", ""),
                 each["loss"])  # fmt: skip
        for place, value in enumerate(cells):
            cell = QTableWidgetItem()
            shown = safe_text(value, LONGEST_CELL) if isinstance(value, str) else value
            cell.setData(Qt.ItemDataRole.DisplayRole, shown)  # numbers sort as such
            cell.setToolTip(tooltip(value) if isinstance(value, str) else "")
            table.setItem(line, place, cell)
    header = table.horizontalHeader()
    header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
    header.setSectionResizeMode(1, QHeaderView.ResizeMode.Stretch)
    table.setSortingEnabled(bool(examples))
    header.setSortIndicator(-1, Qt.SortOrder.AscendingOrder)
    table.resizeRowsToContents()
    return table
