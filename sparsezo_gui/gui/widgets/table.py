"""The data table: one page of rows, of which some are left out, and a combo box above each column that maps it to a
prompt field."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QPersistentModelIndex, QSize, Qt, Signal
from PySide6.QtGui import QAction, QColor, QFont, QKeySequence, QShowEvent
from PySide6.QtWidgets import QHeaderView, QTableView

from sparsezo_gui.gui.theme import GRID, colours
from sparsezo_gui.gui.widgets.fields import Combo
from sparsezo_gui.gui.widgets.safe_text import safe_name, safe_text, tooltip

LONGEST = 300  # characters shown of a cell
Index = QModelIndex | QPersistentModelIndex


class Rows(QAbstractTableModel):
    """A page of rows, as text; those with a name in ``left_out`` are struck through."""

    def __init__(self) -> None:
        super().__init__()
        self.columns: list[str] = []
        self.rows: Sequence[Sequence[str]] = ()
        self.first = 0
        self.names: Sequence[str] = ()
        self._left_out: Collection[str] = ()
        self._struck = QFont()
        self._struck.setStrikeOut(True)

    def fill(
        self, columns: Sequence[str], rows: Sequence[Sequence[str]], first: int, names: Sequence[str] = ()
    ) -> None:
        """Shows another page; ``first`` is the number of its first row. The selection stays if the rows do."""
        if (list(columns), rows, first, names) == (self.columns, self.rows, self.first, self.names):
            return
        self.beginResetModel()
        self.columns = list(columns)
        self.rows, self.first, self.names = rows, first, names
        self.endResetModel()

    def mark(self, names: Collection[str]) -> None:
        """Strikes the rows of these names through."""
        self._left_out = frozenset(names)
        if self.rows and self.columns:
            self.dataChanged.emit(self.index(0, 0), self.index(len(self.rows) - 1, len(self.columns) - 1))

    def is_left_out(self, row: int) -> bool:
        """Whether a row of the page is left out."""
        return row < len(self.names) and self.names[row] in self._left_out

    def rowCount(self, parent: Index = QModelIndex()) -> int:  # noqa: B008
        """Number of rows on the page."""
        return 0 if parent.isValid() else len(self.rows)

    def columnCount(self, parent: Index = QModelIndex()) -> int:  # noqa: B008
        """Number of columns."""
        return 0 if parent.isValid() else len(self.columns)

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Text of a cell, truncated; its tooltip shows more."""
        text = self.rows[index.row()][index.column()]
        if self.is_left_out(index.row()):
            if role == Qt.ItemDataRole.FontRole:
                return self._struck
            if role == Qt.ItemDataRole.ForegroundRole:
                return QColor(colours().dim)
            if role == Qt.ItemDataRole.AccessibleTextRole:
                return f"Left out: {safe_text(text, LONGEST)}"
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
    """A page of rows under a mapping header; those that are selected can be left out or put back, by their names."""

    leave_out = Signal(list)
    put_back = Signal(list)

    def __init__(self) -> None:
        super().__init__()
        self._fitted = True  # the columns, to the width
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
        self.setSelectionBehavior(QTableView.SelectionBehavior.SelectRows)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.ActionsContextMenu)
        keys = [QKeySequence(Qt.Key.Key_Delete), QKeySequence(Qt.Key.Key_Backspace)]
        self._leave_out = self._action("Leave out", self.leave_out, False, keys)
        self._put_back = self._action("Put back", self.put_back, True, [])
        self.selectionModel().selectionChanged.connect(lambda *_: self._offer())
        self.rows.modelReset.connect(self._offer)
        self._offer()

    def _action(self, title: str, signal: Any, left_out: bool, keys: list[QKeySequence]) -> QAction:
        """An action on the selected rows that are ``left_out`` or not, in the context menu and on ``keys``."""
        action = QAction(title, self)
        action.setShortcuts(keys)
        action.setShortcutContext(Qt.ShortcutContext.WidgetShortcut)
        action.triggered.connect(lambda: signal.emit(self._selected(left_out)))
        self.addAction(action)
        return action

    def _selected(self, left_out: bool) -> list[str]:
        """The names of the selected rows that are left out, or of those that are not."""
        chosen = sorted(index.row() for index in self.selectionModel().selectedRows())
        names = self.rows.names
        return [names[each] for each in chosen if each < len(names) and self.rows.is_left_out(each) == left_out]

    def _offer(self) -> None:
        self._leave_out.setEnabled(bool(self._selected(False)))
        self._put_back.setEnabled(bool(self._selected(True)))

    def mark(self, names: Collection[str]) -> None:
        """Strikes the rows of these names through."""
        self.rows.mark(names)
        self._offer()

    def show_page(
        self, columns: Sequence[str], rows: Sequence[Sequence[str]], first: int, parts: Sequence[str],
        mapping: dict[str, str], names: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """Shows rows, by their ``names``, and the column mapping."""
        fresh = list(columns) != self.rows.columns
        self.rows.fill(columns, rows, first, names)
        self.mapping.offer(columns, parts, mapping)
        if fresh and columns:
            self._fit_columns()
        self.mapping.place()

    def _fit_columns(self) -> None:
        self._fitted = self.isVisible()  # else its width is not yet known
        self.resizeColumnsToContents()
        bar = 0 if self.verticalScrollBar().isVisible() else self.verticalScrollBar().sizeHint().width()
        widest = max((self.viewport().width() - bar) // 2, 30 * GRID)
        for index in range(len(self.rows.columns)):
            self.setColumnWidth(index, min(max(self.columnWidth(index), 15 * GRID), widest))

    def showEvent(self, event: QShowEvent) -> None:
        """Fits columns that came while the page was hidden."""
        super().showEvent(event)
        if not self._fitted:
            self._fit_columns()
            self.mapping.place()
