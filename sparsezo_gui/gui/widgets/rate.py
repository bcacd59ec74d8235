"""The learning rate finder: a button that starts or cancels it, and the result with a button to use it."""

from __future__ import annotations

from PySide6.QtWidgets import QVBoxLayout, QWidget

from sparsezo_gui.gui import formatting
from sparsezo_gui.gui.requests import FindRate
from sparsezo_gui.gui.theme import GRID
from sparsezo_gui.gui.widgets.basic import ProgressBar, button, label, row
from sparsezo_gui.gui.widgets.rate_chart import RateChart
from sparsezo_gui.gui.workspace import Workspace

TRYING = "Loads the model and tries several learning rates in short runs."
BEFORE = "Short runs at several learning rates. A run without a learning rate does the same at its start."


class RateFinder(QWidget):
    """Follows the workspace."""

    def __init__(self, workspace: Workspace) -> None:
        super().__init__()
        self._workspace = workspace
        self._button = button("Find learning rate", self._pressed)
        self._use = button("Use", self._take, name="Use the suggested rate")
        self._result_label = label("", "hint", wrap=True, name="Suggested rate")
        self._bar = ProgressBar("Learning rate search progress")
        line = row(self._button, self._use, self._result_label, spacing=2 * GRID)
        line.setStretch(2, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(GRID)
        layout.addLayout(line)
        layout.addWidget(self._bar)
        self._chart = RateChart()
        layout.addWidget(self._chart)
        workspace.on(FindRate, call=self.refresh)
        for signal in (workspace.recipe_changed, workspace.blocker_changed):
            signal.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Shows the search or its result."""
        workspace = self._workspace
        report, search = workspace.rates, workspace.of(FindRate)
        busy, progress = search.busy, search.progress
        self._button.setText("Cancel" if busy else "Find learning rate")
        self._button.setAccessibleName("Cancel learning rate search" if busy else "Find learning rate")
        self._button.setEnabled(busy or not workspace.blocker)
        self._button.setToolTip("" if busy else workspace.blocker or TRYING)
        self._bar.setVisible(busy)
        self._bar.show_progress(progress)
        text = f"{progress.stage}…" if progress else "Waiting for the engine…"
        if not busy:
            text = report.words if report else BEFORE
        self._result_label.setText(text)
        self._chart.setVisible(report is not None and not busy)
        if report is not None:
            self._chart.show_report(report)
        rate = report.rate if report and not busy else None
        self._use.setVisible(rate is not None and rate != workspace.recipe.update.learning_rate)
        if rate is not None:
            self._use.setText(f"Use {formatting.number(rate)}")

    def _pressed(self) -> None:
        if self._workspace.of(FindRate).busy:
            self._workspace.cancel(FindRate)
        else:
            self._workspace.find_rate()

    def _take(self) -> None:
        report = self._workspace.rates
        if report is not None:
            self._workspace.change("update", learning_rate=report.rate)
