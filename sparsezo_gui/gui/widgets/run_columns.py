"""The columns of the list of runs: as many as fit beside the name, or those that the user chose."""

from __future__ import annotations

from PySide6.QtCore import QSettings, Qt
from PySide6.QtGui import QContextMenuEvent, QResizeEvent, QShowEvent
from PySide6.QtWidgets import QHeaderView, QMenu, QTreeView, QWidget

from sparsezo_gui.gui.kept import texts
from sparsezo_gui.gui.theme import GRID

COLUMNS = ("Run", "Model", "Data", "Method", "Result", "Curve", "Started", "Step", "State", "Tags")
CURVE = COLUMNS.index("Curve")
NAME, WIDEST = 15 * GRID, 28 * GRID  # pixels that a long name has at least and at most
OTHER = 13 * GRID  # that another column has at most
KEY = "run_columns"


class Columns(QHeaderView):
    """Its context menu chooses; a choice is kept in the settings."""

    def __init__(self, tree: QTreeView, store: QSettings) -> None:
        super().__init__(Qt.Orientation.Horizontal, tree)
        self._tree, self._store = tree, store
        self.setSectionsClickable(True)
        self.setStretchLastSection(False)
        self.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        self.setAccessibleName("Columns of the list of runs")
        self.setToolTip("Right-click to choose columns.")

    @property
    def chosen(self) -> list[str]:
        """Titles of the columns that the user chose; empty while those are shown that fit."""
        return [title for title in texts(self._store, KEY) if title in COLUMNS]

    def fit(self) -> None:
        """Shows the columns, and gives the name what the others leave."""
        if self.count() < len(COLUMNS):
            return
        wide, chosen, room = [self._wide(place) for place in range(len(COLUMNS))], self.chosen, self.width()
        left = room - min(wide[0], NAME)
        for place, title in enumerate(COLUMNS[1:], 1):
            shown = title in chosen if chosen else wide[place] <= left
            left -= wide[place] if shown else 0
            self.setSectionHidden(place, not shown)
            self.resizeSection(place, wide[place])
        self.resizeSection(0, min(wide[0], NAME + max(left, 0)))

    def _wide(self, place: int) -> int:
        """Pixels of a column's title and cells."""
        cells = 9 * GRID if place == CURVE else self._tree.sizeHintForColumn(place)
        return min(max(cells, self.sectionSizeFromContents(place).width()), OTHER if place else WIDEST)

    def menu(self, parent: QWidget) -> QMenu:
        """One checkable entry for each column but the name, and one to show what fits."""
        menu = QMenu("Columns", parent)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        for place, title in enumerate(COLUMNS[1:], 1):
            action = menu.addAction(title)
            action.setCheckable(True)
            action.setChecked(not self.isSectionHidden(place))
            action.triggered.connect(lambda on, title=title: self._choose(title, on))
        menu.addSeparator()
        fits = menu.addAction("Show what fits")
        fits.setCheckable(True)
        fits.setChecked(not self.chosen)
        fits.triggered.connect(self._show_what_fits)
        return menu

    def _choose(self, title: str, on: bool) -> None:
        shown = {each for place, each in enumerate(COLUMNS) if not self.isSectionHidden(place)} - {title}
        self._store.setValue(KEY, [each for each in COLUMNS if each in shown or (on and each == title)])
        self.fit()

    def _show_what_fits(self) -> None:
        self._store.remove(KEY)
        self.fit()

    def contextMenuEvent(self, event: QContextMenuEvent) -> None:
        """Offers the columns."""
        self.menu(self).popup(event.globalPos())

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Follows the width of the list."""
        super().resizeEvent(event)
        self.fit()

    def showEvent(self, event: QShowEvent) -> None:
        """The style sheet decides how wide texts are, once they are shown."""
        super().showEvent(event)
        self.fit()
