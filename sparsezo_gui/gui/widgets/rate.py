"""The learning rate finder."""

from __future__ import annotations

from sparsezo_gui.answers import RateReport
from sparsezo_gui.gui.requests import FindRate
from sparsezo_gui.gui.widgets.finder import Finder
from sparsezo_gui.gui.widgets.rate_chart import RateChart
from sparsezo_gui.gui.workspace import Workspace


class RateFinder(Finder):
    """See `Finder`."""

    kind = FindRate
    title, searching, result = "Find learning rate", "learning rate search", "Suggested rate"
    trying = "Loads the model and tries several learning rates in short runs."
    before = "Short runs at several learning rates. A run without a learning rate does the same at its start."

    def __init__(self, workspace: Workspace) -> None:
        super().__init__(workspace, RateChart())

    def report(self) -> RateReport | None:
        """See `Finder.report`."""
        return self._workspace.rates

    def found(self) -> float | None:
        """See `Finder.found`."""
        report = self.report()
        rate = report.rate if report else None
        return rate if rate != self._workspace.recipe.update.learning_rate else None

    def use(self, value: float) -> None:
        """See `Finder.use`."""
        self._workspace.change("update", learning_rate=value)

    def search(self) -> None:
        """See `Finder.search`."""
        self._workspace.find_rate()
