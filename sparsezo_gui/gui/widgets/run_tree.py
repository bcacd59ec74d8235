"""The tree of runs: each with its state, result and curve, and its branches below it; sorted and searched."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PySide6.QtCore import QModelIndex, QPersistentModelIndex, QPoint, QPointF, QRectF, QSettings, Qt, Signal
from PySide6.QtGui import QColor, QPainter, QPen, QPolygonF
from PySide6.QtWidgets import (
    QLineEdit,
    QMenu,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QToolButton,
    QTreeWidget,
    QTreeWidgetItem,
    QTreeWidgetItemIterator,
    QWidget,
)

from sparsezo_gui.answers import RunSummary
from sparsezo_gui.gui import formatting
from sparsezo_gui.gui.following import short
from sparsezo_gui.gui.record import STATES
from sparsezo_gui.gui.theme import GRID, colours
from sparsezo_gui.gui.widgets.basic import column, label
from sparsezo_gui.gui.widgets.run_columns import COLUMNS, CURVE, Columns
from sparsezo_gui.gui.widgets.safe_text import safe_name, tooltip
from sparsezo_gui.recipe.metrics import deciding, metric

PATH, ORDER, POINTS = Qt.ItemDataRole.UserRole, Qt.ItemDataRole.UserRole + 1, Qt.ItemDataRole.UserRole + 2


class Item(QTreeWidgetItem):
    """Sorts numbers as numbers, and names without regard to case."""

    def __lt__(self, other: QTreeWidgetItem) -> bool:
        """In the order of the column that is sorted by."""
        tree = self.treeWidget()
        place = tree.sortColumn() if tree is not None else 0
        one, two = self.data(place, ORDER), other.data(place, ORDER)
        return bool(one < two) if type(one) is type(two) else isinstance(one, str)


class Sparkline(QStyledItemDelegate):
    """Draws a few values as a line, from its lowest to its highest."""

    def paint(
        self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> None:
        """See the class."""
        super().paint(painter, option, index)
        values = [value for value in index.data(POINTS) or () if math.isfinite(value)]
        area = QRectF(option.rect).adjusted(GRID, 5, -GRID, -5)
        if len(values) < 2 or area.width() < 2 * GRID:
            return
        low, high = min(values), max(values)
        span = (high - low) or 1.0
        points = [
            QPointF(area.left() + area.width() * place / (len(values) - 1),
                    area.bottom() - area.height() * (value - low) / span)
            for place, value in enumerate(values)
        ]  # fmt: skip
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(QColor(colours().accent), 1.5))
        painter.drawPolyline(QPolygonF(points))
        painter.setBrush(QColor(colours().accent))
        painter.drawEllipse(points[-1], 2, 2)
        painter.restore()


class RunTree(QTreeWidget):
    """One run is selected if there are any; several can be, to compare them."""

    chosen = Signal()  # other runs are selected

    def __init__(self, store: QSettings) -> None:
        super().__init__()
        self.setAccessibleName("Runs")
        self._columns = Columns(self, store)
        self.setHeader(self._columns)
        self.setHeaderLabels(COLUMNS)
        self.setUniformRowHeights(True)
        self.setIndentation(2 * GRID)
        self.setSelectionMode(QTreeWidget.SelectionMode.ExtendedSelection)
        self.setItemDelegateForColumn(CURVE, Sparkline(self))
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.setSortingEnabled(True)
        self.sortByColumn(COLUMNS.index("Started"), Qt.SortOrder.DescendingOrder)
        self._words: list[str] = []
        self.itemSelectionChanged.connect(self.chosen)

    @property
    def path(self) -> Path | None:
        """Folder of the selected run; of several, of the one selected last."""
        item: QTreeWidgetItem | None = self.currentItem()
        return Path(item.data(0, PATH)) if item is not None else None

    @property
    def paths(self) -> list[Path]:
        """Folders of all selected runs, from top to bottom."""
        return [Path(item.data(0, PATH)) for item in self._items() if item.isSelected() and not item.isHidden()]

    def _items(self) -> list[QTreeWidgetItem]:
        found, iterator = [], QTreeWidgetItemIterator(self)
        while item := iterator.value():
            found.append(item)
            iterator += 1
        return found

    def show_runs(self, runs: Sequence[RunSummary], selected: str) -> None:
        """Shows runs, each below its parent, and selects the one at that path, else the first; emits no signal."""
        several = {str(path) for path in self.paths}
        self.blockSignals(True)
        self.setSortingEnabled(False)
        self.clear()
        items: dict[str, QTreeWidgetItem] = {}
        for run in runs:
            item = Item(items.get(run.parent, self))
            for place, (text, order) in enumerate(_cells(run)):
                item.setText(place, safe_name(text))
                item.setToolTip(place, tooltip(safe_name(text)))  # of a column that is too narrow for it
                item.setData(place, ORDER, order)
            item.setData(0, PATH, run.path)
            item.setData(CURVE, POINTS, run.curve)
            item.setToolTip(0, tooltip(f"{safe_name(run.name)}\n{safe_name(run.path)}"))
            item.setToolTip(CURVE, tooltip(f"{metric(run.metric or 'loss').title} on the validation examples"))
            items[run.path] = item
        self.setSortingEnabled(True)
        self.expandAll()
        if items:
            self.setCurrentItem(items.get(selected) or self._items()[0])
        if selected in several:
            for path in several & items.keys():
                items[path].setSelected(True)
        self.blockSignals(False)
        self.search(" ".join(self._words))
        self._columns.fit()

    def search(self, text: str) -> None:
        """Shows only runs that have all words of ``text`` in some column, and what they branched from."""
        self._words = text.lower().split()
        for item in reversed(self._items()):
            cells = " ".join(item.text(place) for place in range(len(COLUMNS))).lower()
            below = any(not child.isHidden() for place in range(item.childCount()) if (child := item.child(place)))
            item.setHidden(not below and not all(word in cells for word in self._words))

    def offer(self, entries: Sequence[tuple[str, Callable[[], object], bool]], place: QPoint) -> None:
        """Opens a context menu of titles, what they do, and whether they can now."""
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        for title, call, possible in entries:
            action = menu.addAction(title)
            action.triggered.connect(lambda _=False, call=call: call())
            action.setEnabled(possible)
        menu.addSeparator()
        menu.addMenu(self._columns.menu(menu))
        menu.popup(self.viewport().mapToGlobal(place))

    @property
    def found(self) -> int:
        """How many runs are shown."""
        return sum(not item.isHidden() for item in self._items())


class RunList(QWidget):
    """The tree below a field to search it."""

    def __init__(self, store: QSettings) -> None:
        super().__init__()
        self.tree = RunTree(store)
        self._search = QLineEdit()
        self._search.setAccessibleName("Search runs")
        self._search.setPlaceholderText("Search by name, model, data, method or tag")
        self._search.setClearButtonEnabled(True)
        self._search.textChanged.connect(self.search)
        for clear in self._search.findChildren(QToolButton):
            clear.setAccessibleName("Clear the search")
        self._none = label("No run has these words. Clear the search to see all.", "dim", name="Nothing found")
        self.setLayout(column(self._search, self._none, self.tree, spacing=GRID))

    def search(self) -> None:
        """Searches, also among new runs."""
        self.tree.search(self._search.text())
        self._none.setVisible(bool(self._search.text().strip()) and not self.tree.found)


def _cells(run: RunSummary) -> list[tuple[str, Any]]:
    """Text and sort key of each column."""
    name = f"{run.name}  (from {formatting.count(run.start)})" if run.parent else run.name
    judge = deciding(run.metrics)
    result = formatting.metric(judge, run.metrics[judge]) if judge else ""
    step = formatting.out_of(run.step, run.steps) if run.steps else ""
    state, tags = STATES.get(run.state, run.state), ", ".join(run.tags)
    words = {"State": state, "Model": short(run.model), "Data": short(run.data), "Method": run.method, "Tags": tags}
    gain = run.curve[-1] - run.curve[0] if len(run.curve) > 1 else -math.inf
    cells: dict[str, tuple[str, Any]] = {title: (text, text.lower()) for title, text in words.items()}
    cells |= {
        "Run": (name, name.lower()), "Result": (result, run.metrics.get(judge, -math.inf)), "Curve": ("", gain),
        "Step": (step, float(run.step)), "Started": (run.created[:16].replace("T", " "), run.created),
    }  # fmt: skip
    return [cells[title] for title in COLUMNS]
