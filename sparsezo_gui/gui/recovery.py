"""After a crash, or when the last run was interrupted: the next window tells, and offers to resume the run."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import QObject

from sparsezo_gui.answers import Crash
from sparsezo_gui.crashes import Recorder
from sparsezo_gui.gui.formatting import out_of
from sparsezo_gui.gui.main_window import MainWindow
from sparsezo_gui.gui.problems import Problem
from sparsezo_gui.gui.requests import FindCrashes, LoadEngine
from sparsezo_gui.gui.run_requests import ReadRun


class Recovery(QObject):
    """Notes the run in progress for the next window, and tells what the last one left behind. A run is offered once:
    with its crash, or else when the engine is loaded."""

    def __init__(self, window: MainWindow, recorder: Recorder) -> None:
        super().__init__(window)
        self._window, self._workspace, self._recorder = window, window.workspace, recorder
        self._noted: Path | None = None
        self._crash: Crash | None = None  # whose run is being read
        self._offered = False
        self._workspace.run.changed.connect(self._note)
        self._workspace.of(FindCrashes).answered.connect(self._tell)
        self._workspace.of(ReadRun).answered.connect(self._offer)
        self._workspace.on(LoadEngine, call=self._loaded)

    def _note(self) -> None:
        run = self._workspace.run
        folder = run.record.folder if run.record is not None and run.running and not run.inspecting else None
        if folder != self._noted:
            self._noted = folder
            self._recorder.note_run(folder)

    def _tell(self, request: FindCrashes, crashes: list[Crash]) -> None:
        self._crash = next((crash for crash in crashes if crash.run), None)
        if self._crash is not None and self._crash.run is not None and not self._workspace.run.running:
            self._workspace.run.open(Path(self._crash.run.path))
        elif crashes:
            text = "SparseZO ended unexpectedly. If it happens again, copy the details into a bug report."
            self._window.show_problem(Problem(text, _details(crashes[0])), "warning")

    def _offer(self, request: ReadRun, _: object) -> None:
        crash, run = self._crash, self._workspace.run
        if crash is None or crash.run is None or request.folder != Path(crash.run.path):
            return
        self._crash, self._offered = None, True
        when, saved = "during the run", f"{out_of(crash.run.step, crash.run.steps)} steps are saved"
        if crash.run.state == "interrupted":
            when, saved = "while it prepared the run", "What it had found by then is saved"
        told = f"SparseZO ended unexpectedly {when} '{crash.run.name}'. {saved}."
        self._window.go("run")
        self._window.page("run").banner.show_problem(
            Problem(told, _details(crash)), "warning", ("Resume", run.resume_displayed)
        )

    def _loaded(self) -> None:
        record = self._workspace.run.record
        if self._workspace.engine_state != "ready":
            return
        if record is not None and record.state == "interrupted" and not self._offered and self._crash is None:
            where = f"after step {out_of(record.step, record.steps)}" if record.step else "before its first step"
            told = f"{record.name or 'The last run'} was interrupted {where}."
            self._window.show_problem(Problem(told), "info", ("Resume", self._resume))
        self._offered = True

    def _resume(self) -> None:
        self._window.go("run")
        self._workspace.run.resume_displayed()


def _details(crash: Crash) -> str:
    return f"Saved as {crash.report}\n\n{crash.text}"
