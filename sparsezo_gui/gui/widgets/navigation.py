"""The list of pages on the left."""

from __future__ import annotations

from collections.abc import Mapping

from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtWidgets import QButtonGroup, QFrame, QToolButton, QVBoxLayout

from sparsezo_gui.gui.theme import GRID, icon, theme


class Navigation(QFrame):
    """A button for each page, by name and caption."""

    chosen = Signal(str)  # the page's name

    def __init__(self, pages: Mapping[str, str]) -> None:
        super().__init__()
        self.setProperty("role", "navigation")
        self._buttons: dict[str, QToolButton] = {}
        layout = QVBoxLayout(self)
        layout.setContentsMargins(GRID, 2 * GRID, GRID, GRID)
        layout.setSpacing(GRID // 2)
        group = QButtonGroup(self)
        for index, (name, caption) in enumerate(pages.items(), 1):
            entry = self._buttons[name] = QToolButton()
            entry.setText(f"  {caption}")
            entry.setAccessibleName(f"Go to {caption}")
            entry.setToolTip(f"{caption} (Ctrl+{index})")
            entry.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
            entry.setIconSize(QSize(20, 20))
            entry.setCheckable(True)
            entry.setProperty("role", "navigation")
            entry.setMinimumWidth(18 * GRID)
            entry.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
            entry.clicked.connect(lambda _=False, name=name: self.chosen.emit(name))
            group.addButton(entry)
            layout.addWidget(entry)
        layout.addStretch(1)
        theme().changed.connect(self._paint)
        self._paint()

    def show_chosen(self, name: str) -> None:
        """Marks a page as the one that is shown."""
        self._buttons[name].setChecked(True)

    def _paint(self) -> None:
        for name, entry in self._buttons.items():
            entry.setIcon(icon(name, "text"))
