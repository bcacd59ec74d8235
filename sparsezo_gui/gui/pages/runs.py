"""All runs as a tree, and any step of each: to ask, evaluate, branch from, roll back to, export or share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import QPoint, Qt, QUrl
from PySide6.QtGui import QDesktopServices, QResizeEvent, QShowEvent
from PySide6.QtWidgets import QFileDialog, QLayout, QSplitter, QWidget

from sparsezo_gui.answers import Removable, RunSummary, Shared
from sparsezo_gui.gui import formatting
from sparsezo_gui.gui.differences import differences
from sparsezo_gui.gui.following import short
from sparsezo_gui.gui.problems import Problem
from sparsezo_gui.gui.record import STATES, WAITING
from sparsezo_gui.gui.requests import InspectRun
from sparsezo_gui.gui.run_requests import (
    BranchRun,
    LabelRun,
    ListContents,
    ListRuns,
    ReadRun,
    ReceiveRun,
    RemoveRun,
    SaveNotes,
    ShareRun,
)
from sparsezo_gui.gui.theme import GRID
from sparsezo_gui.gui.widgets.basic import WIDEST, Empty, Page, button, card, label, restyle, row
from sparsezo_gui.gui.widgets.comparison import RunView
from sparsezo_gui.gui.widgets.notes import Notes
from sparsezo_gui.gui.widgets.run_dialogs import DeleteDialog, LabelDialog, ask_branch, ask_share
from sparsezo_gui.gui.widgets.run_tree import RunList
from sparsezo_gui.gui.widgets.safe_text import safe_name, tooltip
from sparsezo_gui.gui.widgets.share import file_lines
from sparsezo_gui.gui.widgets.sides import NARROW
from sparsezo_gui.gui.widgets.steps import StepSlider, results_at
from sparsezo_gui.gui.workspace import Workspace
from sparsezo_gui.recipe.events import EvaluateNow, GoBack, Stop

# whose problems are shown here
KINDS = (BranchRun, SaveNotes, ListContents, ShareRun, ReceiveRun, LabelRun, RemoveRun, InspectRun, ReadRun)


class RunsPage(Page):
    """The tree on the left, the selected run on the right. Actions that need its model load it, paused."""

    banner_last = True
    widest = 0  # plots and lists use what there is

    def __init__(self, workspace: Workspace) -> None:
        super().__init__("Runs", "Every step of every run is saved. Choose a step to continue from.")
        self._workspace = workspace
        # Paths of runs: that is displayed, and to select once it is in the list.
        self._shown = self._to_select = ""
        self.header.addWidget(button("Open shared…", self._receive, name="Open a shared run",
                                     tip="Unpacks a run that someone shared with you."))  # fmt: skip
        self.header.addWidget(button("Refresh", workspace.run.list_runs, name="Refresh runs"))
        self._list = RunList(workspace.store)
        self._tree = self._list.tree
        self._tree.chosen.connect(self._show)
        self._tree.itemActivated.connect(lambda *_: self._curves())
        self._tree.customContextMenuRequested.connect(self._open_menu)
        self._empty = Empty(
            "No runs yet", "Every run is listed here. You can ask, export or continue from each of its steps.",
            "Go to the Run page", lambda: self.go_to.emit("run"),
        )  # fmt: skip
        splitter = self._splitter = QSplitter(Qt.Orientation.Horizontal)
        splitter.setChildrenCollapsible(False)
        splitter.setHandleWidth(2 * GRID)
        self._view = RunView(workspace, self._make_detail())
        self._view.setMaximumWidth(WIDEST)
        splitter.addWidget(self._list)
        splitter.addWidget(self._view)
        for place in range(2):
            splitter.setStretchFactor(place, 1)
        splitter.setSizes([66 * GRID, 52 * GRID])
        for part in (self._empty, splitter):
            self.body.addWidget(part, 1)
        workspace.on(ListRuns, call=self._fill)
        workspace.on(*KINDS, call=self._refresh)
        workspace.of(LabelRun).answered.connect(lambda *_: workspace.run.list_runs())
        workspace.of(RemoveRun).answered.connect(self._removed)
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
        self._notes = Notes(self._workspace)
        actions = self._make_actions()
        head = row(self._title, self._unload, self._resume_button)
        head.setStretch(0, 1)
        detail = card(
            head, self._about, self._recipe, GRID,
            self._step, self._at, *actions,
            GRID, self._notes,
        )  # fmt: skip
        self._detail = detail
        return detail

    def _make_actions(self) -> tuple[QLayout, QLayout]:
        workspace, banner = self._workspace, self.banner
        self._ask_branch = self._with_chosen(lambda run: ask_branch(workspace, run, self._step.value(), banner))
        self._share_run = self._with_chosen(lambda run: ask_share(workspace, run, banner))
        self._export_step = self._with_chosen(lambda run: self.export_wanted.emit(Path(run.path), self._step.value()))
        self._evaluate_step = self._with_chosen(
            lambda run: workspace.run.inspect(Path(run.path), EvaluateNow("validation", self._step.value()))
        )
        self._rename = self._with_chosen(lambda run: LabelDialog(workspace, run, self).open())
        self._delete = self._with_chosen(lambda run: DeleteDialog(workspace, run, self).open())
        self._reveal = self._with_chosen(lambda run: QDesktopServices.openUrl(QUrl.fromLocalFile(run.path)))
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
        self._name_button = button("Rename…", self._rename, name="Rename or tag the run")
        self._delete_button = button("Delete…", self._delete, name="Delete this run")
        return row(self._evaluate, self._branch, self._back, self._export, None), row(
            self._curves_button, self._share, self._name_button, self._delete_button, None
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
        self._splitter.setVisible(bool(runs))
        self._list.search()
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
        self._view.setVisible(run is not None)
        if run is None:
            return
        paths = self._tree.paths
        several = [each for each in self._workspace.of(ListRuns).answer or [] if Path(each.path) in paths]
        self._view.show_runs(several or [run])
        kept = self._step.value() if keep_notes and self._shown == run.path and not self._step.at_end else None
        self._shown = run.path
        self._title.setText(run.name)
        state = STATES.get(run.state, run.state)
        tags = "".join(f" · {tag}" for tag in run.tags)
        self._about.setText(run.problem or f"{state} · {short(run.model)} · {short(run.data)}{tags}")
        self._about.setToolTip(tooltip(safe_name(run.path)))
        restyle(self._about, role="error" if run.problem else "dim")
        self._recipe.setText("" if run.problem else differences(run))
        self._step.set_range(0, run.step, run.best)
        if kept is not None and kept <= run.step:
            self._step.set_value(kept)
        self._notes.show_run(run)
        self._refresh()

    def _open_menu(self, place: QPoint) -> None:
        """What can be done with the run below the mouse."""
        run = self._chosen()
        if run is None or self._tree.itemAt(place) is None:
            return
        able = [each.isEnabled() for each in (self._curves_button, self._resume_button, self._branch)]
        self._tree.offer((
            ("Show curves", self._curves, able[0]), ("Resume", self._resume, able[1]),
            ("Branch…", self._ask_branch, able[2]), ("Export…", self._export_step, able[2]),
            ("Share…", self._share_run, able[2]), ("Rename and tag…", self._rename, able[2]),
            ("Show in file manager", self._reveal, True), ("Delete…", self._delete, self._delete_button.isEnabled()),
        ), place)  # fmt: skip

    def _removed(self, _: RemoveRun, removed: Removable) -> None:
        self._workspace.run.forget(Path(removed.path))
        self._workspace.run.list_runs()
        self.banner.show_problem(Problem(f"Deleted: {formatting.size(removed.bytes)} are free again."), "info")

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
        self._view.mark(step)
        mine = workspace.run.holds(run.path)
        why = "" if mine else workspace.blocker
        elsewhere = run.state in ("running", "preparing") and not mine
        why = why or ("It is active in another window or terminal." if elsewhere else "")
        damaged = run.state == "damaged"
        self._step.setEnabled(not damaged)
        self._evaluate.setEnabled(not why and not damaged)
        self._back.setEnabled(not why and not damaged and run.start <= step < run.step)
        self._resume_button.setEnabled(not why and not damaged and not mine and run.step < run.steps)
        self._resume_button.setVisible(not mine)
        self._unload.setVisible(mine and record is not None and record.state in WAITING)
        for control in (self._branch, self._share, self._export, self._name_button):
            control.setEnabled(not damaged)
        self._delete_button.setEnabled(not mine and not elsewhere)
        self._curves_button.setEnabled(not damaged and (mine or not workspace.run.running))
        shown = record if record is not None and str(record.folder) == run.path else None
        self._at.setText("" if damaged else why or results_at(shown, step))
        problem = workspace.problem_of(*KINDS)
        asks = problem is not None and problem.can_continue and problem == workspace.of(InspectRun).problem
        self.banner.track(problem, action=("Continue anyway", workspace.run.inspect_anyway) if asks else None)

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

    def _with_chosen(self, call: Callable[[RunSummary], object]) -> Callable[[], None]:
        """``call`` with the selected run, if there is one."""

        def do() -> None:
            if (run := self._chosen()) is not None:
                call(run)

        return do

    def _receive(self) -> None:
        text, _ = QFileDialog.getOpenFileName(self, "Open shared run", str(Path.home()), "Runs (*.zip)")
        if text:
            self._workspace.ask(ReceiveRun(Path(text)))

    def resizeEvent(self, event: QResizeEvent) -> None:
        """One column in a narrow window."""
        super().resizeEvent(event)
        narrow = event.size().width() < NARROW
        self._splitter.setOrientation(Qt.Orientation.Vertical if narrow else Qt.Orientation.Horizontal)
        self._list.setMinimumHeight(28 * GRID if narrow else 0)  # the page scrolls rather than the list

    def showEvent(self, event: QShowEvent) -> None:
        """Catches up with changes while it was hidden."""
        super().showEvent(event)
        self._workspace.run.list_runs()
        self._refresh()
