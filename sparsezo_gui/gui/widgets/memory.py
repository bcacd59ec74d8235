"""The memory strip: the recipe's memory by part, the device's memory, and the needs of other methods."""

from __future__ import annotations

from collections.abc import Iterable

from PySide6.QtCore import QEvent, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QHelpEvent, QPainter, QPaintEvent
from PySide6.QtWidgets import (
    QFrame,
    QHeaderView,
    QTableWidget,
    QTableWidgetItem,
    QToolTip,
    QVBoxLayout,
    QWidget,
)

from sparsezo_gui.answers import METHODS, MemoryEstimate, Part
from sparsezo_gui.gui.formatting import size
from sparsezo_gui.gui.requests import EstimateMemory, LoadEngine, MeasureMemory
from sparsezo_gui.gui.theme import GRID, colours, theme
from sparsezo_gui.gui.widgets.basic import add, button, label, restyle, row
from sparsezo_gui.gui.widgets.dialogs import Dialog
from sparsezo_gui.gui.widgets.safe_text import tooltip
from sparsezo_gui.gui.workspace import Workspace

VERDICTS = {"fits": ("Fits", "fits"), "tight": ("Tight", "tight")}  # anything else is too large
MEASURING = "Runs two real steps on the largest batch and replaces the estimate."


def verdict_of(verdict: str) -> tuple[str, str]:
    """A verdict as text and as a level of the style sheet."""
    return VERDICTS.get(verdict, ("Too large", "large"))


class MemoryBar(QWidget):
    """Parts side by side on a scale that ends at the device's memory, or beyond it if they do not fit."""

    def __init__(self) -> None:
        super().__init__()
        self.setAccessibleName("Memory by part")
        self.setMinimumHeight(3 * GRID)
        self.setMouseTracking(True)
        self._parts: list[tuple[str, int, str]] = []
        self._available = 0
        theme().changed.connect(self.update)

    def sizeHint(self) -> QSize:
        """Wide and flat."""
        return QSize(40 * GRID, 3 * GRID)

    def show_estimate(self, parts: list[tuple[str, int, str]], available: int) -> None:
        """Shows parts (name, bytes, explanation) against ``available`` bytes."""
        self._parts = [(part[0], int(part[1]), part[2]) for part in parts if part[1] > 0]
        self._available = available
        self.setAccessibleDescription("; ".join(f"{name} {size(amount)}" for name, amount, _ in self._parts))
        self.update()

    def _boxes(self) -> list[tuple[QRectF, tuple[str, int, str]]]:
        total = sum(part[1] for part in self._parts)
        scale = self.width() / max(total, self._available, 1)
        boxes, left = [], 0.0
        for part in self._parts:
            width = max(part[1] * scale, 1.0)
            boxes.append((QRectF(left, 0, width, self.height()), part))
            left += width
        return boxes

    def paintEvent(self, event: QPaintEvent) -> None:
        """Alternating tones with gaps, to distinguish parts without colour; names where they fit."""
        c, painter = colours(), QPainter(self)
        painter.fillRect(self.rect(), QColor(c.raised))
        total = sum(part[1] for part in self._parts)
        limit = self.width() * self._available / max(total, self._available, 1)
        tones = (QColor(c.accent), QColor(c.faint))
        for index, (box, part) in enumerate(self._boxes()):
            tone = tones[index % 2]
            painter.fillRect(box.adjusted(0, 0, -1 if box.width() > 3 else 0, 0), tone)
            text = f"{part[0]} {size(part[1])}"
            if painter.fontMetrics().horizontalAdvance(text) + 2 * GRID > box.width():
                text = part[0]
            if painter.fontMetrics().horizontalAdvance(text) + 2 * GRID <= box.width():
                painter.setPen(QColor(c.on_accent if tone == tones[0] else c.text))
                painter.drawText(box.adjusted(GRID, 0, -GRID, 0), Qt.AlignmentFlag.AlignVCenter, text)
        if self._available and total > self._available:
            painter.setPen(QColor(c.error))
            painter.fillRect(QRectF(limit - 1, 0, 3, self.height()), QColor(c.error))

    def event(self, event: QEvent) -> bool:
        """The part under the pointer, as a tooltip."""
        if event.type() == QEvent.Type.ToolTip and isinstance(event, QHelpEvent):
            for box, (name, amount, why) in self._boxes():
                if box.contains(event.pos()):
                    QToolTip.showText(event.globalPos(), tooltip(f"{name}: {size(amount)}\n{why}"), self)
                    return True
        return super().event(event)


class MemoryStrip(QFrame):
    """The bar with figures, a comparison and the Measure button; follows the workspace. `NextRun` has the verdict."""

    def __init__(self, workspace: Workspace) -> None:
        super().__init__()
        self.setProperty("role", "strip")
        self._workspace = workspace
        self._text = label("", wrap=True, name="Memory needed")
        self._others = label("", "dim", name="Memory of other methods")
        self.bar = MemoryBar()
        self._parts = button("Details…", self._show_parts, role="flat", name="Memory details")
        self._measure = button("Measure", self._pressed, image="measure")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(3 * GRID, GRID, 3 * GRID, GRID)
        layout.setSpacing(GRID // 2)
        head = row(self._text, self._parts, self._measure)
        head.setStretch(0, 1)
        layout.addLayout(head)
        layout.addWidget(self.bar)
        layout.addWidget(self._others)
        workspace.on(EstimateMemory, MeasureMemory, call=self.refresh)
        workspace.on(LoadEngine, call=self.refresh)
        for signal in (workspace.recipe_changed, workspace.blocker_changed):
            signal.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Shows the workspace's estimate or measurement."""
        workspace = self._workspace
        estimate, problem = workspace.memory, workspace.problem_of(MeasureMemory, EstimateMemory)
        measuring = workspace.of(MeasureMemory).busy
        self._measure.setText("Cancel" if measuring else "Measure")
        self._measure.setAccessibleName("Cancel measuring" if measuring else "Measure memory")
        self._measure.setEnabled(measuring or not workspace.blocker)
        self._measure.setToolTip("" if measuring else workspace.blocker or MEASURING)
        self._parts.setEnabled(estimate is not None and problem is None)
        if problem is not None or estimate is None:
            told = problem.message.split("\n")[0] if problem else ""
            if workspace.model and workspace.model.problem == told:  # which the bar above every page says
                told = ""
            unknown = problem is not None or workspace.engine_state == "failed"
            waiting = "Memory: unknown." if unknown else "Memory: waiting for the engine…"
            self._say(told or waiting, "", bool(told))
            self.bar.show_estimate([], 0)
            return
        how = "measured" if estimate.measured else "estimated"
        text = f"Memory: {size(estimate.total)} of {size(estimate.available)} ({how})"
        if measuring:
            progress = workspace.of(MeasureMemory).progress
            text += f" · {progress.stage if progress else 'measuring'}…"
        others = " · ".join(f"{METHODS[name]} {size(amount)}" for name, amount in estimate.others.items())
        lines = [f"Other methods: {others}"] if others else []
        if estimate.small < estimate.total:
            lines.insert(0, f"With less memory, in smaller passes: {size(estimate.small)}")
        if estimate.search:
            lines.insert(0, f"Finding the mask, before the run: {size(estimate.search)} more")
        mark = "Estimated. " if estimate.measured and lines else ""  # else the line above says it of everything
        self._say(text, mark + ". ".join(lines), False)
        self.bar.show_estimate(_triples(estimate.parts), estimate.available)

    def _say(self, text: str, others: str, is_error: bool) -> None:
        self._text.setText(text)
        restyle(self._text, role="error" if is_error else "")
        self._others.setText(others)

    def _pressed(self) -> None:
        if self._workspace.of(MeasureMemory).busy:
            self._workspace.cancel(MeasureMemory)
        else:
            self._workspace.measure()

    def _show_parts(self) -> None:
        if self._workspace.memory is not None:
            PartsDialog(self._workspace.memory, self).open()


class PartsDialog(Dialog):
    """The parts as a table, with the purpose of each."""

    def __init__(self, estimate: MemoryEstimate, parent: QWidget) -> None:
        super().__init__("Memory details", parent)
        self.resize(90 * GRID, 48 * GRID)
        rows = [
            *_triples(estimate.parts),
            ("Total", estimate.total, f"{size(estimate.available)} available on this device."),
        ]
        if estimate.search:
            rows.append(("Finding the mask", estimate.search, "Estimated: more than the total, before the run."))
        table = QTableWidget(len(rows), 3)
        table.setAccessibleName("Memory by part")
        table.setHorizontalHeaderLabels(["Part", "Memory", "Purpose"])
        table.verticalHeader().hide()
        table.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        table.setWordWrap(True)
        table.setShowGrid(False)
        table.setAlternatingRowColors(True)
        table.setSelectionMode(QTableWidget.SelectionMode.NoSelection)
        table.horizontalHeader().setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        for index, (name, amount, why) in enumerate(rows):
            cells = [QTableWidgetItem(text) for text in (name, size(amount), why)]
            cells[1].setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            for place, cell in enumerate(cells):
                table.setItem(index, place, cell)
        table.resizeColumnsToContents()
        table.horizontalHeader().setSectionResizeMode(2, QHeaderView.ResizeMode.Stretch)
        table.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        add(self.layout_, table, row(None, button("Close", self.reject, name="Close memory details")))


def _triples(parts: Iterable[Part]) -> list[tuple[str, int, str]]:
    """Parts as (name, bytes, why)."""
    return [(part.name, part.bytes, part.why) for part in parts]
