"""A list of models: in each row an icon of where it is, its name, its facts, and whether tuning it fits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from PySide6.QtCore import QModelIndex, QPersistentModelIndex, QRect, QSize, Qt
from PySide6.QtGui import QColor, QFont, QFontMetrics, QPainter, QPen
from PySide6.QtWidgets import (
    QListWidget,
    QListWidgetItem,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QWidget,
)

from sparsezo_gui.gui.theme import GRID, colours, icon, theme
from sparsezo_gui.gui.widgets.safe_text import safe_name, safe_sentence, tooltip

ID, ENTRY = Qt.ItemDataRole.UserRole, Qt.ItemDataRole.UserRole + 1
ICON = 20
LEVELS = {"fits": "good", "tight": "warning", "large": "error"}


@dataclass(frozen=True)
class Entry:
    """A row: ``badge`` is a word, ``level`` that of the style sheet; ``problem`` says why it cannot be used."""

    id: str
    title: str
    facts: str
    image: str
    badge: str = ""
    level: str = ""
    problem: str = ""

    @property
    def lines(self) -> list[str]:
        """The row as text."""
        told = [f"Cannot be used: {safe_sentence(self.problem)}"] if self.problem else []
        facts = safe_name(self.facts)
        return [safe_name(self.title), " · ".join(part for part in (facts, self.badge) if part), *told]


class ModelList(QListWidget):
    """Shows `Entry` rows; only a click or Enter chooses one, not the focus."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.setAccessibleName(name)
        self.setMinimumHeight(24 * GRID)
        self.setMinimumWidth(36 * GRID)
        self.setItemDelegate(_Rows(self))
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        theme().changed.connect(self.scheduleDelayedItemsLayout)

    def show_entries(self, entries: Iterable[Entry], selected: str) -> None:
        """Shows these rows and selects the one with this id."""
        self.clear()
        for entry in entries:
            item = QListWidgetItem("\n".join(entry.lines))
            item.setData(ID, entry.id)
            item.setData(ENTRY, entry)
            item.setToolTip(tooltip(entry.problem or safe_name(entry.id)))
            self.addItem(item)
            if entry.id == selected:
                self.setCurrentItem(item)


class _Rows(QStyledItemDelegate):
    def paint(
        self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> None:
        """See the module."""
        entry, c = index.data(ENTRY), colours()
        style = option.widget.style()
        style.drawPrimitive(QStyle.PrimitiveElement.PE_PanelItemViewItem, option, painter, option.widget)
        box = QRect(option.rect).adjusted(GRID, GRID - 2, -GRID, 2 - GRID)
        painter.save()
        icon(entry.image, "dim").paint(painter, QRect(box.left(), box.top() + 2, ICON, ICON))
        box.setLeft(box.left() + ICON + GRID)
        plain, strong = _fonts(option)
        if entry.badge:
            box.setRight(self._badge(painter, box, entry, plain))
        line = QFontMetrics(strong).height()
        for number, text in enumerate((safe_name(entry.title), safe_name(entry.facts), *entry.lines[2:])):
            painter.setFont(plain if number else strong)
            painter.setPen(QColor(c.text if not number else c.error if number == 2 else c.dim))
            place = QRect(box.left(), box.top() + number * (line + 2), box.width(), line)
            shown = painter.fontMetrics().elidedText(text, Qt.TextElideMode.ElideRight, place.width())
            painter.drawText(place, Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft, shown)
        painter.restore()

    def _badge(self, painter: QPainter, box: QRect, entry: Entry, font: QFont) -> int:
        """Draws the badge at the right end; returns where the texts end."""
        metrics, colour = QFontMetrics(font), QColor(getattr(colours(), LEVELS.get(entry.level, "dim")))
        width = metrics.horizontalAdvance(entry.badge) + 2 * GRID
        place = QRect(box.right() - width, box.top() + 2, width, metrics.height() + 4)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(colour, 1))
        painter.drawRoundedRect(place, 4, 4)
        painter.setFont(font)
        painter.drawText(place, Qt.AlignmentFlag.AlignCenter, entry.badge)
        return place.left() - GRID

    def sizeHint(self, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex) -> QSize:
        """Two lines, or three with a problem."""
        entry, (_, strong) = index.data(ENTRY), _fonts(option)
        lines = 3 if entry.problem else 2
        return QSize(20 * GRID, lines * (QFontMetrics(strong).height() + 2) + 2 * GRID - 4)


def _fonts(option: QStyleOptionViewItem) -> tuple[QFont, QFont]:
    widget: QWidget = option.widget
    strong = QFont(widget.font())
    strong.setWeight(QFont.Weight.DemiBold)
    return QFont(widget.font()), strong
