"""The mask card: the mask's source, the cost of finding it, and its distribution over the model once found."""

from __future__ import annotations

import re

from PySide6.QtCore import QEvent, QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QHelpEvent, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QSizePolicy, QToolTip, QWidget

from sparsezo_gui.answers import Tally
from sparsezo_gui.gui import formatting
from sparsezo_gui.gui.requests import FindMask
from sparsezo_gui.gui.theme import GRID, colours, theme
from sparsezo_gui.gui.widgets.basic import Card, ProgressBar, add, button, column, label, row
from sparsezo_gui.gui.widgets.histogram import ShareBars
from sparsezo_gui.gui.widgets.overlap import Overlaps
from sparsezo_gui.gui.widgets.safe_text import safe_name, tooltip
from sparsezo_gui.gui.widgets.sides import AROUND, NARROW, Sides
from sparsezo_gui.gui.wording import grouped_numbers
from sparsezo_gui.gui.workspace import Workspace

_percent = formatting.share
WIDEST = 8 * GRID  # of a bar, in a model with few blocks


class BlockChart(QWidget):
    """One bar per decoder block: the share of its weights that is tuned; the average is a dashed line."""

    def __init__(self) -> None:
        super().__init__()
        self.setAccessibleName("Tuned weights by block")
        self.setMinimumHeight(16 * GRID)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        self._blocks: tuple[Tally, ...] = ()
        self._average = 0.0
        theme().changed.connect(self.update)

    def sizeHint(self) -> QSize:
        """About three times as wide as high."""
        return QSize(56 * GRID, 18 * GRID)

    def show_blocks(self, blocks: tuple[Tally, ...], average: float) -> None:
        """Shows tallies (label, tuned, weights) and the tuned share of all weights."""
        self._blocks, self._average = blocks, average
        most, least = max(blocks, key=_share), min(blocks, key=_share)
        self.setAccessibleDescription(
            f"{len(blocks)} blocks. Block {most.label} has the highest tuned share ({_percent(_share(most))}), block "
            f"{least.label} the lowest ({_percent(_share(least))}); the average is {_percent(average)}."
        )
        self.update()

    def _frame(self) -> tuple[QRectF, float]:
        """Rectangle of the bars, and the share at its top edge."""
        metrics, top = self.fontMetrics(), max(map(_share, self._blocks))
        left = max(metrics.horizontalAdvance(text) for text in (_percent(top), "0")) + GRID
        right = metrics.horizontalAdvance(self._average_text()) + 2 * GRID
        width = min(self.width() - left - right, WIDEST * len(self._blocks))
        line = metrics.height()
        return QRectF(left, line / 2, max(width, 1), self.height() - 1.5 * line - GRID), top or 1.0

    def _slot(self, frame: QRectF, index: int) -> QRectF:
        width = frame.width() / len(self._blocks)
        return QRectF(frame.left() + index * width, frame.top(), width, frame.height())

    def _average_text(self) -> str:
        return f"average {_percent(self._average)}"

    def paintEvent(self, event: QPaintEvent) -> None:
        """Bars on a baseline, shares on the left, the average on the right, blocks below."""
        if not self._blocks:
            return
        c, painter = colours(), QPainter(self)
        frame, top = self._frame()
        line = painter.fontMetrics().height()
        for index, block in enumerate(self._blocks):
            slot = self._slot(frame, index)
            gap = min(slot.width() / 4, GRID / 2)
            height = frame.height() * _share(block) / top
            bar = QRectF(slot.left() + gap / 2, frame.bottom() - height, slot.width() - gap, height)
            painter.fillRect(bar, QColor(c.accent))
        painter.setPen(QColor(c.strong_border))
        painter.drawLine(frame.bottomLeft(), frame.bottomRight())
        painter.setPen(QColor(c.dim))
        aside = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        for share, y in ((_percent(top), frame.top()), ("0", frame.bottom())):
            painter.drawText(QRectF(0, y - line / 2, frame.left() - GRID / 2, line), aside, share)
        below = QRectF(frame.left(), frame.bottom() + GRID / 2, frame.width(), line)
        first, last = self._blocks[0].label, self._blocks[-1].label
        painter.drawText(below, Qt.AlignmentFlag.AlignLeft, f"block {first}")
        painter.drawText(below, Qt.AlignmentFlag.AlignRight, last if first != last else "")
        height = frame.bottom() - frame.height() * self._average / top
        painter.setPen(QPen(QColor(c.second), 1, Qt.PenStyle.DashLine))
        painter.drawLine(QPointF(frame.left(), height), QPointF(frame.right() + GRID / 2, height))
        place = QRectF(frame.right() + GRID, height - line / 2, self.width() - frame.right(), line)
        painter.drawText(place, Qt.AlignmentFlag.AlignVCenter, self._average_text())

    def event(self, event: QEvent) -> bool:
        """The block under the pointer, as a tooltip."""
        if event.type() == QEvent.Type.ToolTip and isinstance(event, QHelpEvent) and self._blocks:
            frame, _ = self._frame()
            for index, block in enumerate(self._blocks):
                if self._slot(frame, index).contains(event.pos()):
                    text = f"Block {block.label}: {_counts(block.tuned, block.weights)}"
                    QToolTip.showText(event.globalPos(), tooltip(text), self)
                    return True
            QToolTip.hideText()
        return super().event(event)


class MaskCard(Card):
    """Source, cost, a button that finds the mask or cancels the search, and the result; follows the workspace."""

    def __init__(self, workspace: Workspace) -> None:
        super().__init__()
        self._workspace = workspace
        self._source = label("", wrap=True, name="Source of the mask", read=True)
        self._cost = label("", "hint", wrap=True, name="Cost of the mask")
        self._button = button("Find mask", self._pressed)
        self._doing = label("", name="Mask search")
        self._bar = ProgressBar("Mask search progress")
        self._hint = label(
            "Once found, the mask is shown here by block, and runs use it. Otherwise, a run finds it when it starts.",
            "hint", wrap=True, name="Mask not found yet",
        )  # fmt: skip
        self._result_label = label("", wrap=True, name="Mask found")
        self._blocks, self._kinds = BlockChart(), ShareBars("Tuned weights by kind")
        blocks, kinds = QWidget(), QWidget()
        blocks.setLayout(column(label("Tuned share of each block", "heading"), self._blocks))
        kinds.setLayout(column(label("Tuned weights by kind", "heading"), self._kinds, None))
        figures = Sides(blocks, kinds, stacked=NARROW - AROUND, spacing=3 * GRID)
        figures.box.setStretch(0, 3)
        figures.box.setStretch(1, 2)
        self._result = QWidget()
        self._overlaps = Overlaps()
        self._result.setLayout(column(self._result_label, figures, self._overlaps, spacing=2 * GRID))
        head = row(column(label("Mask", "heading"), self._source, self._cost), self._button, spacing=3 * GRID)
        head.setStretch(0, 1)
        head.setAlignment(self._button, Qt.AlignmentFlag.AlignTop)
        add(self.box, head, row(self._doing, self._bar), self._hint, self._result)
        workspace.on(FindMask, call=self.refresh)
        for signal in (workspace.recipe_changed, workspace.blocker_changed):
            signal.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Shows the recipe's rule, and its mask if the workspace has it."""
        workspace, rule = self._workspace, self._workspace.recipe.mask
        report, search = workspace.mask, workspace.of(FindMask)
        busy, progress = search.busy, search.progress
        # Long paths have no spaces to wrap at.
        self._source.setText(re.sub(r"([/\\])", "\\1\u200b", safe_name(grouped_numbers(rule.source()))))
        self._cost.setText(grouped_numbers(rule.cost()))
        self._cost.setVisible(bool(rule.cost()))
        self._button.setText("Cancel" if busy else "Find again" if report else "Find mask")
        self._button.setAccessibleName("Cancel finding the mask" if busy else "Find the mask")
        self._button.setVisible(busy or bool(rule.cost()))
        self._button.setEnabled(busy or not workspace.blocker)
        self._button.setToolTip("" if busy else workspace.blocker or "Loads the model and finds the mask.")
        self._doing.setText(f"{progress.stage}…" if progress else "Waiting for the engine…")
        self._bar.show_progress(progress)
        for part in (self._doing, self._bar):
            part.setVisible(busy)
        self._hint.setVisible(bool(rule.cost()) and not busy and report is None)
        self._result.setVisible(report is not None)
        if report is not None:
            cost = report.cost
            took = formatting.latency(cost.seconds) if cost.seconds < 1 else formatting.duration(cost.seconds)
            peak = f" and up to {formatting.size(cost.bytes)} of memory"
            counts = _counts(report.tuned, report.eligible)
            self._result_label.setText(f"{counts} are tuned. Finding them took {took}{peak}.")
            self._blocks.show_blocks(report.layers, report.tuned / max(report.eligible, 1))
            self._overlaps.show_overlaps(report.overlaps)
            self._kinds.show_shares([(kind.label, kind.tuned) for kind in report.kinds])

    def _pressed(self) -> None:
        if self._workspace.of(FindMask).busy:
            self._workspace.cancel(FindMask)
        else:
            self._workspace.find_mask()


def _share(tally: Tally) -> float:
    return tally.tuned / max(tally.weights, 1)


def _counts(tuned: int, weights: int) -> str:
    """Exact counts and their share."""
    return f"{formatting.out_of(tuned, weights)} weights ({_percent(tuned / max(weights, 1))})"
