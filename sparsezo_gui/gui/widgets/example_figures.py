"""Figures of the examples: their lengths, and the balance of their answers."""

from __future__ import annotations

from PySide6.QtWidgets import QWidget

from sparsezo_gui.answers import DataPreview
from sparsezo_gui.gui import formatting
from sparsezo_gui.gui.theme import GRID
from sparsezo_gui.gui.widgets.basic import column, label, restyle
from sparsezo_gui.gui.widgets.histogram import Histogram, ShareBars
from sparsezo_gui.gui.widgets.sides import AROUND, NARROW, Sides

NO_LENGTHS = "Shown once there are examples and the model is on this computer."
NO_TOKENIZER = "Unknown: the model's tokenizer cannot be used."


class ExampleFigures(QWidget):
    """A histogram of the lengths, the longest example, how many are truncated, and a bar for each answer."""

    def __init__(self) -> None:
        super().__init__()
        self.lengths, self.balance = Histogram("Example length", "tokens"), ShareBars("Class balance")
        self._longest = label("", "dim", wrap=True, name="Longest example")
        self._cut = label("", wrap=True, name="Truncated examples")
        self._balance_title = label("Answers", "heading")
        lengths, answers = QWidget(), QWidget()
        lengths.setLayout(column(label("Length", "heading"), self.lengths, self._longest, self._cut, None))
        answers.setLayout(column(self._balance_title, self.balance, None))
        sides = Sides(lengths, answers, stacked=NARROW - AROUND, spacing=4 * GRID)
        for side in range(2):
            sides.box.setStretch(side, 1)
        self.setLayout(column(sides))

    def show_preview(self, preview: DataPreview, limit: int) -> None:
        """Shows a preview; ``limit`` is the longest length in tokens that is not truncated."""
        bars, low = [], 0
        for high, number in preview.lengths:
            bars.append((low, high, number))
            low = high
        self.lengths.show_bars(bars, limit)
        self.lengths.setVisible(bool(bars))
        longest, cut = preview.longest_tokens, preview.cut
        unknown = NO_TOKENIZER if preview.tokenizer_problem else NO_LENGTHS
        self._longest.setText(f"Longest: {formatting.count(longest)} tokens." if longest else unknown)
        text = "No example is truncated."
        if cut:
            many = "example exceeds" if cut == 1 else "examples exceed"
            text = f"{formatting.count(cut)} {many} {formatting.count(limit)} tokens; the beginning is cut off."
        self._cut.setText(text)
        self._cut.setVisible(longest > 0)
        restyle(self._cut, role="error" if cut else "dim")
        classes = preview.classes or {}
        self.balance.show_shares(list(classes.items()))
        for widget in (self.balance, self._balance_title):
            widget.setVisible(bool(classes))
