"""The export formats as cards: what each holds, how large it becomes, and which programs open it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtGui import QMouseEvent, QResizeEvent
from PySide6.QtWidgets import QButtonGroup, QGridLayout, QRadioButton, QWidget

from sparsezo_gui.gui.formatting import size
from sparsezo_gui.gui.theme import GRID, theme
from sparsezo_gui.gui.widgets.basic import Card, add, label, restyle, row

if TYPE_CHECKING:
    from sparsezo_gui.engine.export.form import ExportFormat

WIDTH = 38 * GRID  # of a card at least; more stand side by side where there is room


class FormatCard(Card):
    """One format; a click anywhere on it chooses it."""

    def __init__(self, form: ExportFormat) -> None:
        super().__init__()
        self._help = form.help
        self.button = QRadioButton(form.title)
        self.button.setAccessibleName(form.title)
        self.button.toggled.connect(lambda on: restyle(self, chosen=on))
        self._size, self._hint = label("", "heading", name=f"Size of {form.title}"), label("", "hint", wrap=True)
        opens = label(f"Opens in {form.opens}.", "dim", wrap=True)
        for part in (self._hint, opens):
            part.setAlignment(Qt.AlignmentFlag.AlignTop)
        add(self.box, row(self.button, None, self._size), self._hint, opens, None)
        self.box.setSpacing(GRID // 2)
        self.refuse("")
        self.show_size(0)

    def show_size(self, number: int) -> None:
        """Shows about how many bytes it takes; 0: unknown."""
        self._size.setText(f"about {size(number)}")
        self._size.setVisible(number > 0 and not self._refused)

    def refuse(self, reason: str) -> None:
        """Disables it for a reason, or enables it without one."""
        self._refused = bool(reason)
        self._hint.setText(reason or self._help)
        self.button.setEnabled(not reason)
        self.button.setAccessibleDescription(reason or self._help)

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """See the class."""
        if self.button.isEnabled() and self.isEnabled() and event.button() == Qt.MouseButton.LeftButton:
            self.button.setChecked(True)
            self.button.setFocus()
        super().mousePressEvent(event)


class FormatCards(QWidget):
    """One of them is chosen."""

    changed = Signal()

    def __init__(self, forms: Mapping[str, ExportFormat]) -> None:
        super().__init__()
        self._cards = {name: FormatCard(form) for name, form in forms.items()}
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setSpacing(GRID)
        self._across = 0
        group = QButtonGroup(self)
        for card in self._cards.values():
            group.addButton(card.button)
            card.button.toggled.connect(lambda on: self.changed.emit() if on else None)
        next(iter(self._cards.values())).button.setChecked(True)
        self._place(1)

    def value(self) -> str:
        """The chosen format."""
        return next(name for name, card in self._cards.items() if card.button.isChecked())

    def choose(self, name: str) -> None:
        """Chooses a format."""
        self._cards[name].button.setChecked(True)

    def refuse(self, reasons: Mapping[str, str]) -> None:
        """Disables the formats that have a reason, and shows it; enables all others."""
        for name, card in self._cards.items():
            card.refuse(reasons.get(name, ""))

    def show_sizes(self, sizes: Mapping[str, int]) -> None:
        """Shows about how many bytes each takes."""
        for name, card in self._cards.items():
            card.show_size(sizes.get(name, 0))

    def minimumSizeHint(self) -> QSize:
        """As wide as the widest card: the others go below it."""
        widest = max(card.minimumSizeHint().width() for card in self._cards.values())
        return QSize(widest, super().minimumSizeHint().height())

    def resizeEvent(self, event: QResizeEvent) -> None:
        """As many side by side as there is room for."""
        super().resizeEvent(event)
        self._place(min(max(int(event.size().width() / (WIDTH * theme().text_scale)), 1), 3))

    def _place(self, across: int) -> None:
        if across != self._across:
            for place in range(max(self._across, across)):
                self._grid.setColumnStretch(place, int(place < across))
            self._across = across
            for place, card in enumerate(self._cards.values()):
                self._grid.addWidget(card, place // across, place % across)
