"""All runs as a tree, and any step of each: to ask, evaluate, branch from, roll back to, export or share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PySide6.QtCore import Qt
from PySide6.QtWidgets import (
    QFileDialog,
    QHeaderView,
    QLayout,
    QPlainTextEdit,
    QSplitter,
    QTreeWidget,
    QTreeWidgetItem,
    QWidget,
)

from sparsezo_gui.errors import UserError
from sparsezo_gui.gui import words
from sparsezo_gui.gui.problems import Problem
from sparsezo_gui.gui.record import STATES, WAITING
from sparsezo_gui.gui.session import Session
from sparsezo_gui.gui.theme import GRID
from sparsezo_gui.gui.widgets.basic import Page, button, card, column, label, restyle, row
from sparsezo_gui.gui.widgets.branch import BranchDialog
from sparsezo_gui.gui.widgets.plain import named, tip
from sparsezo_gui.gui.widgets.share import ShareDialog, listed
from sparsezo_gui.gui.widgets.steps import StepSlider
from sparsezo_gui.plain import readable
from sparsezo_gui.recipe import Recipe, load
from sparsezo_gui.recipe.events import EvaluateNow, GoBack, Stop
from sparsezo_gui.recipe.metrics import deciding

COLUMNS = ("Run", "State", "Step", "Result", "Started")
ASKED = ("branch", "note", "contents", "share", "receive", "look", "history")  # kinds whose problems this page shows
PATH = Qt.ItemDataRole.UserRole


class RunsPage(Page):
    """The tree on the left, the selected run on the right. Actions that need its model load it, paused."""

    def __init__(self, session: Session, go: Callable[[str], None]) -> None:
        super().__init__("Runs", "Every step of every run is saved. Choose a step to continue from.")
        self._session, self._go = session, go
        self._noted = ""  # path of the run whose notes are in the editor
        self._shown = ""  # path of the displayed run
        self._wanted = ""  # path to select once it is in the list
        self.header.addWidget(button("Open shared…", self._receive, name="Open a shared run",
                                     tip="Unpacks a run that someone shared with you."))  # fmt: skip
        self.header.addWidget(button("Refresh", session.list_runs, name="Refresh runs"))
        self._tree = QTreeWidget()
        self._tree.setAccessibleName("Runs")
        self._tree.setHeaderLabels(COLUMNS)
        self._tree.setUniformRowHeights(True)
        self._tree.setIndentation(2 * GRID)
        self._tree.header().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        self._tree.header().setMaximumSectionSize(28 * GRID)  # a long name leaves room for the other columns
        self._tree.currentItemChanged.connect(lambda *_: self._show())
        self._tree.itemActivated.connect(lambda *_: self._curves())
        self._empty = label("No runs yet. Start one on the Run page.", "dim", name="No runs")
        self._empty.setAlignment(Qt.AlignmentFlag.AlignCenter)
        splitter = QSplitter(Qt.Orientation.Horizontal)
        splitter.setChildrenCollapsible(False)
        left = QWidget()
        left.setLayout(column(self._empty, self._tree, spacing=GRID))
        splitter.addWidget(left)
        splitter.addWidget(self._make_detail())
        splitter.setStretchFactor(0, 1)
        splitter.setSizes([56 * GRID, 62 * GRID])
        self.body.addWidget(splitter, 1)
        session.runs_changed.connect(self._fill)
        session.run_made.connect(self._made)
        for signal in (session.run_changed, session.hindrance_changed, session.run_advanced):
            signal.connect(self._follow)
        self._fill()

    def _make_detail(self) -> QWidget:
        self._title = label("", "heading", wrap=True, name="Selected run")
        self._about = label("", "dim", wrap=True, name="Run details")
        self._recipe = label("", wrap=True, name="Run settings")
        self._step = StepSlider("Step")
        self._step.changed.connect(self._follow)
        self._at = label("", "dim", wrap=True, name="Step results")
        self._notes = QPlainTextEdit()
        self._notes.setAccessibleName("Notes")
        self._notes.setPlaceholderText("Notes about this run")
        self._notes.setTabChangesFocus(True)
        self._notes.textChanged.connect(self._follow)
        self._save = button("Save notes", self._note, name="Save notes")
        actions = self._make_actions()
        head = row(self._title, self._unload, self._go_on)
        head.setStretch(0, 1)
        detail = card(
            head, self._about, self._recipe, GRID,
            label("Step", "heading"), self._step, self._at, *actions,
            GRID, label("Notes", "heading"), self._notes, row(None, self._save),
        )  # fmt: skip
        detail.setMinimumWidth(48 * GRID)
        self._detail = detail
        return detail

    def _make_actions(self) -> tuple[QLayout, QLayout]:
        self._curves_button = button("Show curves", self._curves, image="run", name="Show the run")
        self._go_on = button("Resume", self._resume, role="primary", image="play", name="Resume the run")
        self._unload = button("Unload", lambda: self._session.command(Stop()), name="Unload the model")
        self._unload.setToolTip("Unloads the model that was loaded to view this run.")
        self._evaluate = button("Evaluate", self._evaluate_step, image="evaluate", name="Evaluate this step",
                                tip="Evaluates the model as of this step on the validation examples.")  # fmt: skip
        self._branch = button("Branch…", self._ask_branch, name="Branch from this step",
                              tip="Creates a run that continues from this step with other settings.")  # fmt: skip
        self._back = button("Roll back", self._go_back, name="Roll back to this step",
                            tip="Returns the run to this step. Later steps stay in the journal.")  # fmt: skip
        self._export = button("Export…", self._export_step, image="export", name="Export this step")
        self._share = button("Share…", self._share_run, name="Share this run",
                             tip="Saves a small file from which others can rebuild every step.")  # fmt: skip
        return row(self._evaluate, self._branch, self._back, None), row(
            self._export, self._share, self._curves_button, None
        )

    # The list

    def _fill(self) -> None:
        if "share" in self._session.answers:
            out, shared = self._session.answers.pop("share")
            self.banner.show_problem(Problem(f"Shared to {out}. Contents:\n{listed(shared.contents)}"), "info")
        runs = self._session.answers.get("runs") or []
        chosen = self._wanted or (str(self.path) if self.path else "")
        self._tree.blockSignals(True)
        self._tree.clear()
        items: dict[str, QTreeWidgetItem] = {}
        for run in runs:
            item = QTreeWidgetItem(items.get(run.parent, self._tree), _cells(run))
            item.setData(0, PATH, run.path)
            item.setToolTip(0, tip(f"{named(run.name)}\n{named(run.path)}"))
            items[run.path] = item
        self._tree.expandAll()
        if items:
            self._tree.setCurrentItem(items.get(chosen) or next(iter(items.values())))
        if chosen in items:
            self._wanted = ""
        self._tree.blockSignals(False)
        self._empty.setVisible(not runs)
        self._tree.setVisible(bool(runs))
        self._show(keep_notes=chosen in items)

    @property
    def path(self) -> Path | None:
        """Folder of the selected run."""
        item = self._tree.currentItem()
        return Path(item.data(0, PATH)) if item is not None else None

    def _chosen(self) -> Any:
        return next((run for run in self._session.answers.get("runs") or [] if run.path == str(self.path)), None)

    def _made(self, folder: Path, lacks: str) -> None:
        self._wanted = str(folder)
        what = lacks or "Resume it or explore its steps."
        self.banner.show_problem(Problem(f"'{folder.name}' is ready. {what}"), "warning" if lacks else "info")

    def _show(self, keep_notes: bool = False) -> None:
        """Shows the selected run."""
        run = self._chosen()
        self._detail.setVisible(run is not None)
        if run is None:
            return
        before = self._shown, self._step.value()
        self._shown = run.path
        self._title.setText(run.name)
        state = STATES.get(run.state, run.state)
        self._about.setText(run.problem or f"{state} · {run.model} · {run.path}")
        restyle(self._about, role="error" if run.problem else "dim")
        self._recipe.setText("" if run.problem else differences(run))
        self._step.set_range(0, run.step, run.best)
        if before[0] == run.path and before[1] <= run.step and keep_notes:
            self._step.set_value(before[1])
        if self._noted != run.path and self._notes.document().isModified():
            self._session.ask("note", Path(self._noted), self._notes.toPlainText())  # typed notes are saved
            self._notes.document().setModified(False)
        if not self._notes.document().isModified():
            self._notes.setPlainText(readable(run.notes))
            self._notes.document().setModified(False)
        self._noted = run.path
        self._follow()

    # Actions on the selected run

    def _follow(self) -> None:
        session, run = self._session, self._chosen()
        if run is None or not self.isVisible():
            return
        self.window().chat.point_at(self.path, self._step.value())  # type: ignore[attr-defined]
        step, record = self._step.value(), session.record
        mine = session.running and record is not None and str(record.folder) == run.path
        why = "" if mine else session.blocker
        why = why or ("It is active in another window or terminal." if run.state == "running" and not mine else "")
        damaged = run.state == "damaged"
        self._step.setEnabled(not damaged)
        for control in (self._evaluate, self._back):
            control.setEnabled(not why and not damaged)
        self._back.setEnabled(self._back.isEnabled() and run.start <= step < run.step)
        self._go_on.setEnabled(not why and not damaged and not mine and run.step < run.steps)
        self._go_on.setVisible(not mine)
        self._unload.setVisible(mine and record.state in WAITING)
        for control in (self._branch, self._share, self._export, self._curves_button):
            control.setEnabled(not damaged and not (session.running and not mine and control is self._curves_button))
        self._save.setEnabled(self._notes.document().isModified())
        self._at.setText("" if damaged else why or self._known(step, run))
        problem = next((session.problems[kind] for kind in ASKED if kind in session.problems), None)
        asks = problem is not None and problem.question and problem == session.problems.get("look")
        self.banner.follow(problem, action=("Continue anyway", session.visit_changed) if asks else None)

    def _known(self, step: int, run: Any) -> str:
        record = self._session.record
        if record is None or str(record.folder) != run.path:
            return "Evaluate it or ask in the chat (Ctrl+J); this loads the model."
        if record.progress is not None:
            progress = record.progress
            return progress.stage + (f": {progress.done} of {progress.total} {progress.unit}" if progress.total else "")
        found = [each for each in (*record.evaluations, *record.marked[-1:]) if each.step == step]
        told = [
            f"{words.title(each.split)}{', with changed inputs' if each.changed else ''}: " + ", ".join(
                f"{words.title(name).lower()} {words.metric(name, value)}"
                for name, value in each.metrics.items() if name != "examples"
            ) for each in found
        ]  # fmt: skip
        return ". ".join(told) or "Not evaluated at this step yet."

    def _evaluate_step(self) -> None:
        self._session.visit(self.path, EvaluateNow("validation", self._step.value()))

    def _go_back(self) -> None:
        self._session.visit(self.path, GoBack(self._step.value()))
        self._go("run")

    def _resume(self) -> None:
        self._session.go_on(self.path)
        self._go("run")

    def _curves(self) -> None:
        run = self._chosen()
        if run is not None and run.state != "damaged":
            if not self._session.running:
                self._session.open_run(Path(run.path))
            self._go("run")

    def _ask_branch(self) -> None:
        run = self._chosen()
        try:
            recipe = load(Path(run.path) / "recipe.toml")
        except UserError as error:
            self.banner.show_problem(Problem(str(error)))
            return
        folder, step = Path(run.path), self._step.value()

        def taken(settings: list[str], name: str) -> None:
            self._session.problems.pop("branch", None)
            self._session.ask("branch", folder, step, settings, name)

        BranchDialog(recipe, run.name, step, taken, self.window()).open()

    def _export_step(self) -> None:
        page = self.window().page("export")  # type: ignore[attr-defined]
        page.choose(str(self.path), self._step.value())
        self._go("export")

    def _share_run(self) -> None:
        run = self._chosen()
        folder = Path(run.path)

        def taken(out: Path, with_examples: bool) -> None:
            self._session.ask("share", folder, out, with_examples)
            self.banner.show_problem(Problem(f"Sharing to {out}"), "info")

        ShareDialog(self._session, folder, run.name, taken, self.window()).open()

    def _receive(self) -> None:
        text, _ = QFileDialog.getOpenFileName(self, "Open shared run", str(Path.home()), "Runs (*.zip)")
        if text:
            self._session.ask("receive", Path(text))

    def _note(self) -> None:
        self._session.ask("note", self.path, self._notes.toPlainText())
        self._notes.document().setModified(False)
        self._follow()

    def showEvent(self, event: object) -> None:
        """Catches up with changes while it was hidden."""
        super().showEvent(event)  # type: ignore[arg-type]
        self._session.list_runs()
        self._follow()


def _cells(run: Any) -> list[str]:
    name = f"{run.name}  (from {words.count(run.start)})" if run.parent else run.name
    metric = deciding(run.metrics)
    result = words.metric(metric, run.metrics[metric]) if metric else ""
    step = f"{words.count(run.step)} of {words.count(run.steps)}" if run.steps else ""
    cells = [name, STATES.get(run.state, run.state), step, result, run.created[:16].replace("T", " ")]
    return [named(cell) for cell in cells]


def differences(run: Any) -> str:
    """How a branch's recipe differs from its parent's, or the main settings of a run without a parent."""
    try:
        recipe = load(Path(run.path) / "recipe.toml")
        if not run.parent:
            steps = f"{words.count(recipe.loop.steps)} steps of {recipe.loop.batch_size} examples"
            return f"{type(recipe.mask).title}, {type(recipe.update).title} {recipe.update.learning_rate:g}, {steps}"
        before = load(Path(run.parent) / "recipe.toml")
    except UserError as error:
        return str(error)
    changed = [f"{key} {old} → {new}" for key, (old, new) in _changed(before, recipe).items()]
    return "Changed: " + (", ".join(changed) or "nothing")


def _changed(before: Recipe, after: Recipe) -> dict[str, tuple[Any, Any]]:
    old, new = (
        {(table, key): value for table, content in recipe.model_dump(mode="json", exclude={"version", "run"}).items()
         for key, value in content.items()} for recipe in (before, after)
    )  # fmt: skip
    places = [place for place in {**old, **new} if old.get(place) != new.get(place)]
    return {".".join(place): (old.get(place, "–"), new.get(place, "–")) for place in places}
