"""All runs as a tree, and any step of each: to ask, evaluate, branch from, roll back to, export or share."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import Qt
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QFileDialog, QLayout, QPlainTextEdit, QSplitter, QWidget

from sparsezo_gui.answers import RunSummary, Shared
from sparsezo_gui.errors import UserError
from sparsezo_gui.gui import formatting
from sparsezo_gui.gui.differences import differences
from sparsezo_gui.gui.problems import Problem
from sparsezo_gui.gui.record import STATES, WAITING
from sparsezo_gui.gui.requests import InspectRun
from sparsezo_gui.gui.run_requests import BranchRun, ListContents, ListRuns, ReadRun, ReceiveRun, SaveNotes, ShareRun
from sparsezo_gui.gui.theme import GRID
from sparsezo_gui.gui.widgets.basic import Page, button, card, column, label, restyle, row
from sparsezo_gui.gui.widgets.branch import BranchDialog
from sparsezo_gui.gui.widgets.run_tree import RunTree
from sparsezo_gui.gui.widgets.share import ShareDialog, file_lines
from sparsezo_gui.gui.widgets.steps import StepSlider
from sparsezo_gui.gui.workspace import Workspace
from sparsezo_gui.plain import readable
from sparsezo_gui.recipe import load
from sparsezo_gui.recipe.events import EvaluateNow, GoBack, Stop

KINDS = (BranchRun, SaveNotes, ListContents, ShareRun, ReceiveRun, InspectRun, ReadRun)  # whose problems are shown here


class RunsPage(Page):
    """The tree on the left, the selected run on the right. Actions that need its model load it, paused."""

    def __init__(self, workspace: Workspace) -> None:
        super().__init__("Runs", "Every step of every run is saved. Choose a step to continue from.")
        self._workspace = workspace
        self._noted = ""  # path of the run whose notes are in the editor
        self._shown = ""  # path of the displayed run
        self._to_select = ""  # path to select once it is in the list
        self.header.addWidget(button("Open shared…", self._receive, name="Open a shared run",
                                     tip="Unpacks a run that someone shared with you."))  # fmt: skip
        self.header.addWidget(button("Refresh", workspace.run.list_runs, name="Refresh runs"))
        self._tree = RunTree()
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
        workspace.on(ListRuns, call=self._fill)
        workspace.on(BranchRun, SaveNotes, ListContents, ShareRun, ReceiveRun, call=self._refresh)
        workspace.of(ShareRun).answered.connect(self._shared)
        workspace.run_created.connect(self._created)
        for signal in (workspace.run.changed, workspace.blocker_changed, workspace.run.advanced):
            signal.connect(self._refresh)
        self._fill()

    def _make_detail(self) -> QWidget:
        self._title = label("", "heading", wrap=True, name="Selected run")
        self._about = label("", "dim", wrap=True, name="Run details")
        self._recipe = label("", wrap=True, name="Run settings")
        self._step = StepSlider("Step")
        self._step.changed.connect(self._refresh)
        self._at = label("", "dim", wrap=True, name="Step results")
        self._notes = QPlainTextEdit()
        self._notes.setAccessibleName("Notes")
        self._notes.setPlaceholderText("Notes about this run")
        self._notes.setTabChangesFocus(True)
        self._notes.textChanged.connect(self._refresh)
        self._save = button("Save notes", self._note, name="Save notes")
        actions = self._make_actions()
        head = row(self._title, self._unload, self._resume_button)
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
        self._resume_button = button("Resume", self._resume, role="primary", image="play", name="Resume the run")
        self._unload = button("Unload", lambda: self._workspace.run.command(Stop()), name="Unload the model")
        self._unload.setToolTip("Unloads the model that was loaded to view this run.")
        self._evaluate = button("Evaluate", self._evaluate_step, image="evaluate", name="Evaluate this step",
                                tip="Evaluates the model as of this step on the validation examples.")  # fmt: skip
        self._branch = button("Branch…", self._ask_branch, name="Branch from this step",
                              tip="Creates a run that continues from this step with other settings.")  # fmt: skip
        self._back = button("Roll back", self._roll_back, name="Roll back to this step",
                            tip="Returns the run to this step. Later steps stay in the journal.")  # fmt: skip
        self._export = button("Export…", self._export_step, image="export", name="Export this step")
        self._share = button("Share…", self._share_run, name="Share this run",
                             tip="Saves a small file from which others can rebuild every step.")  # fmt: skip
        return row(self._evaluate, self._branch, self._back, None), row(
            self._export, self._share, self._curves_button, None
        )

    # The list

    def _fill(self) -> None:
        runs = self._workspace.of(ListRuns).answer or []
        chosen = self._to_select or (str(self.path) if self.path else "")
        self._tree.show_runs(runs, chosen)
        found = any(run.path == chosen for run in runs)
        if found:
            self._to_select = ""
        self._empty.setVisible(not runs)
        self._tree.setVisible(bool(runs))
        self._show(keep_notes=found)

    @property
    def path(self) -> Path | None:
        """Folder of the selected run."""
        return self._tree.path

    def _chosen(self) -> RunSummary | None:
        return next((run for run in self._workspace.of(ListRuns).answer or [] if run.path == str(self.path)), None)

    def _created(self, folder: Path, lacks: str) -> None:
        self._to_select = str(folder)
        what = lacks or "Resume it or explore its steps."
        self.banner.show_problem(Problem(f"'{folder.name}' is ready. {what}"), "warning" if lacks else "info")

    def _show(self, keep_notes: bool = False) -> None:
        """Shows the selected run."""
        run = self._chosen()
        self._detail.setVisible(run is not None)
        if run is None:
            return
        kept = self._step.value() if keep_notes and self._shown == run.path and not self._step.at_end else None
        self._shown = run.path
        self._title.setText(run.name)
        state = STATES.get(run.state, run.state)
        self._about.setText(run.problem or f"{state} · {run.model} · {run.path}")
        restyle(self._about, role="error" if run.problem else "dim")
        self._recipe.setText("" if run.problem else differences(run))
        self._step.set_range(0, run.step, run.best)
        if kept is not None and kept <= run.step:
            self._step.set_value(kept)
        if self._noted != run.path and self._notes.document().isModified():
            self._workspace.ask(SaveNotes(Path(self._noted), self._notes.toPlainText()))  # typed notes are saved
            self._notes.document().setModified(False)
        if not self._notes.document().isModified():
            self._notes.setPlainText(readable(run.notes))
            self._notes.document().setModified(False)
        self._noted = run.path
        self._refresh()

    def _shared(self, request: ShareRun, shared: Shared) -> None:
        text = f"Shared to {request.out}. Contents:\n{file_lines(shared.contents)}\n{shared.lacks}".rstrip()
        self.banner.show_problem(Problem(text), "info")

    # Actions on the selected run

    def _refresh(self) -> None:
        workspace, run = self._workspace, self._chosen()
        if run is None or not self.isVisible():
            return
        self.step_selected.emit(Path(run.path), self._step.value())
        step, record = self._step.value(), workspace.run.record
        mine = workspace.run.holds(run.path)
        why = "" if mine else workspace.blocker
        elsewhere = run.state in ("running", "preparing") and not mine
        why = why or ("It is active in another window or terminal." if elsewhere else "")
        damaged = run.state == "damaged"
        self._step.setEnabled(not damaged)
        for control in (self._evaluate, self._back):
            control.setEnabled(not why and not damaged)
        self._back.setEnabled(self._back.isEnabled() and run.start <= step < run.step)
        self._resume_button.setEnabled(not why and not damaged and not mine and run.step < run.steps)
        self._resume_button.setVisible(not mine)
        self._unload.setVisible(mine and record is not None and record.state in WAITING)
        for control in (self._branch, self._share, self._export):
            control.setEnabled(not damaged)
        self._curves_button.setEnabled(not damaged and (mine or not workspace.run.running))
        self._save.setEnabled(self._notes.document().isModified())
        self._at.setText("" if damaged else why or self._step_results(step, run))
        problem = workspace.problem_of(*KINDS)
        asks = problem is not None and problem.can_continue and problem == workspace.of(InspectRun).problem
        self.banner.track(problem, action=("Continue anyway", workspace.run.inspect_anyway) if asks else None)

    def _step_results(self, step: int, run: RunSummary) -> str:
        record = self._workspace.run.record
        if record is None or str(record.folder) != run.path:
            return "Evaluate it or ask in the chat (Ctrl+J); this loads the model."
        if record.progress is not None:
            progress = record.progress
            return progress.stage + (f": {progress.done} of {progress.total} {progress.unit}" if progress.total else "")
        found = [each for each in (*record.evaluations, *record.changed_input_evaluations[-1:]) if each.step == step]
        results = [
            f"{formatting.split(each)}{', with changed inputs' if each.changed else ''}: " + ", ".join(
                f"{formatting.field_label(name).lower()} {formatting.metric(name, value)}"
                for name, value in each.metrics.items() if name != "examples"
            ) for each in found
        ]  # fmt: skip
        return ". ".join(results) or "Not evaluated at this step yet."

    def _evaluate_step(self) -> None:
        if self.path is not None:
            self._workspace.run.inspect(self.path, EvaluateNow("validation", self._step.value()))

    def _roll_back(self) -> None:
        if self.path is not None:
            self._workspace.run.inspect(self.path, GoBack(self._step.value()))
        self.go_to.emit("run")

    def _resume(self) -> None:
        if self.path is not None:
            self._workspace.run.resume(self.path)
        self.go_to.emit("run")

    def _curves(self) -> None:
        run = self._chosen()
        if run is not None and run.state != "damaged":
            if not self._workspace.run.running:
                self._workspace.run.open(Path(run.path))
            self.go_to.emit("run")

    def _ask_branch(self) -> None:
        run = self._chosen()
        if run is None:
            return
        try:
            recipe = load(Path(run.path) / "recipe.toml")
        except UserError as error:
            self.banner.show_problem(Problem(str(error)))
            return
        folder, step = Path(run.path), self._step.value()

        def accepted(settings: list[str], name: str) -> None:
            self._workspace.of(BranchRun).problem = None
            self._workspace.ask(BranchRun(folder, step, settings, name))

        BranchDialog(recipe, run.name, step, accepted, self).open()

    def _export_step(self) -> None:
        self.export_wanted.emit(self.path, self._step.value())

    def _share_run(self) -> None:
        run = self._chosen()
        if run is None:
            return
        folder = Path(run.path)

        def accepted(out: Path, with_examples: bool) -> None:
            self._workspace.ask(ShareRun(folder, out, with_examples))
            self.banner.show_problem(Problem(f"Sharing to {out}"), "info")

        ShareDialog(self._workspace, folder, run.name, accepted, self).open()

    def _receive(self) -> None:
        text, _ = QFileDialog.getOpenFileName(self, "Open shared run", str(Path.home()), "Runs (*.zip)")
        if text:
            self._workspace.ask(ReceiveRun(Path(text)))

    def _note(self) -> None:
        if self.path is not None:
            self._workspace.ask(SaveNotes(self.path, self._notes.toPlainText()))
        self._notes.document().setModified(False)
        self._refresh()

    def showEvent(self, event: QShowEvent) -> None:
        """Catches up with changes while it was hidden."""
        super().showEvent(event)
        self._workspace.run.list_runs()
        self._refresh()
