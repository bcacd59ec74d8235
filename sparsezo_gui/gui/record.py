"""A run as the window shows it: growing columns of numbers, and notices. Filled live or from a journal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sparsezo_gui.answers import History
from sparsezo_gui.gui.wording import in_form_words
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe.events import (
    Evaluation,
    Event,
    Examples,
    Finished,
    GeneralText,
    Notice,
    Paused,
    Preparing,
    Progress,
    RateChanged,
    RateFound,
    Released,
    Resumed,
    Returned,
    Started,
    Step,
    Trial,
)
from sparsezo_gui.recipe.noise import NoiseProbed
from sparsezo_gui.stages import ONE, RESUMING, Overall, Stages, starting

FIELDS = ("step", "loss", "gradient_estimate", "rate", "seconds", "memory", "tokens", "smooth")
SMOOTHING = 0.97  # of the running mean of the loss, unless the user decides otherwise
STATES = {
    "starting": "Preparing", "preparing": "Preparing", "running": "Running", "paused": "Paused", "waiting": "Waiting",
    "unloaded": "Paused, model unloaded", "done": "Finished", "stopped": "Stopped",
    "interrupted": "Interrupted", "failed": "Failed", "damaged": "Damaged",
}  # fmt: skip
WAITING = ("paused", "waiting", "unloaded")  # states of a run that occupies the engine without taking steps
RECENT = 500  # steps that speed and latency percentiles cover


class Columns:
    """Rows of `FIELDS` in one preallocated array that doubles when full; columns are views."""

    def __init__(self, capacity: int = 4096) -> None:
        self._values = np.empty((len(FIELDS), capacity))
        self.size = 0
        self._smoothing = SMOOTHING

    def __getitem__(self, field: str) -> np.ndarray:
        """View (size,) of one column."""
        return self._values[FIELDS.index(field), : self.size]

    def reserve(self, size: int) -> None:
        """Makes room for ``size`` rows."""
        if size > self._values.shape[1]:
            grown = np.empty((len(FIELDS), max(size, 2 * self._values.shape[1])))
            grown[:, : self.size] = self._values[:, : self.size]
            self._values = grown

    def append(self, step: int, loss: float, *rest: float) -> None:
        """Adds a row. A repeated step (after a resume or a rollback) replaces that step and all later ones."""
        if self.size and step <= self._values[0, self.size - 1]:
            self.truncate(step - 1)
        self.reserve(self.size + 1)
        smooth = loss if not self.size else self._smooth(self._values[7, self.size - 1], loss, self.size)
        self._values[:, self.size] = (step, loss, *rest, smooth)
        self.size += 1

    def truncate(self, step: int) -> None:
        """Removes all rows after ``step``."""
        self.size = int(np.searchsorted(self["step"], step, side="right"))

    def extend(self, steps: np.ndarray) -> None:
        """Adds rows from the structured array of a history. Of several gradient estimates in a step, the first is
        shown, as in a live run."""
        self.reserve(self.size + len(steps))
        estimates = steps["values"].reshape(len(steps), -1)[:, 0] if len(steps) else ()
        names = ("step", "loss", "rate", "seconds", "memory", "tokens")
        rows = zip(*(steps[name].tolist() for name in names), estimates, strict=True)
        for step, loss, rate, seconds, memory, tokens, estimate in rows:
            self.append(step, loss, estimate, rate, seconds, memory, tokens)

    def smooth_again(self, smoothing: float) -> None:
        """Smooths the losses anew, and those that follow; 0 does not smooth at all."""
        if smoothing != self._smoothing:
            self._smoothing, before = smoothing, math.nan
            found = self["smooth"]
            for row, loss in enumerate(self["loss"].tolist()):
                found[row] = before = self._smooth(before, loss, row)

    def _smooth(self, before: float, loss: float, row: int) -> float:
        # A plain mean until the window is full, for a quick start. A NaN must not persist.
        keep = min(self._smoothing, row / (row + 1))
        return keep * before + (1 - keep) * loss if math.isfinite(loss) and math.isfinite(before) else loss


@dataclass
class StepNotice:
    """A notice and the step it belongs to."""

    step: int
    text: str
    level: str


class RunRecord:
    """One run. ``state`` is 'starting', 'running', 'paused', 'waiting' (while ``reason`` holds), 'unloaded' (paused,
    model unloaded), 'done', 'stopped', 'interrupted', 'failed' or 'damaged'."""

    def __init__(self, recipe: Recipe | None = None, folder: Path | None = None) -> None:
        self.recipe = recipe
        self.folder = folder
        self.name = recipe.run.name if recipe else ""
        self.columns = Columns()
        self.evaluations: list[Evaluation] = []
        self.changed_input_evaluations: list[Evaluation] = []  # those with changed inputs, which are not comparable
        self.notes: list[StepNotice] = []
        self.rate_changes: list[RateChanged] = []
        self.trials = np.empty((2, 0))  # steps before the first (…, -1, 0) and losses of the search for a learning rate
        self.noise: NoiseProbed | None = None
        self.progress: Progress | None = None
        self.overall: Overall | None = None  # of the preparation, or of what is done between two steps
        self.started: Started | None = None
        self.finished: Finished | None = None
        self.reason = ""
        self.is_start = False  # prepared in part, so that it has no steps
        self.prepare()
        self.examples: Examples | None = None  # best and worst of the last evaluation
        self.general_text: GeneralText | None = None
        self.active_elsewhere = False  # active in another window or terminal
        self.rolled_back_to: int | None = None  # the step of a rollback, until another step follows
        self.changes = 0  # counts all events but steps, so that views know when to rebuild their lists

    def prepare(self, resumed: bool = False) -> None:
        """The engine is about to start or resume the run."""
        self.state, self.preparing, self.finished, self.overall = "starting", True, None, None
        self._stages = Stages(RESUMING if resumed and not self.is_start else starting(self.recipe or Recipe()))

    def _prepared(self) -> None:
        """The first step is taken, or the run waits."""
        if self.preparing:
            self.preparing, self._stages = False, Stages(ONE)

    @classmethod
    def from_history(cls, folder: Path, history: History) -> RunRecord:
        """A run that is not active, from its journal."""
        record = cls(history.recipe, folder)
        record.add(history.events)
        for steps in history.steps:
            record.columns.extend(steps)
        record.name = history.run.name
        state = history.run.state
        ended = record.finished is not None and record.finished.step >= record.step
        record.active_elsewhere = state in ("running", "preparing")
        record.is_start = state in ("preparing", "interrupted")
        record.state = state if state != "stopped" or ended else "interrupted"
        record.progress = None
        if history.fault:
            record.notes.append(StepNotice(record.step, history.fault, "warning"))
        return record

    @property
    def step(self) -> int:
        """The last completed step."""
        if self.columns.size:
            return int(self.columns["step"][-1])
        return self.rolled_back_to if self.rolled_back_to is not None else self.started.first - 1 if self.started else 0

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.started.steps if self.started else self.recipe.loop.steps if self.recipe else 0

    @property
    def active(self) -> bool:
        """Whether its loop is active, even if it waits."""
        return self.state in ("starting", "running", *WAITING) and not self.active_elsewhere

    @property
    def resumable(self) -> bool:
        """Whether there is a journal to resume from."""
        return (
            not self.active
            and self.folder is not None
            and (
                self.state in ("stopped", "interrupted", "failed") or (self.state == "done" and self.step < self.steps)
            )
        )

    def add(self, events: Iterable[Event]) -> None:
        """Applies events in order."""
        for event in events:
            if isinstance(event, Step):
                self.columns.append(
                    event.step, event.loss, event.projected_gradient, event.rate, event.seconds, event.memory_bytes,
                    event.tokens,
                )  # fmt: skip
                self.progress = None
                self._prepared()
                continue
            self.changes += 1
            if isinstance(event, Progress):
                self.progress, self.overall = event, self._stages.at(event)
            elif isinstance(event, Preparing):
                self.folder, self.name, self.is_start = Path(event.run), event.name, True
            elif isinstance(event, Started):
                self.is_start = False
                self.started, self.state, self.finished, self.progress = event, "running", None, None
                self.folder = Path(event.run)
                self.name = event.name or self.name
            elif isinstance(event, Evaluation) and event.changed:
                self.changed_input_evaluations.append(event)
                self.progress = None
            elif isinstance(event, Evaluation):
                self.evaluations = [e for e in self.evaluations if (e.step, e.split) != (event.step, event.split)]
                self.evaluations.append(event)
                self.evaluations.sort(key=lambda e: e.step)
                self.progress = None
            elif isinstance(event, RateFound):
                self.trials, self.progress = _before_start(event.trials), None
            elif isinstance(event, NoiseProbed):
                self.noise, self.progress = event, None
            elif isinstance(event, Notice):
                self.notes.append(StepNotice(event.step or self.step, in_form_words(event.text), event.level))
            elif isinstance(event, RateChanged):
                self.rate_changes.append(event)
            elif isinstance(event, Examples):
                self.examples = event
            elif isinstance(event, GeneralText):
                self.general_text, self.progress = event, None
            elif isinstance(event, Returned):
                self.columns.truncate(event.step)
                self.evaluations = [e for e in self.evaluations if e.step <= event.step]
                self.rate_changes = [e for e in self.rate_changes if e.step <= event.step]
                self.general_text = None
                if self.examples is not None and self.examples.step > event.step:
                    self.examples = None
                self.rolled_back_to = event.step
                self.notes.append(StepNotice(event.step, "Rolled back to this step.", "info"))
            elif isinstance(event, Paused):
                self.state = "waiting" if event.reason else "paused"
                self.reason, self.progress = event.reason, None
                self._prepared()
            elif isinstance(event, Released):
                self.state, self.progress = "unloaded", None
            elif isinstance(event, Resumed):
                self.state = "running"
            elif isinstance(event, Finished):
                self.finished, self.progress = event, None
                self.state = "done" if event.reason == "early" else event.reason

    def speed(self) -> tuple[float, float, float, float]:
        """Over recent steps: tokens per second, seconds left, median and 95th percentile of seconds per step."""
        seconds = self.columns["seconds"][-RECENT:]
        if not len(seconds):
            return (float("nan"),) * 4
        total = float(seconds.sum())
        rate = float(self.columns["tokens"][-RECENT:].sum()) / total if total > 0 else float("nan")
        middle, high = np.percentile(seconds, (50, 95))
        return rate, max(self.steps - self.step, 0) * total / len(seconds), float(middle), float(high)

    def before_after(self) -> tuple[Evaluation | None, Evaluation | None]:
        """The base model's evaluation and the latest one on the same split; test is preferred to validation."""
        found = []
        for split in sorted({e.split for e in self.evaluations}, key=lambda name: name != "test"):
            same = [e for e in self.evaluations if e.split == split]
            base = next((e for e in same if e.step == 0), None)
            last = next((e for e in reversed(same) if e.step > 0), None)
            found.append((None if base and base.partial and last else base, last))
        return next((pair for pair in found if pair[1]), found[0] if found else (None, None))


def _before_start(trials: Sequence[Trial]) -> np.ndarray:
    """Steps and losses of the short runs, one after the other up to step 0, each followed by a gap."""
    losses = [loss for trial in trials for loss in (*trial.losses, np.nan)]
    return np.array([np.arange(1 - len(losses), 1), losses])
