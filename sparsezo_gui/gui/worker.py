"""The only path from the window to the engine: a worker object on one thread, and the calls that it makes.

The window puts requests into the worker's inbox; the worker serves them one at a time and puts the results into its
outbox, a deque that a timer in the window drains. No signal is emitted per step, and no tensor crosses. During a run
its iterator is advanced here, so small requests are answered between two steps.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from PySide6.QtCore import QObject, Slot

from sparsezo_gui.errors import UserError
from sparsezo_gui.gui.problems import explain
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe.events import Event, Paused, Progress, Released, Started
from sparsezo_gui.untrusted import is_fault

# Completes "Something unexpected happened while …" and "The engine is busy …" for each kind of request.
DOING = {
    "load": "loading the engine",
    "tasks": "listing tasks",
    "models": "looking for models",
    "summary": "reading the model",
    "fits": "checking which models fit",
    "estimate": "estimating memory",
    "measure": "measuring memory",
    "mask": "finding the mask",
    "rates": "finding a learning rate",
    "preview": "reading the data",
    "runs": "listing runs",
    "history": "reading the run",
    "train": "training",
    "resume": "resuming the run",
    "look": "opening the run",
    "branch": "creating the branch",
    "note": "saving the notes",
    "contents": "listing the files to share",
    "share": "sharing the run",
    "receive": "unpacking the run",
    "export": "exporting",
    "consent": "saving your consent",
}
RUNS = ("train", "resume", "look")  # a run that holds the engine
LONG = {"load", "measure", "mask", "rates", *RUNS, "export"}  # never served between two steps of a run
LATEST = {"fits", "summary", "estimate", "preview", "history", "runs"}  # kinds of which only the last request counts
NICENESS = 5  # of the worker, inherited by torch's threads, so that the window's thread has priority


@dataclass(frozen=True, slots=True)
class Request:
    """A request: ``kind`` names a method of `Engine`."""

    kind: str
    number: int
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Message:
    """A result of a request: ``what`` is 'event', 'answer', 'problem' or 'cancelled'."""

    kind: str
    number: int
    what: str
    value: Any = None


class Engine:
    """All calls into the engine. Imports are inside the methods, so that creating one loads nothing."""

    def load(self, leave: threading.Event) -> Iterator[Progress]:
        """Imports the ML stack one package at a time, so that the user can quit in between."""
        names = ("numpy", "torch", "tokenizers", "transformers", "bitsandbytes", "sparsezo_gui.engine.training")
        # Garbage collection during an import scans every module loaded so far and blocks the window meanwhile.
        gc.disable()
        try:
            for done, name in enumerate(names):
                if leave.is_set():
                    return
                yield Progress("Loading the engine", done, len(names), "packages")
                import_module(name)
        finally:
            gc.enable()
            gc.freeze()

    def tasks(self) -> list[Any]:
        """The tasks that data can be used for."""
        from sparsezo_gui.engine.data.tasks import tasks

        return list(tasks().values())

    def models(self) -> list[Any]:
        """Summaries of the models on this computer."""
        from sparsezo_gui.engine.hub.library import local_models

        return list(local_models())

    def summary(self, recipe: Recipe) -> Any:
        """Summary of the recipe's model, from its config and tokenizer alone."""
        from sparsezo_gui.engine.planning import summary

        return summary(recipe.model)

    def fits(self, recipe: Recipe, models: tuple[str, ...]) -> Generator[Progress, None, dict[str, str]]:
        """Verdict of the estimate by model, otherwise as in the recipe; models without an estimate are left out."""
        from sparsezo_gui.engine.planning import estimating

        verdicts = {}
        for name in models:
            table = recipe.model.model_copy(update={"id": name, "revision": "main", "trust_remote_code": False})
            with contextlib.suppress(UserError):
                verdicts[name] = (yield from estimating(recipe.model_copy(update={"model": table}))).verdict
        return verdicts

    def estimate(self, recipe: Recipe) -> Generator[Progress, None, Any]:
        """Memory by formula."""
        from sparsezo_gui.engine.planning import estimating

        return estimating(recipe)

    def measure(self, recipe: Recipe) -> Generator[Progress, None, Any]:
        """Memory by two real steps."""
        from sparsezo_gui.engine.planning import measure

        return measure(recipe)

    def mask(self, recipe: Recipe) -> Generator[Progress, None, tuple[Recipe, Any]]:
        """Report of the mask, with the recipe it was found for."""
        from sparsezo_gui.engine.masks.report import find_mask

        return recipe, (yield from find_mask(recipe))

    def rates(self, recipe: Recipe) -> Generator[Progress, None, tuple[Recipe, Any]]:
        """A suitable learning rate, with the recipe it was found for."""
        from sparsezo_gui.engine.range_test import find_rate

        return recipe, (yield from find_rate(recipe))

    def preview(self, recipe: Recipe, page: int) -> Generator[Progress, None, Any]:
        """One page of the data, and the text that the model will see."""
        from sparsezo_gui.engine.planning import preview_data

        return preview_data(recipe, page)

    def runs(self, also: Path | None) -> list[Any]:
        """Summaries of all runs, newest first, and of the one in the folder ``also``."""
        from sparsezo_gui.engine.runs.listing import list_runs

        return list_runs(also)

    def history(self, folder: Path) -> tuple[Path, Any]:
        """A run from its journal, with its folder."""
        from sparsezo_gui.engine.runs.history import history

        return folder, history(folder)

    def train(self, recipe: Recipe, commands: SimpleQueue) -> Iterator[Event]:
        """A new run."""
        from sparsezo_gui.engine.training import train

        return train(recipe, commands)

    def resume(self, folder: Path, commands: SimpleQueue) -> Iterator[Event]:
        """A run that was stopped or interrupted."""
        from sparsezo_gui.engine.training import resume

        return resume(folder, commands)

    def look(self, folder: Path, accept: bool, commands: SimpleQueue) -> Iterator[Event]:
        """A run with its model loaded, paused, for commands about any of its steps; ``accept`` is whether to go ahead
        despite changed inputs."""
        from sparsezo_gui.engine.training import resume

        return resume(folder, commands, paused=True, accept=accept)

    def branch(self, folder: Path, step: int, settings: list[str], name: str) -> Path:
        """Folder of a new run that continues from a step."""
        from sparsezo_gui.engine.runs.branch import branch
        from sparsezo_gui.engine.runs.folder import open_run

        return branch(open_run(folder), step, settings, name).path

    def note(self, folder: Path, text: str) -> None:
        """Replaces a run's notes."""
        from sparsezo_gui.engine.runs.folder import open_run

        open_run(folder).note(text)

    def contents(self, folder: Path) -> tuple[Path, Any, Any]:
        """The run's folder, and the contents of a shared file without and with examples."""
        from sparsezo_gui.engine.runs.folder import open_run
        from sparsezo_gui.engine.runs.share import contents

        run = open_run(folder)
        return folder, contents(run), contents(run, with_examples=True)

    def share(self, folder: Path, out: Path, with_examples: bool) -> tuple[Path, Any]:
        """A run as a small file; replaces an existing one, which the user agreed to."""
        from sparsezo_gui.engine.runs.folder import open_run
        from sparsezo_gui.engine.runs.share import share

        return out, share(open_run(folder), out, with_examples=with_examples, replace=True)

    def receive(self, file: Path) -> tuple[Path, str]:
        """Folder of an unpacked run, and a sentence on what it came without."""
        from sparsezo_gui.engine.runs.share import lacks, receive

        run = receive(file)
        return run.path, lacks(run)[1]

    def export(
        self, folder: Path, form: str, out: Path, step: int | None, options: dict[str, str], accept: bool
    ) -> Iterator[Progress]:
        """One step of a run as files, with the format's options; ``accept`` allows changed inputs."""
        from sparsezo_gui.engine.export import export_run

        return export_run(folder, form, out, step, accept=accept, **options)

    def consent(self, code: Any) -> None:
        """Saves that the user allows a model's code to run."""
        from sparsezo_gui.engine.pretrained.consent import give

        give(code)


class Worker(QObject):
    """Serves requests on its thread until `leave` is set."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.engine = engine
        self.inbox: SimpleQueue[Request | None] = SimpleQueue()
        self.outbox: deque[Message] = deque()
        self.commands: SimpleQueue = SimpleQueue()
        self.leave = threading.Event()
        self.latest: dict[str, int] = {}  # number of the newest request by kind
        self.cancelled: dict[str, int] = {}  # by kind, the number up to which long requests are cancelled or dropped
        self._later: deque[Request] = deque()

    @Slot()
    def serve(self) -> None:
        """Runs until the window closes."""
        _step_back()
        while not self.leave.is_set():
            request = self._later.popleft() if self._later else self.inbox.get()
            if request is not None and request.kind != "wake":
                self._serve(request)

    def _serve(self, request: Request) -> None:
        if self._outdated(request):
            return
        try:
            shared = {"load": (self.leave,), **dict.fromkeys(RUNS, (self.commands,))}
            answer = getattr(self.engine, request.kind)(*request.arguments, *shared.get(request.kind, ()))
            if request.kind in LONG or isinstance(answer, Generator):
                self._pull(request, answer)
            else:
                self._tell(request, "answer", answer)
        except BaseException as error:  # shown in the window, with its traceback
            if not is_fault(error):
                raise
            self._tell(request, "problem", explain(error, DOING.get(request.kind, request.kind)))

    def _outdated(self, request: Request) -> bool:
        return request.kind in LATEST and request.number < self.latest.get(request.kind, 0)

    def _given_up(self, request: Request) -> bool:
        cancelled = request.number <= self.cancelled.get(request.kind, 0)
        return self.leave.is_set() or cancelled or self._outdated(request)

    def _pull(self, request: Request, events: Iterator[Any]) -> None:
        """Advances an iterator to its end or until it is cancelled; the answer is a generator's return value."""
        with contextlib.closing(events) if hasattr(events, "close") else contextlib.nullcontext():  # type: ignore[arg-type]
            while not self._given_up(request):
                try:
                    event = next(events)
                except StopIteration as stop:
                    self._tell(request, "answer", stop.value)
                    return
                self._tell(request, "event", event)
                if isinstance(event, Started):
                    # From here on the loop reads its commands: stopping is a command, not a cancellation.
                    gc.freeze()
                # A pause with a reason ends automatically, so the loop is advanced again at once.
                self._between(request, isinstance(event, Released) or (isinstance(event, Paused) and not event.reason))
        self._tell(request, "cancelled")

    def _between(self, pulled: Request, waiting: bool) -> None:
        """Answers small requests between two events; during a pause, until the loop has a command."""
        while True:
            block = waiting and self.commands.empty() and not self._given_up(pulled)
            try:
                request = self.inbox.get(block)
            except Empty:
                return
            if request is None or request.kind == "wake":
                continue
            if request.kind in LONG:
                self._later.append(request)
            else:
                self._serve(request)

    def _tell(self, request: Request, what: str, value: Any = None) -> None:
        self.outbox.append(Message(request.kind, request.number, what, value))


def _step_back() -> None:
    """Gives the window's thread priority, in the system's scheduler and for the interpreter lock."""
    sys.setswitchinterval(0.001)
    if sys.platform.startswith("linux"):
        # On Linux niceness is per thread. Elsewhere the QThread's low priority does this.
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
