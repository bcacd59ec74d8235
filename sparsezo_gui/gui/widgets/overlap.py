"""How much of a mask is in the other masks of its model, as a small table."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QGridLayout, QWidget

from sparsezo_gui.answers import Overlap
from sparsezo_gui.gui import formatting
from sparsezo_gui.gui.theme import GRID
from sparsezo_gui.gui.widgets.basic import clear, column, label

HEADS = ("Other mask", "Its weights", "In both", "Share of this mask", "By chance")
ABOUT = "With the masks of this model that were found before. By chance: what two random masks of these sizes share."
RIGHT = Qt.AlignmentFlag.AlignRight


class Overlaps(QWidget):
    """A row for each other mask; hidden without one."""

    def __init__(self) -> None:
        super().__init__()
        self._lines = QGridLayout()
        self._lines.setHorizontalSpacing(3 * GRID)
        self._lines.setVerticalSpacing(GRID // 2)
        self._lines.setColumnStretch(0, 1)
        self.setLayout(
            column(label("Overlap with other masks", "heading"), label(ABOUT, "hint", wrap=True), self._lines)
        )

    def show_overlaps(self, overlaps: tuple[Overlap, ...]) -> None:
        """Shows the masks, the one with the largest overlap first."""
        clear(self._lines)
        self.setVisible(bool(overlaps))
        for place, head in enumerate(HEADS):
            self._lines.addWidget(label(head, "dim"), 0, place, RIGHT if place else Qt.AlignmentFlag(0))
        for line, overlap in enumerate(overlaps, 1):
            settings = settings_of(overlap)
            title = f"{overlap.rule} ({settings})" if settings else overlap.rule
            self._lines.addWidget(label(title, wrap=True, name=f"Mask {line}"), line, 0)
            share, chance = formatting.share(overlap.share), formatting.share(overlap.chance)
            values = formatting.grouped(overlap.tuned), formatting.grouped(overlap.shared), share, chance
            for place, (head, value) in enumerate(zip(HEADS[1:], values, strict=True), 1):
                name = f"{head}: mask {line}"
                self._lines.addWidget(label(value, name=name), line, place, RIGHT)


def settings_of(overlap: Overlap) -> str:
    """Its settings that differ, such as 'density 0.001, text task'."""
    parts = []
    for key, value in overlap.settings.items():
        shown = formatting.number(value) if isinstance(value, int | float) else str(value)
        parts.append(f"{formatting.field_label(key).lower()} {'automatic' if shown == '0' else shown}")
    return ", ".join(parts)
