"""The displayed run, and everything that is done with a run: start, resume, inspect, and commands to its loop."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from PySide6.QtCore import QObject, QSettings, Signal

from sparsezo_gui.answers import History
from sparsezo_gui.gui.calls import RunRequest
from sparsezo_gui.gui.client import Client
from sparsezo_gui.gui.problems import Problem
from sparsezo_gui.gui.record import STATES, WAITING, RunRecord
from sparsezo_gui.gui.requests import RUNS, InspectRun, ResumeRun, StartRun
from sparsezo_gui.gui.run_requests import ListRuns, ReadRun
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe.events import (
    Answer,
    Ask,
    Command,
    EvaluateNow,
    Evaluation,
    Event,
    Notice,
    Pause,
    Release,
    Resume,
    Stop,
)


@dataclass(frozen=True)
class Opening:
    """A run to read from disk and then to resume, or to ``inspect``, with the commands for its loop."""

    folder: Path
    inspect: bool
    commands: tuple[Command, ...]
    accept: bool = False  # despite changed inputs


class RunControl(QObject):
    """At most one run holds the engine; it is the displayed one."""

    changed = Signal()  # another run is displayed, or its state changed
    advanced = Signal()  # steps or notices arrived
    answered = Signal(object)  # an Answer: a piece of what the model writes

    def __init__(self, client: Client, store: QSettings) -> None:
        super().__init__()
        self._client, self._store = client, store
        self.record: RunRecord | None = None
        self.pending: type[Command] | None = None  # what the loop still has to do: Pause, Stop, EvaluateNow or Ask
        self._request: RunRequest | None = None  # the last one
        self._before: RunRecord | None = None  # displayed before a start that waits for the engine
        self._opening: Opening | None = None
        self._inspected: Opening | None = None  # the last one
        client.of(ReadRun).finished.connect(self._read)
        client.on(ReadRun, *RUNS, call=self.changed.emit)
        for kind in RUNS:
            client.of(kind).emitted.connect(self._take)
            client.of(kind).finished.connect(self._ended)

    @property
    def running(self) -> bool:
        """Whether a run holds the engine."""
        return self._client.busy_with(*RUNS)

    @property
    def waits(self) -> bool:
        """Whether a run starts as soon as the engine is loaded."""
        return self._client.busy_with(StartRun) and self._client.engine_state == "loading"

    @property
    def inspecting(self) -> bool:
        """Whether a run holds the engine only to be viewed."""
        return self._client.busy_with(InspectRun)

    @property
    def state(self) -> str:
        """The state of the displayed run in words."""
        if self.record is None:
            return ""
        if self.record.active_elsewhere:
            return "Running in another window or terminal"
        if self.inspecting and self.record.state in WAITING:  # it was not running, so it does not pause
            return "Stopped, model loaded"
        return f"Waiting: {self.record.reason}" if self.record.state == "waiting" else STATES[self.record.state]

    @property
    def problem(self) -> Problem | None:
        """Why the displayed run failed or could not be opened."""
        return self._client.problem_of(*RUNS, ReadRun)

    def holds(self, folder: Path | str) -> bool:
        """Whether the run in ``folder`` holds the engine."""
        return self.running and self.record is not None and str(self.record.folder) == str(folder)

    def list_runs(self) -> None:
        """Asks for all runs, including the displayed one wherever it is stored."""
        self._client.ask(ListRuns(self.record.folder if self.record else None))

    # What a user can do with a run

    def start(self, recipe: Recipe) -> None:
        """Starts a run."""
        if not self.running:
            self._before = self.record
            self._begin(RunRecord(recipe), StartRun(recipe))

    def take_back(self) -> None:
        """Cancels a start that waits for the engine."""
        if self.waits:
            self._client.take_back(StartRun)
            self.record, self._before, self._request = self._before, None, None
            self.changed.emit()

    def resume_displayed(self) -> None:
        """Resumes the displayed run."""
        if not self.running and self.record is not None and self.record.folder is not None:
            self._begin(self.record, ResumeRun(self.record.folder))

    def open(self, folder: Path) -> None:
        """Shows a run from disk."""
        self._client.ask(ReadRun(folder))

    def forget(self, folder: Path) -> None:
        """Shows the run in ``folder``, which is deleted, and its branches no longer."""
        shown = self.record.folder if self.record is not None else None
        if shown is not None and not self.running and shown.is_relative_to(folder):
            self.record = None
            self._store.remove("last_run")
            self.changed.emit()

    def resume(self, folder: Path) -> None:
        """Resumes the run in ``folder``."""
        self._open_and(Opening(folder, False, (Resume(),)))

    def inspect(self, folder: Path, *commands: Command) -> None:
        """Sends commands to the run in ``folder``; if it is not active, its model is loaded for them."""
        self._inspected = Opening(folder, True, commands)
        self._open_and(self._inspected)

    def inspect_anyway(self) -> None:
        """Repeats the last `inspect` despite changed inputs, without its prompts, which the chat has dropped by
        then."""
        if self._inspected is not None:
            commands = tuple(each for each in self._inspected.commands if not isinstance(each, Ask))
            self._open_and(replace(self._inspected, commands=commands, accept=True))

    def command(self, command: Command) -> None:
        """Sends a command to the running loop, which reads it between steps."""
        if isinstance(command, Stop) and self.waits:
            self.take_back()
            return
        if isinstance(command, Pause | Release):
            self.pending = Pause
        elif isinstance(command, Resume):
            self.pending = None
        elif isinstance(command, Stop | EvaluateNow | Ask):
            self.pending = type(command)
        if isinstance(command, Stop) and self.record is not None and self.record.state == "starting":
            for kind in RUNS:
                self._client.cancel(kind)  # the loop reads no commands yet
        if self._request is not None:
            self._request.commands.put(command)
        self._client.wake()
        self.changed.emit()

    def close(self) -> None:
        """Stops the loop after the current step."""
        if self._request is not None:
            self._request.commands.put(Stop())

    def ask_again(self, request: RunRequest) -> None:
        """Repeats a refused request now that the user allows the model's code to run."""
        if self.record is not None:
            if isinstance(request, StartRun) and self.record.folder is not None:  # its code changed during the run
                request = ResumeRun(self.record.folder, commands=request.commands)
            self._prepare(self.record, request)
        self._client.ask(request)

    def _open_and(self, opening: Opening) -> None:
        if self.holds(opening.folder):
            for command in opening.commands:
                self.command(command)
        elif not self._client.blocker:
            before = self._opening
            if before is not None and (before.folder, before.inspect) == (opening.folder, opening.inspect):
                opening = replace(opening, commands=(*before.commands, *opening.commands))
            self._opening = opening
            self.open(opening.folder)

    def _begin(self, record: RunRecord, request: RunRequest) -> None:
        self.record, self.pending, self._opening = record, None, None
        self._prepare(record, request)
        for kind in RUNS:
            self._client.of(kind).problem = None
        self._client.of(ReadRun).problem = None
        self._client.ask(request)
        self.changed.emit()

    def _prepare(self, record: RunRecord, request: RunRequest) -> None:
        record.prepare(resumed=not isinstance(request, StartRun))
        self._request = request

    # What comes back

    def _read(self, request: ReadRun) -> None:
        """A run was read, or could not be; if it was read to be resumed or inspected, that begins."""
        channel = self._client.of(ReadRun)
        opening, self._opening = self._opening, None
        if channel.answered_request is not request or channel.answer is None or self.running:
            return
        history: History = channel.answer
        record = self.record = RunRecord.from_history(request.folder, history)
        self._store.setValue("last_run", str(request.folder))
        self.list_runs()
        if opening is not None and opening.folder == request.folder and not self._client.blocker:
            folder = opening.folder
            self._begin(record, InspectRun(folder, opening.accept) if opening.inspect else ResumeRun(folder))
            for command in opening.commands:
                self.command(command)

    def _take(self, events: list[Event]) -> None:
        record = self.record
        if record is None:
            return
        before = record.state, record.folder
        record.add(events)
        answers = [event for event in events if isinstance(event, Answer)]
        for answer in answers:
            self.answered.emit(answer)
        if (record.state, record.folder) != before:
            self.pending = Stop if self.pending is Stop and record.active else None
            self._store.setValue("last_run", str(record.folder or ""))
            self.changed.emit()
        elif self.pending is EvaluateNow and (
            record.progress or any(isinstance(event, Evaluation | Notice) for event in events)
        ):
            self.pending = None
        if self.pending is Ask and any(answer.last for answer in answers):
            self.pending = None
        self.advanced.emit()

    def _ended(self, request: RunRequest) -> None:
        if self.record is None:
            return
        if self.record.active:
            failed = self._client.of(type(request)).problem is not None
            if isinstance(request, StartRun) and self.record.is_start and failed:
                self.record.folder = None  # which the engine removes
            self.record.state = "failed" if failed else "interrupted" if self.record.is_start else "stopped"
        self.record.progress, self.pending = None, None
        self.list_runs()
        if isinstance(request, InspectRun) and self.record.folder is not None:
            self.open(self.record.folder)  # in its state on disk
