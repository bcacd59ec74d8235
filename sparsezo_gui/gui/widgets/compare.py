"""The ways to tune as cards: memory and time of each on this computer, and a button to take it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
    card,
    label,
    restyle,
    row,
)
from sparsezo_gui.gui.widgets.sides import Columns
from sparsezo_gui.gui.wording import in_form_words
from sparsezo_gui.gui.workspace import Workspace
from sparsezo_gui.recipe.ways import uses

FIGURES = ("Memory", "A step", "Usual steps", "In all")
IN_A_ROW = 3
BEFORE = "Memory is estimated. Compare to measure memory and time."
COMPARING = "Loads the model and runs a few steps in each way."


class WaysCard(Card):
    """Follows the workspace; ``take`` changes the settings of a recipe, by table."""

    def __init__(self, workspace: Workspace, take: Callable[[dict[str, dict[str, Any]]], object]) -> None:
        super().__init__()
        self._workspace, self._take = workspace, take
        self._shown: Plan | None = None
        self._takes: list[Button] = []
        self._cards: list[Card] = []
        self._button = button("Compare on this computer", self._pressed)
        self._doing = label("", "hint", wrap=True, name="Comparison")
        self._bar = ProgressBar("Comparison progress")
        self._why = label("", wrap=True, name="Recommended way")
        self._notes = label("", "hint", wrap=True, name="Notes on the comparison")
        self._columns = Columns(IN_A_ROW, 26 * GRID, GRID, GRID)
        head = row(label("Ways to tune", "heading"), 2 * GRID, self._doing, self._button)
        head.setStretch(2, 1)
        add(self.box, head, self._bar, self._why, self._columns, self._notes)
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
            self._takes, self._cards = [], []
            for way in plan.ways if plan else ():
                self._add(way, plan is not None and way is plan.best)
            self._columns.fill(self._cards)
        for take, framed, way in zip(self._takes, self._cards, plan.ways if plan else (), strict=True):
            used = uses(self._workspace.recipe, way.tables)
            take.setText("In use" if used else "Use")
            take.setEnabled(not used and not way.problem)
            restyle(framed, chosen="true" if used else "false")

    def _add(self, way: WayFigures, recommended: bool) -> None:
        mark = badge(f"Recommended: {way.title}")
        mark.setText("Recommended")
        restyle(mark, level="fits")
        limits = label(in_form_words(way.problem or way.limits), "hint", wrap=True, name=f"Limits: {way.title}")
        numbers = QGridLayout()
        numbers.setHorizontalSpacing(2 * GRID)
        numbers.setVerticalSpacing(2)
        for place, (name, text) in enumerate(zip(FIGURES, figures(way), strict=True)):
            numbers.addWidget(label(name, "hint"), 2 * (place // 2), place % 2)
            numbers.addWidget(label(text, "heading", name=f"{name}: {way.title}"), 2 * (place // 2) + 1, place % 2)
            numbers.setColumnStretch(place % 2, 1)
        take = button("Use", lambda: self._take(way.tables), name=f"Use {way.title}", tip=in_form_words(way.problem))
        self._takes.append(take)
        title = label(way.title, "heading", wrap=True)
        title.setMinimumHeight(3 * GRID)  # that of the badge, so that all cards are alike
        framed = card(row(title, mark), numbers, limits, None, row(None, take))
        mark.setVisible(recommended)  # not before it is in the card: it would be a window of its own
        self._cards.append(framed)

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
