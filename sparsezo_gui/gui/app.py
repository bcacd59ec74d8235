"""The application: set-up, start, and exit."""

from __future__ import annotations

import gc
import locale
import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from PySide6.QtCore import QEvent, QObject, QTimer
from PySide6.QtGui import QIcon
from PySide6.QtWidgets import QApplication

from sparsezo_gui import __version__, resources, start
from sparsezo_gui.crashes import Recorder, recording
from sparsezo_gui.gui.formatting import metric
from sparsezo_gui.gui.main_window import MainWindow
from sparsezo_gui.gui.problems import Problem
from sparsezo_gui.gui.record import RunRecord
from sparsezo_gui.gui.recovery import Recovery
from sparsezo_gui.gui.requests import LoadEngine, ResumeRun, StartRun
from sparsezo_gui.gui.run_requests import ReadRun
from sparsezo_gui.gui.theme import appearance, theme
from sparsezo_gui.gui.widgets.tour import TOURED
from sparsezo_gui.gui.workspace import Workspace
from sparsezo_gui.plain import printable
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe.events import Stop

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """What the command line asks for: a recipe with its file, or a run folder."""

    recipe: Recipe | None = None
    path: Path | None = None
    run: Path | None = None
    autostart: bool = False
    exit_when_done: bool = False


def make_application() -> QApplication:
    """The only QApplication, with its names, number format and icon."""
    app = QApplication.instance() or QApplication(sys.argv[:1])
    assert isinstance(app, QApplication)
    # Qt sets the user's locale for C as well; torch and number parsers need the point in "0.5".
    locale.setlocale(locale.LC_NUMERIC, "C")
    app.setApplicationName("SparseZO")
    app.setOrganizationName("SparseZO")
    app.setApplicationVersion(__version__)
    app.setDesktopFileName("sparsezo")
    app.setWindowIcon(QIcon(str(resources.icon("sparsezo"))))
    return app


class Startup(QObject):
    """Starts in order: first paint, then the other pages one by one, then the engine."""

    def __init__(self, window: MainWindow, options: Options) -> None:
        super().__init__(window)
        self._window, self._options = window, options
        self._seen = False
        window.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Waits for the first paint."""
        if event.type() == QEvent.Type.Paint and not self._seen:
            self._seen = True
            QTimer.singleShot(0, self, self._next)
        return False

    def _next(self) -> None:
        self._window.removeEventFilter(self)
        if not self._window.isVisible():
            return  # closed already
        if self._window.make_next_page():
            QTimer.singleShot(0, self, self._next)
            return
        # What exists now stays for good: garbage collection need not scan it again.
        gc.collect()
        start.loaded()
        self._begin()

    def _begin(self) -> None:
        workspace, options = self._window.workspace, self._options
        workspace.start(options.run)
        if not (options.run or options.recipe or options.autostart or workspace.store.value(TOURED, False, bool)):
            self._window.tour.begin()
        if options.run is not None:
            self._window.go("run")
            if options.autostart:
                workspace.run.changed.connect(self._resume_when_read)
        elif options.autostart:
            self._window.go("run")
            workspace.train()

    def _resume_when_read(self) -> None:
        workspace = self._window.workspace
        if workspace.of(ReadRun).busy:
            return
        workspace.run.changed.disconnect(self._resume_when_read)
        if workspace.run.record is not None and workspace.run.record.resumable:
            workspace.run.resume_displayed()


def run(options: Options) -> int:
    """Shows the window until it is closed; returns the exit code."""
    with recording() as recorder:
        code, ended = _run(options, recorder)
    if not ended:
        # The worker is in a call that cannot be interrupted, such as an import; waiting would not help.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _run(options: Options, recorder: Recorder) -> tuple[int, bool]:
    """The exit code, and whether the worker ended."""
    app = make_application()
    workspace = Workspace()
    theme().apply(*appearance(workspace.store))
    if options.recipe is not None:
        workspace.set_recipe(options.recipe, options.path)
    window = MainWindow(workspace)
    _show_bugs(window)
    _stop_on_signals(window, workspace)
    Recovery(window, recorder)
    Startup(window, options)
    window.closed.connect(app.quit)
    if options.exit_when_done:
        workspace.run.changed.connect(lambda: _close_when_done(workspace, window))
        workspace.on(LoadEngine, call=lambda: _close_when_done(workspace, window))
    window.show()
    app.exec()
    ended = workspace.close()
    code = 0
    if options.exit_when_done:
        code = exit_code(workspace)
        _print_result(workspace)
    return code, ended


def _close_when_done(workspace: Workspace, window: MainWindow) -> None:
    waiting = workspace.busy_with(StartRun, ResumeRun, ReadRun, LoadEngine)
    record, failed = workspace.run.record, workspace.problem_of(LoadEngine, ReadRun)
    if failed or not (waiting or record is None or record.state == "starting"):
        window.close()


def exit_code(workspace: Workspace) -> int:
    """0 where the run is done, 2 where what it was given is wrong, 1 otherwise."""
    if workspace.run.record is not None and workspace.run.record.state == "done":
        return 0
    problem = _problem(workspace)
    return 1 if problem is None or problem.is_bug else 2


def _problem(workspace: Workspace) -> Problem | None:
    """Why there is no finished run."""
    return workspace.problem_of(LoadEngine, ReadRun, StartRun, ResumeRun)


def _print_result(workspace: Workspace) -> None:
    record, problem = workspace.run.record, _problem(workspace)
    if problem is not None:
        print(printable(problem.message, keep="\n"), file=sys.stderr)
        if problem.details:
            print(problem.details, file=sys.stderr)
    if record is None:
        return
    for line in result_lines(record):
        print(printable(line))


def result_lines(record: RunRecord) -> list[str]:
    """The run's result as lines of text."""
    lines = [f"{record.name or 'run'}: {record.state} after step {record.step} of {record.steps}"]
    base, last = record.before_after()
    one = last or base
    if one is not None:
        for name in one.metrics:
            if name != "examples":
                values = [metric(name, e.metrics[name]) if e and name in e.metrics else "–" for e in (base, last)]
                lines.append(f"{one.split} {name}: {values[0]} before, {values[1]} after")
    if record.general_text is not None:
        lines.append(f"perplexity on general text: {record.general_text}")
    if record.folder is not None:
        lines.append(f"run folder: {record.folder}")
    return lines


def _show_bugs(window: MainWindow) -> None:
    """An exception in a slot is shown in the window, and still goes to standard error."""

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        log.error("Exception in the window", exc_info=(kind, error, trace))
        if isinstance(error, Exception):
            window.show_bug(error, "using the window")

    sys.excepthook = hook


def _stop_on_signals(window: MainWindow, workspace: Workspace) -> None:
    """On Ctrl+C in the terminal or system shutdown: stops after the current step, then exits."""

    def stop(*_: object) -> None:
        if workspace.run.running:
            window.stop_and_close()
            workspace.run.command(Stop())
        else:
            window.close()

    handlers: list[tuple[int, Callable[..., None]]] = [(signal.SIGINT, stop), (signal.SIGTERM, stop)]
    for number, handler in handlers:
        signal.signal(number, handler)
