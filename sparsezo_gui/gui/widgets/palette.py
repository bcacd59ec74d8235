"""The command palette: every action of the menus, found by typing a part of its name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from PySide6.QtCore import QEvent, QObject, Qt
from PySide6.QtGui import QAction, QKeyEvent, QKeySequence
from PySide6.QtWidgets import QHeaderView, QLineEdit, QMenu, QTreeWidget, QTreeWidgetItem, QWidget

from sparsezo_gui.gui.theme import GRID
from sparsezo_gui.gui.widgets.basic import label
from sparsezo_gui.gui.widgets.dialogs import Dialog

TO_THE_LIST = (Qt.Key.Key_Up, Qt.Key.Key_Down, Qt.Key.Key_PageUp, Qt.Key.Key_PageDown)


class CommandPalette(Dialog):
    """Words typed in any order leave the actions that contain them all; Enter or a click runs the chosen one."""

    def __init__(self, actions: Iterable[QAction], parent: QWidget) -> None:
        super().__init__("Find an action", parent)
        self.resize(72 * GRID, 56 * GRID)
        self._words = QLineEdit(placeholderText="Type a part of its name, such as theme or export")
        self._words.setAccessibleName("Action to find")
        self._words.textChanged.connect(self._choose)
        self._words.returnPressed.connect(self._run_chosen)
        self._words.installEventFilter(self)
        self._list = QTreeWidget(columnCount=2)
        self._list.setRootIsDecorated(False)
        self._list.setAccessibleName("Actions found")
        self._list.header().hide()
        self._list.header().setStretchLastSection(False)
        self._list.header().setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        self._list.setFocusPolicy(Qt.FocusPolicy.NoFocus)  # arrow keys reach it from the line above
        self._list.itemClicked.connect(self._run)
        self._none = label("No action has this name.", "hint")
        self._items = [self._item(title, action) for title, action in _titled(actions)]
        self._list.resizeColumnToContents(1)
        for part in (self._words, self._list, self._none):
            self.layout_.addWidget(part)
        self._choose("")

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if isinstance(event, QKeyEvent) and event.type() == QEvent.Type.KeyPress and event.key() in TO_THE_LIST:
            self._list.keyPressEvent(event)
            return True
        return super().eventFilter(watched, event)

    def _item(self, title: str, action: QAction) -> QTreeWidgetItem:
        keys = action.shortcut().toString(QKeySequence.SequenceFormat.NativeText)
        item = QTreeWidgetItem(self._list, [f"✓ {title}" if action.isChecked() else title, keys])
        item.setData(0, Qt.ItemDataRole.UserRole, action)
        return item

    def _choose(self, text: str) -> None:
        words = text.casefold().split()
        shown = [item for item in self._items if all(word in item.text(0).casefold() for word in words)]
        for item in self._items:
            item.setHidden(item not in shown)
        self._none.setVisible(not shown)
        self._list.setCurrentItem(shown[0] if shown else None)  # type: ignore[arg-type]

    def _run_chosen(self) -> None:
        if item := self._list.currentItem():
            self._run(item)

    def _run(self, item: QTreeWidgetItem) -> None:
        action: QAction = item.data(0, Qt.ItemDataRole.UserRole)
        self.accept()
        action.trigger()


def _titled(actions: Iterable[QAction], path: str = "") -> Iterator[tuple[str, QAction]]:
    """Actions of menus and of their submenus that can be run now, with the way to them."""
    for action in actions:
        title = path + re.sub("&(.)", r"\1", action.text()).removesuffix("…")
        menu = action.menu()
        if isinstance(menu, QMenu):
            menu.aboutToShow.emit()  # lists of recent files are filled now
            yield from _titled(menu.actions(), f"{title} › ")
        elif action.isEnabled() and not action.isSeparator():
            yield title, action
