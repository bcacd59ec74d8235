"""The data table: one page of rows, and a combo box above each column that maps it to a prompt field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QPersistentModelIndex, QSize, Qt, Signal
from PySide6.QtWidgets import QHeaderView, QTableView

from sparsezo_gui.gui.theme import GRID
from sparsezo_gui.gui.widgets.fields import Combo
from sparsezo_gui.gui.widgets.safe_text import safe_name, safe_text, tooltip

LONGEST = 300  # characters shown of a cell
Index = QModelIndex | QPersistentModelIndex


class Rows(QAbstractTableModel):
    """A page of rows, as text."""

    def __init__(self) -> None:
        super().__init__()
        self.columns: list[str] = []
        self.rows: Sequence[Sequence[str]] = ()
        self.first = 0

    def fill(self, columns: Sequence[str], rows: Sequence[Sequence[str]], first: int) -> None:
        """Shows another page; ``first`` is the number of its first row."""
        self.beginResetModel()
        self.columns = list(columns)
        self.rows, self.first = rows, first
        self.endResetModel()

    def rowCount(self, parent: Index = QModelIndex()) -> int:  # noqa: B008
        """Number of rows on the page."""
        return 0 if parent.isValid() else len(self.rows)

    def columnCount(self, parent: Index = QModelIndex()) -> int:  # noqa: B008
        """Number of columns."""
        return 0 if parent.isValid() else len(self.columns)

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Text of a cell, truncated; its tooltip shows more."""
        text = self.rows[index.row()][index.column()]
        if role == Qt.ItemDataRole.DisplayRole:
            return safe_text(text, LONGEST).replace("\n", " ⏎ ")
        return tooltip(text) if role == Qt.ItemDataRole.ToolTipRole else None

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Column names, in full in their tooltips, and row numbers from 1."""
        across = orientation == Qt.Orientation.Horizontal
        if role == Qt.ItemDataRole.ToolTipRole and across:
            return tooltip(safe_name(self.columns[section]))
        if role != Qt.ItemDataRole.DisplayRole:
            return None
        return safe_name(self.columns[section]) if across else str(self.first + section + 1)


class MappingHeader(QHeaderView):
    """A header with a combo box below each name."""

    mapped = Signal(str, str)  # column, part or ""

    def __init__(self) -> None:
        super().__init__(Qt.Orientation.Horizontal)
        self._combos: list[Combo] = []
        self.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop)
        self.setTextElideMode(Qt.TextElideMode.ElideRight)
        self.setStretchLastSection(True)
        self.sectionResized.connect(lambda *_: self.place())

    def sizeHint(self) -> QSize:
        """Room for a name and a combo box."""
        size = super().sizeHint()
        if self._combos:
            size.setHeight(size.height() + self._combos[0].sizeHint().height() + GRID)
        return size

    def offer(self, columns: Sequence[str], parts: Sequence[str], mapping: dict[str, str]) -> None:
        """Gives each column a combo box with ``parts``; ``mapping`` gives the column of each part."""
        while len(self._combos) > len(columns):
            combo = self._combos.pop()
            combo.hide()
            combo.deleteLater()
        while len(self._combos) < len(columns):
            combo = Combo("")
            combo.setParent(self.viewport())
            combo.currentIndexChanged.connect(
                lambda _=0, c=combo: self.mapped.emit(c.property("column"), c.currentData())
            )
            self._combos.append(combo)
        plays = {column: part for part, column in mapping.items()}
        offered = [*parts, *(part for part in mapping if part not in parts)]
        for name, combo in zip(columns, self._combos, strict=True):
            combo.setProperty("column", name)
            combo.setAccessibleName(f"Use column {safe_name(name)} as")
            combo.fill([("not used", ""), *((safe_name(part), part) for part in offered)], plays.get(name, ""))
            combo.show()
        self.updateGeometries()
        self.place()

    def place(self) -> None:
        """Places each combo box below its column's name."""
        for index, combo in enumerate(self._combos):
            height = combo.sizeHint().height()
            combo.setGeometry(
                self.sectionViewportPosition(index) + 4,
                self.height() - height - 6,
                max(self.sectionSize(index) - 8, 0),
                height,
            )

    def updateGeometries(self) -> None:
        """Follows the size of the header."""
        super().updateGeometries()
        self.place()


class DataTable(QTableView):
    """A page of rows under a mapping header."""

    def __init__(self) -> None:
        super().__init__()
        self.setAccessibleName("Rows of the data")
        self.rows = Rows()
        self.mapping = MappingHeader()
        self.setHorizontalHeader(self.mapping)
        self.setModel(self.rows)
        self.setWordWrap(False)
        self.setAlternatingRowColors(True)
        self.setShowGrid(False)
        self.setTabKeyNavigation(False)
        self.verticalHeader().setDefaultSectionSize(3 * GRID + 4)
        self.setMinimumHeight(28 * GRID)
        self.horizontalScrollBar().valueChanged.connect(lambda _: self.mapping.place())

    def show_page(
        self, columns: Sequence[str], rows: Sequence[Sequence[str]], first: int, parts: Sequence[str],
        mapping: dict[str, str],
    ) -> None:  # fmt: skip
        """Shows rows and the column mapping."""
        fresh = list(columns) != self.rows.columns
        self.rows.fill(columns, rows, first)
        self.mapping.offer(columns, parts, mapping)
        if fresh and columns:
            self.resizeColumnsToContents()
            bar = 0 if self.verticalScrollBar().isVisible() else self.verticalScrollBar().sizeHint().width()
            widest = max((self.viewport().width() - bar) // 2, 30 * GRID)
            for index in range(len(columns)):
                self.setColumnWidth(index, min(max(self.columnWidth(index), 15 * GRID), widest))
        self.mapping.place()
