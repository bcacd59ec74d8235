"""The main window: navigation, pages, memory strip, menus. Its state lives in the workspace and the pages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from PySide6.QtCore import QByteArray, QSize, Qt, QTimer, QUrl, Signal
from PySide6.QtGui import QCloseEvent, QDesktopServices
from PySide6.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QMainWindow,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from sparsezo_gui.answers import ModelCode
from sparsezo_gui.errors import UserError
from sparsezo_gui.gui.attention import Attention
from sparsezo_gui.gui.calls import Request
from sparsezo_gui.gui.chat import ChatDock
from sparsezo_gui.gui.drops import Drops
from sparsezo_gui.gui.focus import move_focus
from sparsezo_gui.gui.formatting import out_of
from sparsezo_gui.gui.menus import Menus
from sparsezo_gui.gui.pages import PAGES, make_page
from sparsezo_gui.gui.problems import Problem, explain
from sparsezo_gui.gui.record import STATES, RunRecord
from sparsezo_gui.gui.requests import LoadEngine
from sparsezo_gui.gui.saving import save, with_suffix
from sparsezo_gui.gui.theme import GRID
from sparsezo_gui.gui.widgets.basic import Page, label
from sparsezo_gui.gui.widgets.consent import ConsentDialog
from sparsezo_gui.gui.widgets.dialogs import RecipeDialog, ask_to_close
from sparsezo_gui.gui.widgets.memory import MemoryStrip
from sparsezo_gui.gui.widgets.navigation import Navigation
from sparsezo_gui.gui.widgets.next_run import NextRun
from sparsezo_gui.gui.widgets.safe_text import safe_name
from sparsezo_gui.gui.widgets.tour import Tour
from sparsezo_gui.gui.workspace import Workspace
from sparsezo_gui.recipe import dump, load
from sparsezo_gui.recipe.events import Stop

if TYPE_CHECKING:  # pages are imported when they are first needed, after the first paint: their plots take a while
    from sparsezo_gui.gui.pages.export import ExportPage
    from sparsezo_gui.gui.pages.run import RunPage


class MainWindow(QMainWindow):
    """Pages are created when first shown, or one by one once the window is open."""

    closed = Signal()  # the window was closed

    def __init__(self, workspace: Workspace) -> None:
        super().__init__()
        self.workspace = workspace
        self.setMinimumSize(100 * GRID, 54 * GRID)
        self.resize(QSize(1280, 800).boundedTo(self.screen().availableSize()))
        self._pages: dict[str, Page] = {}
        self._closing = self._in_progress = False
        self._stack = QStackedWidget()
        self._strip = MemoryStrip(workspace)
        self._navigation = Navigation(PAGES)
        self._navigation.chosen.connect(self.go)
        body = QWidget()
        layout = QHBoxLayout(body)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(self._navigation)
        right = QVBoxLayout()
        right.setSpacing(0)
        self._next = NextRun(workspace)
        self._next.start.connect(self.start_run)
        right.addWidget(self._next)
        self.tour = Tour(workspace)
        self.tour.go_to.connect(self.go)
        self.tour.start.connect(self.start_run)
        right.addWidget(self.tour)
        right.addWidget(self._stack, 1)
        right.addWidget(self._strip)
        layout.addLayout(right, 1)
        self.setCentralWidget(body)
        self._engine_label = label(name="Engine state")
        self._run_label = label(name="Run state")
        self.statusBar().addWidget(self._engine_label)
        self.statusBar().addPermanentWidget(self._run_label)
        self.statusBar().setSizeGripEnabled(False)
        self.chat = ChatDock(workspace, self)
        self.addDockWidget(Qt.DockWidgetArea.RightDockWidgetArea, self.chat)
        self.chat.hide()
        self.attention = Attention(self, workspace)
        self.drops = Drops(self)
        self.drops.watch(self.chat)
        self._menus = Menus(self)
        workspace.on(LoadEngine, call=self._engine_changed)
        workspace.run.changed.connect(self._refresh_status)
        workspace.run.advanced.connect(self._refresh_status)
        workspace.consent_wanted.connect(self._ask_consent)
        geometry = workspace.store.value("geometry")
        if isinstance(geometry, QByteArray):
            self.restoreGeometry(geometry)
        self.go("model")
        self._refresh_status()

    # Pages

    def page(self, name: str) -> Page:
        """The page, created now if needed."""
        if name not in self._pages:
            page = self._pages[name] = make_page(name, self.workspace)
            page.go_to.connect(self.go)
            page.step_selected.connect(self.chat.set_target)
            page.export_wanted.connect(self._export)
            page.ask_wanted.connect(self.chat.ask_about)
            self._stack.addWidget(page)
        return self._pages[name]

    def make_next_page(self) -> bool:
        """Creates one missing page; returns whether there was one."""
        missing = [name for name in PAGES if name not in self._pages]
        if missing:
            self.page(missing[0])
        return bool(missing)

    def go(self, name: str) -> None:
        """Shows a page."""
        self._stack.setCurrentWidget(self.page(name))
        self.drops.watch(self.page(name))
        self.chat.set_target(None, None)
        self._strip.setVisible(name in ("model", "data", "method"))
        self._navigation.show_chosen(name)
        self._next.show_page(name)

    def _export(self, folder: Path, step: int) -> None:
        cast("ExportPage", self.page("export")).choose(folder, step)
        self.go("export")

    # Recipes and runs

    def choose_recipe(self) -> None:
        """Asks for a recipe file and opens it."""
        path, _ = QFileDialog.getOpenFileName(self, "Open recipe", self._folder(), "Recipes (*.toml);;All files (*)")
        if path:
            self.open_recipe(Path(path))

    def open_recipe(self, path: Path) -> None:
        """Opens a recipe file, or shows the reason on the page if that fails."""
        try:
            self.workspace.set_recipe(load(path, self.workspace.automatic), path)
        except UserError as error:
            self.show_problem(Problem(str(error)))

    def save_recipe(self) -> None:
        """Saves to the recipe's file, or asks for one."""
        path = self.workspace.recipe_path
        if path is None:
            self.save_recipe_as()
            return
        try:
            save(path, dump(self.workspace.recipe).encode())
        except UserError as error:
            self.show_problem(Problem(str(error)))
        else:
            self.statusBar().showMessage(f"Saved {safe_name(str(path))}", 4000)

    def save_recipe_as(self) -> None:
        """Asks where to, and saves."""
        path, _ = QFileDialog.getSaveFileName(self, "Save recipe", self._folder(), "Recipes (*.toml)")
        if path:
            self.workspace.set_recipe(self.workspace.recipe, with_suffix(path, ".toml"))
            self.save_recipe()

    def show_text(self) -> None:
        """The recipe as text."""
        RecipeDialog(self.workspace, self).open()

    def choose_run(self) -> None:
        """Asks for a run folder and shows it."""
        if folder := QFileDialog.getExistingDirectory(self, "Open run folder", self._folder()):
            self.open_run(Path(folder))

    def start_run(self) -> None:
        """Starts the next run, on its page."""
        self.go("run")
        cast("RunPage", self.page("run")).start()

    def open_run(self, folder: Path) -> None:
        """Shows a run."""
        self.go("run")
        self.workspace.run.open(folder)

    def reveal_run(self) -> None:
        """Shows the folder of the run in the file manager."""
        record = self.workspace.run.record
        if record is not None and record.folder is not None:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(record.folder)))

    def _ask_consent(self, request: Request[Any], code: ModelCode) -> None:
        dialog = ConsentDialog(code, self)
        dialog.accepted.connect(lambda: self.workspace.allow(request, code))
        dialog.rejected.connect(lambda: self.workspace.refuse(request))
        dialog.open()

    def _folder(self) -> str:
        return str(self.workspace.recipe_path.parent if self.workspace.recipe_path else Path.home())

    def show_problem(
        self, problem: Problem, level: str = "error", action: tuple[str, Callable[[], object]] | None = None
    ) -> None:  # fmt: skip
        """Shows a problem on the current page, with a button if there is an action."""
        page = self._stack.currentWidget()
        assert isinstance(page, Page)
        page.banner.show_problem(problem, level, action)

    def show_bug(self, error: BaseException, doing: str) -> None:
        """Shows an unexpected error of the window itself."""
        self.show_problem(explain(error, doing))

    # State

    def _engine_changed(self) -> None:
        problem = self.workspace.of(LoadEngine).problem
        if problem is not None:
            self.show_problem(problem)
        self._refresh_status()

    def _refresh_status(self) -> None:
        workspace = self.workspace
        loading = workspace.of(LoadEngine).progress
        text = {
            "waiting": "Engine is starting…", "ready": "Engine ready", "failed": "Engine failed to load",
            "loading": f"Engine is loading… {loading.done} of {loading.total}" if loading else "Engine is loading…",
        }[workspace.engine_state]  # fmt: skip
        if self._engine_label.text() != text:
            self._engine_label.setText(text)
        record = workspace.run.record
        text = ""
        if record is not None and record.active:
            state = workspace.run.state
            text = f"{record.name or 'Run'}: {state[:1].lower()}{state[1:]}, step {out_of(record.step, record.steps)}"
        if self._run_label.text() != text:
            self._run_label.setText(text)
        in_progress = record is not None and record.active and not (workspace.run.inspecting or workspace.run.waits)
        if record is not None and self._in_progress and not in_progress:
            self._tell_end(record)
        self._in_progress = in_progress
        if self._closing and not workspace.run.running:
            QTimer.singleShot(0, self.close)

    def _tell_end(self, record: RunRecord) -> None:
        """A run ended, perhaps while another page was looked at."""
        page = self._stack.currentWidget()
        if isinstance(page, Page) and page is not self._pages.get("run"):
            state = STATES[record.state].lower()
            told = Problem(f"{record.name or 'Run'}: {state} after step {out_of(record.step, record.steps)}.")
            page.banner.show_problem(told, "info", ("Show", lambda: self.go("run")))

    def focusNextPrevChild(self, next: bool) -> bool:
        """Tab goes through the window as it is laid out."""
        return move_focus(self, next)

    def closeEvent(self, event: QCloseEvent) -> None:
        """During a run, asks first, then stops after the current step; the run can be resumed."""
        self.workspace.run.take_back()
        if self.workspace.run.running and not self.workspace.run.inspecting and not self._closing:
            event.ignore()
            ask_to_close(self, self.stop_and_close)
            return
        self.tour.end()  # so that the recipe from before it is kept
        # A run that is still active here was closed twice: the journal loses the current step at most.
        self.workspace.store.setValue("geometry", self.saveGeometry())
        event.accept()
        # Qt's own quit on closing the last window does nothing before the event loop has started.
        QTimer.singleShot(0, self.closed.emit)

    def stop_and_close(self) -> None:
        """Stops after the current step, then closes."""
        self._closing = True
        self.statusBar().showMessage("Stopping after this step, then closing. Close again to quit now.")
        self.workspace.run.command(Stop())
