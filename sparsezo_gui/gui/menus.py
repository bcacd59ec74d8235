"""The menu bar: every action of the window, with its shortcut."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject
from PySide6.QtGui import QAction, QActionGroup, QKeySequence
from PySide6.QtWidgets import QApplication, QMenu

from sparsezo_gui.gui.attention import AWAKE, NOTIFY, wanted
from sparsezo_gui.gui.formatting import out_of
from sparsezo_gui.gui.help import HOME, place_of, show_help
from sparsezo_gui.gui.pages import PAGES
from sparsezo_gui.gui.record import STATES
from sparsezo_gui.gui.run_requests import ListRuns
from sparsezo_gui.gui.theme import MODES, appearance, theme
from sparsezo_gui.gui.widgets.basic import Page
from sparsezo_gui.gui.widgets.dialogs import AboutDialog, ShortcutsDialog
from sparsezo_gui.gui.widgets.palette import CommandPalette
from sparsezo_gui.gui.widgets.safe_text import menu_text

if TYPE_CHECKING:
    from sparsezo_gui.gui.main_window import MainWindow

TEXT_SIZES = {"Smaller": 0.9, "Normal": 1.0, "Larger": 1.25, "Largest": 1.5}
RUN_ACTIONS = (  # title, method of the Run page, shortcut
    ("&Start new run", "start", "Ctrl+R"),
    ("&Pause or resume", "pause_or_resume", "Ctrl+P"),
    ("S&top", "stop", "Ctrl+."),
    ("Free &memory", "release", ""),
    ("&Evaluate now", "evaluate", "Ctrl+E"),
    ("Change learning &rate…", "change_rate", "Ctrl+Shift+R"),
    ("Export plots as P&NG…", "export_png", ""),
    ("Export curves as &CSV…", "export_csv", ""),
)
RUNS_SHOWN = 12
Keys = QKeySequence.StandardKey


class Menus(QObject):
    """Builds the menus once; the lists of recent recipes and runs are filled when they open."""

    def __init__(self, window: MainWindow) -> None:
        super().__init__(window)
        self._window = window
        bar = window.menuBar()
        self._file(bar.addMenu("&File"))
        self._view(bar.addMenu("&View"))
        run = bar.addMenu("&Run")
        for title, call, keys in RUN_ACTIONS:
            self._add(run, title, partial(self._on_run_page, call), keys)
        run.addSeparator()
        self._automatic(run)
        run.addSeparator()
        self._switch(run, "&Notify when a run ends", NOTIFY)
        self._switch(run, "&Keep the computer awake during a run", AWAKE).setToolTip(
            "Only with mains power; the screen may go dark."
        )
        run.setToolTipsVisible(True)
        help_menu = bar.addMenu("&Help")
        self._add(help_menu, "&Tour of the program", window.tour.begin)
        self._add(help_menu, "&Help on this", self._show_help, Keys.HelpContents)
        self._add(help_menu, "All &pages of the help", lambda: show_help(window, HOME))
        self._add(help_menu, "&Troubleshooting", lambda: show_help(window, "troubleshooting.md"))
        help_menu.addSeparator()
        self._add(help_menu, "&Find an action…", self._show_palette, "Ctrl+Shift+P")
        self._add(help_menu, "&Keyboard shortcuts", self._show_shortcuts, "Ctrl+/")
        self._add(help_menu, "&About SparseZO", lambda: AboutDialog(window).open())

    def _show_help(self) -> None:
        """About the field with the focus, else about the page."""
        focus = QApplication.focusWidget()
        if focus is None or place_of(focus) == HOME:
            focus = next((page for page in self._window.findChildren(Page) if page.isVisible()), self._window)
        show_help(focus)

    def _show_shortcuts(self) -> None:
        ShortcutsDialog(self.shortcuts(), self._window).open()

    def _show_palette(self) -> None:
        CommandPalette(self._window.menuBar().actions(), self._window).open()

    def shortcuts(self) -> list[tuple[str, str]]:
        """Titles and shortcuts of the actions that have one."""
        actions = [action for action in self.findChildren(QAction) if not action.shortcut().isEmpty()]
        native = QKeySequence.SequenceFormat.NativeText
        return [(action.text().replace("&", ""), action.shortcut().toString(native)) for action in actions]

    def _file(self, menu: QMenu) -> None:
        window = self._window
        self._add(menu, "&Open recipe…", window.choose_recipe, Keys.Open)
        self._recipes = menu.addMenu("Recent rec&ipes")
        self._recipes.aboutToShow.connect(self._fill_recipes)
        self._add(menu, "&Save recipe", window.save_recipe, Keys.Save)
        self._add(menu, "Save recipe &as…", window.save_recipe_as, "Ctrl+Shift+S")
        self._add(menu, "Recipe as &text…", window.show_text, "Ctrl+T")
        menu.addSeparator()
        self._runs = menu.addMenu("Recent &runs")
        self._runs.aboutToShow.connect(self._fill_runs)
        self._add(menu, "Open run &folder…", window.choose_run, "Ctrl+Shift+O")
        self._add(menu, "Show run in file &manager", window.reveal_run)
        menu.addSeparator()
        self._add(menu, "&Quit", window.close, Keys.Quit)

    def _view(self, menu: QMenu) -> None:
        store = self._window.workspace.store
        for index, (name, title) in enumerate(PAGES.items(), 1):
            self._add(menu, title, partial(self._window.go, name), f"Ctrl+{index}")
        chat = self._window.chat.toggleViewAction()
        chat.setText("&Chat")
        chat.setShortcut(QKeySequence("Ctrl+J"))
        menu.addSeparator()
        menu.addAction(chat)
        menu.addSeparator()
        modes = {mode.capitalize(): mode for mode in MODES}
        mode, scale = appearance(store)
        self._choices(menu.addMenu("&Theme"), modes, mode, "theme")
        self._choices(menu.addMenu("Text si&ze"), TEXT_SIZES, scale, "text_scale")

    def _add(self, menu: QMenu, title: str, call: Callable[[], object], keys: str | Keys = "") -> QAction:
        # A child of this object, not of the menu, so that `shortcuts` finds actions in creation order.
        action = QAction(title, self)
        if keys:
            action.setShortcut(QKeySequence(keys))
        action.triggered.connect(lambda: call())
        menu.addAction(action)
        return action

    def _choices(self, menu: QMenu, entries: Mapping[str, object], current: object, key: str) -> None:
        group = QActionGroup(menu)
        for title, value in entries.items():
            action = menu.addAction(title)
            action.setCheckable(True)
            action.setChecked(value == current)
            action.triggered.connect(lambda _=False, value=value: self._set_appearance(key, value))
            group.addAction(action)

    def _automatic(self, menu: QMenu) -> None:
        workspace = self._window.workspace
        action = menu.addAction("Choose the method a&utomatically")
        action.setCheckable(True)
        action.setChecked(workspace.automatic)
        action.toggled.connect(workspace.set_automatic)

    def _switch(self, menu: QMenu, title: str, setting: str) -> QAction:
        window = self._window
        action = menu.addAction(title)
        action.setCheckable(True)
        action.setChecked(wanted(window.workspace.store, setting))
        action.toggled.connect(lambda on: window.attention.set_wanted(setting, on))
        return action

    def _set_appearance(self, key: str, value: object) -> None:
        store = self._window.workspace.store
        store.setValue(key, value)
        theme().apply(*appearance(store))

    def _on_run_page(self, call: str) -> None:
        self._window.go("run")
        getattr(self._window.page("run"), call)()

    def _fill_recipes(self) -> None:
        self._recipes.clear()
        for path in self._window.workspace.recent_recipes():
            action = self._recipes.addAction(menu_text(path))
            action.triggered.connect(lambda _=False, path=path: self._window.open_recipe(Path(path)))
        if self._recipes.isEmpty():
            self._recipes.addAction("None yet").setEnabled(False)

    def _fill_runs(self) -> None:
        self._runs.clear()
        workspace = self._window.workspace
        for run in (workspace.of(ListRuns).answer or [])[:RUNS_SHOWN]:
            state = STATES.get(run.state, run.state).lower()
            action = self._runs.addAction(menu_text(f"{run.name} · step {out_of(run.step, run.steps)} · {state}"))
            action.triggered.connect(lambda _=False, path=run.path: self._window.open_run(Path(path)))
            action.setEnabled(not workspace.run.running)
        if self._runs.isEmpty():
            self._runs.addAction("None yet").setEnabled(False)
