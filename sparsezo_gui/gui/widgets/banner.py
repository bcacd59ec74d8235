"""A message on the page that it concerns: a sentence, optional details, and a copy button."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QFrame, QPlainTextEdit, QVBoxLayout

from sparsezo_gui.gui.problems import Problem
from sparsezo_gui.gui.theme import GRID, icon, theme
from sparsezo_gui.gui.widgets.basic import button, label, restyle, row
from sparsezo_gui.gui.wording import in_form_words


class Banner(QFrame):
    """Hidden until there is a message, which stays until it is dismissed, resolved or replaced."""

    def __init__(self) -> None:
        super().__init__()
        self.setProperty("role", "banner")
        self._level = "error"
        self._problem: Problem | None = None
        self._tracked: Problem | None = None
        self._image = label()
        self._text = label("", wrap=True, name="Message")
        self._more = button("Details", self._toggle, role="flat")
        self._copy = button("Copy", self._to_clipboard, role="flat", image="copy", name="Copy details")
        self._act = button("", self._acted, name="Suggested action")
        self._action: Callable[[], object] | None = None
        close = button("Dismiss", self.clear, role="flat")
        self._details = QPlainTextEdit(readOnly=True)
        self._details.setAccessibleName("Details")
        self._details.setProperty("role", "code")
        self._details.setFixedHeight(20 * GRID)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(2 * GRID, GRID, GRID, GRID)
        line = row(self._image, self._text, self._act, self._more, self._copy, close)
        line.setStretch(1, 1)
        layout.addLayout(line)
        layout.addWidget(self._details)
        theme().changed.connect(self._paint)
        self.clear()

    @property
    def text(self) -> str:
        """The current message."""
        return self._text.text() if self._problem else ""

    def show_problem(
        self, problem: Problem, level: str = "error", action: tuple[str, Callable[[], object]] | None = None
    ) -> None:
        """Shows a problem; ``action`` is the text and the callback of a button that resolves it."""
        if problem == self._problem and level == self._level:
            return
        self._problem, self._level = problem, level
        self._text.setText(in_form_words(problem.message))
        self._details.setPlainText(problem.details)
        self._details.hide()
        self._more.setText("Details")
        self._more.setVisible(problem.is_bug)
        self._copy.setVisible(problem.is_bug)
        self._action = action[1] if action else None
        self._act.setVisible(action is not None)
        if action:
            self._act.setText(action[0])
            self._act.setAccessibleName(action[0])
        restyle(self, level=level)
        self._paint()
        self.show()

    def clear(self) -> None:
        """Hides the message."""
        self._problem = None
        self.hide()

    def track(
        self, problem: Problem | None, level: str = "error", action: tuple[str, Callable[[], object]] | None = None
    ) -> None:
        """Shows the current problem, or hides with None. Shows each only once, so that it stays dismissed."""
        if problem == self._tracked:
            return
        self._tracked = problem
        if problem is None:
            self.clear()
        else:
            self.show_problem(problem, level, action)

    def clear_refusal(self) -> None:
        """Hides an earlier refusal; a tracked problem stays."""
        if self._problem != self._tracked:
            self.clear()

    def _acted(self) -> None:
        action = self._action
        self.clear()
        if action:
            action()

    def _toggle(self) -> None:
        shown = self._details.isHidden()
        self._details.setVisible(shown)
        self._more.setText("Hide details" if shown else "Details")

    def _to_clipboard(self) -> None:
        if self._problem:
            QGuiApplication.clipboard().setText(f"{self._problem.message}\n\n{self._problem.details}")
            self._copy.setText("Copied")

    def _paint(self) -> None:
        image, role = (self._level, self._level) if self._level in ("error", "warning") else ("info", "accent")
        self._image.setPixmap(icon(image, role).pixmap(20, 20))
        if self._problem:
            self._copy.setText("Copy")
