"""A search for a setting's value: a button that starts or cancels it, its result, a button to use it, and a plot."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from PySide6.QtWidgets import QVBoxLayout, QWidget

from sparsezo_gui.gui import formatting
from sparsezo_gui.gui.calls import Request
from sparsezo_gui.gui.theme import GRID
from sparsezo_gui.gui.widgets.basic import ProgressBar, button, label, row
from sparsezo_gui.gui.wording import in_form_words
from sparsezo_gui.gui.workspace import Workspace


class Finder(QWidget):
    """Follows the workspace. Subclasses say what is searched, in ``words`` that are the fields here."""

    kind: ClassVar[type[Request[Any]]]
    title: ClassVar[str]
    """Of the button that starts the search."""
    searching: ClassVar[str]
    """What goes on meanwhile, as part of a sentence: 'learning rate search'."""
    result: ClassVar[str]
    """The accessible name of the result: 'Suggested rate'."""
    trying: ClassVar[str]
    """What the button does, as its tooltip."""
    before: ClassVar[str]
    """What is shown without a result."""

    def __init__(self, workspace: Workspace, chart: Any) -> None:
        super().__init__()
        self._workspace, self._chart = workspace, chart
        self._button = button(self.title, self._pressed)
        self._use = button("Use", self._take, name=f"Use the {self.result[:1].lower()}{self.result[1:]}")
        self._result_label = label("", "hint", wrap=True, name=self.result)
        self._bar = ProgressBar(f"{self.searching[:1].upper()}{self.searching[1:]} progress")
        line = row(self._button, self._use, self._result_label, spacing=2 * GRID)
        line.setStretch(2, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(GRID)
        layout.addLayout(line)
        layout.addWidget(self._bar)
        layout.addWidget(chart)
        workspace.on(self.kind, call=self.refresh)
        for signal in (workspace.recipe_changed, workspace.blocker_changed):
            signal.connect(self.refresh)
        self.refresh()

    @abstractmethod
    def report(self) -> Any:
        """What was found for the recipe: it has `words`; or None."""

    @abstractmethod
    def found(self) -> float | None:
        """The value to use, if it is not in use."""

    @abstractmethod
    def use(self, value: float) -> None:
        """Puts ``value`` in the recipe."""

    @abstractmethod
    def search(self) -> None:
        """Starts the search."""

    def refresh(self) -> None:
        """Shows the search or its result."""
        workspace, report = self._workspace, self.report()
        work = workspace.of(self.kind)
        busy, progress = work.busy, work.progress
        self._button.setText("Cancel" if busy else self.title)
        self._button.setAccessibleName(f"Cancel {self.searching}" if busy else self.title)
        self._button.setEnabled(busy or not workspace.blocker)
        self._button.setToolTip("" if busy else workspace.blocker or self.trying)
        self._bar.setVisible(busy)
        self._bar.show_progress(progress)
        text = f"{progress.stage}…" if progress else "Waiting for the engine…"
        if not busy:
            text = in_form_words(report.words) if report else self.before
        self._result_label.setText(text)
        self._chart.setVisible(report is not None and not busy)
        if report is not None:
            self._chart.show_report(report)
        value = self.found() if report and not busy else None
        self._use.setVisible(value is not None)
        if value is not None:
            self._use.setText(f"Use {formatting.number(value)}")

    def _pressed(self) -> None:
        if self._workspace.of(self.kind).busy:
            self._workspace.cancel(self.kind)
        else:
            self.search()

    def _take(self) -> None:
        value = self.found()
        if value is not None:
            self.use(value)
