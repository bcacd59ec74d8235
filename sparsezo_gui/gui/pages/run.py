"""The run: its plots, its controls, and its notices."""

from __future__ import annotations

import time
from pathlib import Path

from PySide6.QtCore import QTimer
from PySide6.QtGui import QResizeEvent, QShowEvent
from PySide6.QtWidgets import QSizePolicy, QStackedWidget, QWidget

from sparsezo_gui.gui import formatting
from sparsezo_gui.gui.plots.board import Board
from sparsezo_gui.gui.plots.controls import PlotControls
from sparsezo_gui.gui.problems import Problem
from sparsezo_gui.gui.record import WAITING
from sparsezo_gui.gui.theme import GRID
from sparsezo_gui.gui.widgets.basic import WIDEST, Page, ProgressBar, button, card, column, label
from sparsezo_gui.gui.widgets.dialogs import RateDialog
from sparsezo_gui.gui.widgets.outlook import Outlook
from sparsezo_gui.gui.widgets.results import Results
from sparsezo_gui.gui.widgets.sides import PLOTTED, Sides, halves
from sparsezo_gui.gui.widgets.summary import Summary
from sparsezo_gui.gui.workspace import Workspace
from sparsezo_gui.recipe.events import Ask, Command, EvaluateNow, Pause, Release, Resume, SetRate, Stop

TICK_MS = 100  # shortest interval between two redraws
SHARE = 0.08  # of one processor core for drawing: with two cores, every percent of it slows the training
PENDING: dict[type[Command], str] = {
    Pause: "pausing after this step…",
    Stop: "stopping after this step…",
    EvaluateNow: "evaluating after this step…",
    Ask: "answering in the chat…",
}


class RunPage(Page):
    """Redraws at most ten times a second, and only while visible."""

    banner_last = True
    widest = 0  # plots and lists use what there is

    def __init__(self, workspace: Workspace) -> None:
        super().__init__("Run", "")
        self._workspace = workspace
        self._changes = -1
        self._shown: object = None
        self.sentence.setAccessibleName("State of the run")
        self._add_buttons()
        self._bar = ProgressBar("Run progress")
        self.results = Results()
        main = Sides(self._make_plots(), self.results, stacked=PLOTTED - 6 * GRID, spacing=2 * GRID)
        main.box.setStretch(0, 1)
        self.body.setSpacing(GRID)
        self._figures = self._make_figures()
        self._summary = Summary()
        self._summary.hide()
        self._summary.setMaximumWidth(WIDEST)
        self._summary.export_wanted.connect(lambda step: self.export_wanted.emit(self._folder, step))
        self._summary.ask_wanted.connect(lambda step: self.ask_wanted.emit(self._folder, step))
        for part in (self._figures, self._summary, self._bar):
            self.body.addWidget(part)
        self.body.addWidget(main, 1)
        self.body.addWidget(self._controls)
        self._tick = QTimer(self, interval=TICK_MS)
        self._tick.timeout.connect(self._draw)
        for signal in (workspace.run.changed, workspace.blocker_changed, workspace.recipe_changed,
                       workspace.faults.changed):  # fmt: skip
            signal.connect(self._refresh_state)
        self._refresh_state()

    def _add_buttons(self) -> None:
        self._resume = button("Resume", self.resume, image="play", name="Resume run")
        self._pause = button("Pause", self.pause_or_resume, image="pause")
        self._release = button("Free memory", self.release, tip="Unloads the model; resuming the run loads it again.")
        self._stop = button("Stop", self.stop, image="stop", tip="Stops after this step. You can resume the run later.")
        self._evaluate = button("Evaluate now", self.evaluate, image="evaluate")
        self._rate = button("Rate…", self.change_rate, image="rate", name="Change learning rate")
        for control in (self._evaluate, self._rate, self._release, self._pause, self._stop, self._resume):
            self.header.addWidget(control)

    def _make_figures(self) -> QWidget:
        names = ("Step", "Loss", "Tokens/s", "Step time", "Time left")
        self._numbers = {name: label("–", "figure", name=name) for name in names}
        parts = [column(label(name, "dim"), value, spacing=0) for name, value in self._numbers.items()]
        return halves(parts[:2], parts[2:], 4 * GRID)

    def _make_plots(self) -> QWidget:
        self._outlook = Outlook(self._workspace)
        self.board = Board()
        self._controls = PlotControls(self.board, self.banner)
        framed = card(self.board)
        framed.box.setContentsMargins(1, 1, 1, 1)
        self._plots = QStackedWidget()
        self._plots.addWidget(self._outlook)
        self._plots.addWidget(framed)
        self._plots.setMinimumHeight(33 * GRID)
        self._plots.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Ignored)
        return self._plots

    # Actions, also in the menu

    def start(self) -> None:
        """Starts a new run with the recipe."""
        if why := self._workspace.faults.first or self._workspace.start_blocker:
            self.banner.show_problem(Problem(why), "info")
            return
        self.banner.clear()
        self._workspace.train()

    def resume(self) -> None:
        """Resumes the displayed run."""
        self.banner.clear()
        self._workspace.run.resume_displayed()

    def pause_or_resume(self) -> None:
        """Pauses after this step, or resumes."""
        record = self._workspace.run.record
        if record is not None and record.state in WAITING:
            self._command(Resume())
        elif record is not None and record.state == "running":
            self._command(Pause())

    def release(self) -> None:
        """Unloads the model until the run resumes."""
        self._command(Release())

    def stop(self) -> None:
        """Stops after this step."""
        self._command(Stop())

    def evaluate(self) -> None:
        """Evaluates after this step."""
        self._command(EvaluateNow())

    def change_rate(self) -> None:
        """Asks for a factor to apply to the learning rate."""
        record = self._workspace.run.record
        if record is not None and record.active:
            rates = record.columns["rate"]
            rate = float(rates[-1]) if len(rates) else float("nan")
            RateDialog(rate, lambda factor: self._command(SetRate(factor)), self).open()

    def export_png(self) -> None:
        """Asks where to, and saves the plots as an image."""
        self._controls.save("png")

    def export_csv(self) -> None:
        """Asks where to, and saves the steps as a table."""
        self._controls.save("csv")

    def _command(self, command: Command) -> None:
        if self._workspace.run.running:
            self._workspace.run.command(command)

    # Display

    def _refresh_state(self) -> None:
        workspace, record = self._workspace, self._workspace.run.record
        if record is not None:
            on_gpu = record.started is not None and not record.started.device.startswith("CPU")
            title = "GPU memory, GiB" if on_gpu else "Process memory, GiB"
            if record is not self._shown:
                self._shown, self._changes = record, -1
                self.board.show_record(record, title)
            memory = workspace.memory
            self.board.set_memory(title, memory.available if memory else 0)
        state = record.state if record else ""
        active, resumable = workspace.run.running, record is not None and record.resumable
        self._resume.setEnabled(not workspace.blocker)
        self._resume.setToolTip(workspace.blocker or "Continues after the last step.")
        self._resume.setVisible(resumable and not active)
        for control in (self._pause, self._stop, self._evaluate, self._rate):
            control.setVisible(active)
        waits = state in WAITING
        stepping = waits or state == "running"
        self._release.setVisible(active and state == "paused")
        self._pause.setEnabled(stepping)
        self._pause.setText("Resume" if waits else "Pause")
        self._pause.setAccessibleName("Resume run" if waits else "Pause run")
        self._pause.set_image("play" if waits else "pause")
        self._stop.setAccessibleName("Stop run")
        self._stop.setEnabled(workspace.run.pending is not Stop)
        self._evaluate.setEnabled(stepping)
        self._rate.setEnabled(stepping)
        self.banner.track(workspace.run.problem)
        if active and not self._tick.isActive():
            self._tick.start()
        elif not active:
            self._tick.stop()
        self.refresh()

    def _draw(self) -> None:
        """Draws, and delays the next redraw so that drawing stays within its share."""
        started = time.thread_time()
        self.refresh()
        self.board.paint()
        self._tick.setInterval(max(TICK_MS, round(1000 * (time.thread_time() - started) / SHARE)))

    def refresh(self) -> None:
        """Shows what is new."""
        workspace, record = self._workspace, self._workspace.run.record
        self._show_empty()
        ended = record is not None and self._summary.show_record(record)
        self._summary.setVisible(ended)
        begun = record is not None and (record.active or record.columns.size > 0)  # it may fail before its first step
        for part in (self._figures, self._bar):
            part.setVisible(begun and not ended)
        self._controls.setVisible(begun)
        if record is None:
            self.sentence.setText("No run yet.")
            self._bar.setRange(0, 1)
            return
        rate, left, middle, _ = record.speed()
        self._numbers["Step"].setText(formatting.out_of(record.step, record.steps))
        columns = record.columns
        loss = columns["smooth"][-1] if columns.size else float("nan")  # also NaN if privacy hides it
        self._numbers["Loss"].setText(f"{loss:.4f}" if loss == loss else "–")
        self._numbers["Tokens/s"].setText(formatting.count(rate) if rate == rate else "–")
        self._numbers["Step time"].setText(formatting.latency(middle) if middle == middle else "–")
        self._numbers["Time left"].setText(formatting.duration(left) if record.active and left == left else "–")
        # Before the first step, the place of the plots shows the progress.
        progress = record.progress if record.active and columns.size else None
        pending = PENDING[workspace.run.pending] if workspace.run.pending else ""
        now = formatting.progress(progress, record.overall) if progress and record.overall else pending
        if record.state == "waiting":
            now = ""
        short = ended and record.step < record.steps
        now = f"after step {formatting.out_of(record.step, record.steps)}" if short else now
        self.sentence.setText(f"{record.name or 'Run'} · {workspace.run.state}{f' · {now}' if now else ''}")
        if record.preparing and record.active:
            self._bar.show_fraction(record.overall.fraction if record.overall else 0.0)
        else:
            self._bar.setRange(0, max(record.steps, 1))
            self._bar.setValue(record.step)
        if self.isVisible():
            self.board.draw()
        if record.changes != self._changes:
            self._changes = record.changes
            self.results.show_record(record)

    def _show_empty(self) -> None:
        """Before the first step: what will run, or how far its preparation is."""
        record = self._workspace.run.record
        filled = record is not None and record.columns.size > 0
        self._plots.setCurrentIndex(int(filled))
        self._controls.show_record(record if filled else None)
        if not filled:
            self._outlook.refresh()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """In one column, the plots take the room they need, and the page scrolls."""
        super().resizeEvent(event)
        self._plots.setMinimumHeight((60 if event.size().width() < PLOTTED else 33) * GRID)

    def showEvent(self, event: QShowEvent) -> None:
        """Catches up with what arrived while another page was shown."""
        super().showEvent(event)
        self.refresh()

    @property
    def _folder(self) -> Path | None:
        return self._workspace.run.record.folder if self._workspace.run.record else None
