"""The ways to tune side by side: memory and time of each on this computer, and a button to take it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QGridLayout

from sparsezo_gui.answers import Plan, WayFigures
from sparsezo_gui.gui import formatting
from sparsezo_gui.gui.requests import CompareWays, EstimateWays
from sparsezo_gui.gui.theme import GRID
from sparsezo_gui.gui.widgets.basic import (
    Button,
    Card,
    ProgressBar,
    add,
    badge,
    button,
    clear,
    column,
    label,
    restyle,
    row,
)
from sparsezo_gui.gui.wording import in_form_words
from sparsezo_gui.gui.workspace import Workspace
from sparsezo_gui.recipe.ways import uses

COLUMNS = ("Way", "Memory", "A step", "Usual steps", "In all", "")
BEFORE = "Memory is estimated. Compare to measure memory and time."
COMPARING = "Loads the model and runs a few steps in each way."


class WaysCard(Card):
    """Follows the workspace; ``take`` changes the settings of a recipe, by table."""

    def __init__(self, workspace: Workspace, take: Callable[[dict[str, dict[str, Any]]], object]) -> None:
        super().__init__()
        self._workspace, self._take = workspace, take
        self._shown: Plan | None = None
        self._takes: list[Button] = []
        self._button = button("Compare on this computer", self._pressed)
        self._doing = label("", "hint", wrap=True, name="Comparison")
        self._bar = ProgressBar("Comparison progress")
        self._why = label("", wrap=True, name="Recommended way")
        self._notes = label("", "hint", wrap=True, name="Notes on the comparison")
        self._grid = QGridLayout()
        self._grid.setHorizontalSpacing(3 * GRID)
        self._grid.setVerticalSpacing(GRID)
        head = row(label("Compare ways", "heading"), 2 * GRID, self._doing, self._button)
        head.setStretch(2, 1)
        add(self.box, head, self._bar, self._grid, self._why, self._notes)
        workspace.on(EstimateWays, CompareWays, call=self.refresh)
        for signal in (workspace.recipe_changed, workspace.blocker_changed):
            signal.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Shows the workspace's plan, or how far the comparison is."""
        workspace, search = self._workspace, self._workspace.of(CompareWays)
        plan, busy, progress = workspace.plan, search.busy, search.progress
        self._button.setText("Cancel" if busy else "Compare on this computer")
        self._button.setAccessibleName("Cancel the comparison" if busy else "Compare on this computer")
        self._button.setEnabled(busy or not workspace.blocker)
        self._button.setToolTip("" if busy else workspace.blocker or COMPARING)
        self._bar.setVisible(busy)
        self._bar.show_progress(progress)
        measured = plan is not None and any(way.pace for way in plan.ways)
        waiting = f"{progress.stage}…" if progress else "Waiting for the engine…"
        self._doing.setText(waiting if busy else "" if measured else BEFORE)
        for part, text in ((self._why, plan.why if plan else ""), (self._notes, " ".join(plan.notes) if plan else "")):
            part.setText(in_form_words(text))
            part.setVisible(bool(text))
        self._show(plan)

    def _show(self, plan: Plan | None) -> None:
        if plan is not self._shown:
            self._shown = plan
            clear(self._grid)
            self._takes = []
            for place, title in enumerate(COLUMNS if plan else ()):
                self._put(title, 0, place, "hint")
            for index, way in enumerate(plan.ways if plan else ()):
                self._add(way, index + 1, plan is not None and way is plan.best)
            self._grid.setColumnStretch(0, 1)
        for take, way in zip(self._takes, plan.ways if plan else (), strict=True):
            used = uses(self._workspace.recipe, way.tables)
            take.setText("In use" if used else "Use")
            take.setEnabled(not used and not way.problem)

    def _add(self, way: WayFigures, line: int, recommended: bool) -> None:
        mark = badge(f"Recommended: {way.title}")
        mark.setText("Recommended")
        restyle(mark, level="fits")
        mark.setVisible(recommended)
        limits = label(in_form_words(way.problem or way.limits), "hint", wrap=True, name=f"Limits: {way.title}")
        self._grid.addLayout(column(row(label(way.title, "heading"), mark, None), limits, spacing=2), line, 0)
        for place, text in enumerate(figures(way), 1):
            self._put(text, line, place, name=f"{COLUMNS[place]}: {way.title}")
        take = button("Use", lambda: self._take(way.tables), name=f"Use {way.title}", tip=in_form_words(way.problem))
        self._takes.append(take)
        self._grid.addWidget(take, line, len(COLUMNS) - 1, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)

    def _put(self, text: str, line: int, place: int, role: str = "", name: str = "") -> None:
        side = Qt.AlignmentFlag.AlignLeft if place == 0 else Qt.AlignmentFlag.AlignRight
        self._grid.addWidget(label(text, role, name=name), line, place, side | Qt.AlignmentFlag.AlignVCenter)

    def _pressed(self) -> None:
        if self._workspace.of(CompareWays).busy:
            self._workspace.cancel(CompareWays)
        else:
            self._workspace.compare_ways()


def figures(way: WayFigures) -> tuple[str, str, str, str]:
    """Memory, a step, usual steps, and the whole run, as text."""
    memory, pace = way.memory, way.pace
    how = f" ({'measured' if memory.measured else 'estimated'})" if memory else ""
    return (
        f"{formatting.size(memory.most)}{how}" if memory else "–",
        formatting.latency(pace.seconds) if pace else "–",
        formatting.count(way.steps),
        formatting.duration(way.seconds) if way.seconds is not None else "–",
    )
