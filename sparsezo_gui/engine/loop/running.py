"""A run in progress: the value that the modules of the loop share, and how they read commands and write events."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue

from sparsezo_gui.engine.data import TaskData
from sparsezo_gui.engine.guard import Guard
from sparsezo_gui.engine.runs.folder import RunFolder
from sparsezo_gui.engine.runs.gradients import GradientWriter
from sparsezo_gui.engine.runs.journal_writer import JournalWriter
from sparsezo_gui.engine.session import Session
from sparsezo_gui.engine.watch import Watch
from sparsezo_gui.engine.workers import Workers
from sparsezo_gui.errors import DiskFull
from sparsezo_gui.recipe import events as e

Commands = SimpleQueue[e.Command]
Events = Generator[e.Event, None, None]
POLL = 1.0  # seconds between checks whether the reason to wait is over


@dataclass(frozen=True)
class Loaded:
    """A run's model at its current step, and its data. Whoever keeps it keeps the model in memory."""

    session: Session
    data: TaskData

    @property
    def step(self) -> int:
        """The current step."""
        return self.session.step

    @property
    def factor(self) -> float:
        """The factor on the scheduled learning rate."""
        return self.session.factor

    @property
    def hash(self) -> str:
        """The hash of the tuned values."""
        return self.session.tuned.hash()


@dataclass(frozen=True)
class Released:
    """The same of a run whose model is not in memory: released, or not loaded yet."""

    step: int = 0
    factor: float = 1.0
    hash: str = ""


@dataclass
class Running:
    """A run in progress. Only ``model`` holds its model, so that it can be released.

    ``paused`` waits for a command, ``waiting`` (a sentence) for a condition to end; ``stopping`` ends the loop.
    """

    run: RunFolder
    commands: Commands
    model: Loaded | Released = Released()
    paused: bool = False
    waiting: str = ""
    stopping: bool = False
    splits: tuple[str, ...] = ("validation", "test")  # evaluated at the end
    workers: Workers = field(default_factory=Workers)
    accept: bool = False  # inputs changed since the run started: it then answers prompts but takes no steps
    journal: JournalWriter = field(init=False)  # open while the loop runs
    gradients: GradientWriter | None = field(default=None, init=False)  # None: not or no longer recorded
    watch: Watch = field(init=False)
    base: list[float] = field(default_factory=list, init=False)  # losses of the base model, for the guard
    answers: dict[str, list[str]] = field(default_factory=dict, init=False)  # of the base model, by split
    guard: Guard | None = field(default=None, init=False)
    rescues: int = field(default=0, init=False)  # automatic rollbacks of this loop
    bad: int = field(default=0, init=False)  # steps in a row without a finite loss
    first: int = field(default=0, init=False)  # step at which this loop started
    postponed: deque[e.Command] = field(default_factory=deque, init=False)

    @property
    def step(self) -> int:
        """The run's current step."""
        return self.model.step

    @property
    def idle(self) -> bool:
        """Whether no command is pending."""
        return not self.postponed and self.commands.empty()

    def next_command(self, wait: bool = True) -> e.Command:
        """The next command; by default, waits for it while paused, and a moment while waiting. Raises
        Empty."""
        if self.postponed:
            return self.postponed.popleft()
        return self.commands.get(wait and (self.paused or bool(self.waiting)), None if self.paused else POLL)

    def interrupted(self) -> bool:
        """Whether the command to end the answer that is being written has come. All that came is postponed."""
        return any(isinstance(each, e.StopAnswer) for each in self._come())

    def leaving(self) -> bool:
        """Whether a command has come that does not wait for the next step. All that came is postponed."""
        return any(isinstance(each, e.Stop | e.Pause | e.Release | e.GoBack) for each in self._come())

    def _come(self) -> deque[e.Command]:
        """The commands that have come and wait."""
        while not self.commands.empty():
            self.postponed.append(self.commands.get())
        return self.postponed

    def record(self, event: e.Event) -> Events:
        """Writes an event to the run's folder and yields it; notices with their step."""
        if isinstance(event, e.Notice):
            event = replace(event, step=self.step)
        yield from self.written(lambda: self.run.record(event))
        yield event

    def written(self, write: Callable[[], None]) -> Events:
        """Calls ``write``; on a full disk, retries until there is space if the recipe says so.

        Raises `UserError` otherwise, and if stopped meanwhile: what could not be written is then lost, at most one
        step.
        """
        waited = False
        while True:
            try:
                write()
                break
            except DiskFull as error:
                if "disk" not in self.run.recipe.run.pause_on:
                    raise
                if not waited:
                    waited = True
                    yield e.Notice(f"The run waits for disk space: {error}", "warning")
                    yield e.Paused(self.step, "the disk is full")
                if self._stop_asked():
                    raise
                yield e.Progress("Waiting: the disk is full")
        if waited:
            yield e.Resumed(self.step)

    def _stop_asked(self) -> bool:
        """Waits a moment for the command to stop; other commands are executed later, in order."""
        try:
            command = self.commands.get(timeout=POLL)
        except Empty:
            return False
        self.stopping = isinstance(command, e.Stop)
        if not self.stopping:
            self.postponed.append(command)
        return self.stopping
