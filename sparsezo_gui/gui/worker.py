"""The only path from the window to the engine: a worker object on one thread, and the calls that it makes.

The window puts tickets with requests into the worker's inbox; the worker serves them one at a time and puts the results
into its outbox, a deque that a timer in the window drains. No signal is emitted per step, and no tensor crosses. During
a run its iterator is advanced here, so small requests are answered between two steps.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
from collections import deque
from collections.abc import Generator, Iterator
from importlib import import_module
from queue import Empty, SimpleQueue
from typing import Any

from PySide6.QtCore import QObject, Slot

from sparsezo_gui import answers as a
from sparsezo_gui.errors import UserError
from sparsezo_gui.gui.calls import EngineCalls, Request, RunRequest, Work
from sparsezo_gui.gui.hub_worker import HubEngine
from sparsezo_gui.gui.messages import Answered, Cancelled, Emitted, Failed, Message, Ticket
from sparsezo_gui.gui.problems import explain
from sparsezo_gui.gui.run_worker import RunEngine
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe.events import Event, Paused, Progress, Released, Started
from sparsezo_gui.recipe.noise import NoiseProbed
from sparsezo_gui.untrusted import is_fault

NICENESS = 5  # of the worker, inherited by torch's threads, so that the window's thread has priority


class Engine(RunEngine, HubEngine):
    """All calls into the engine. Imports are inside the methods, so that creating one loads nothing."""

    def load(self, closing: threading.Event) -> Work[None]:
        """Imports the ML stack one package at a time, so that the user can quit in between."""
        ours = ("sparsezo_gui.engine.bnb", "sparsezo_gui.engine.training")
        names = ("numpy", "torch", "tokenizers", "transformers", *ours)
        # Garbage collection during an import scans every module loaded so far and blocks the window meanwhile.
        gc.disable()
        try:
            for done, name in enumerate(names):
                if closing.is_set():
                    return
                yield Progress("Loading the engine", done, len(names), "packages")
                import_module(name)
        finally:
            gc.enable()
            gc.freeze()

    def tasks(self) -> list[a.Task]:
        """The tasks that data can be used for."""
        from sparsezo_gui.engine.data.tasks import tasks

        return list(tasks().values())

    def models(self) -> list[a.ModelSummary]:
        """Summaries of the models on this computer."""
        from sparsezo_gui.engine.hub.library import local_models

        return local_models()

    def summary(self, recipe: Recipe) -> a.ModelSummary:
        """Summary of the recipe's model, from its config and tokenizer alone."""
        from sparsezo_gui.engine.planning import summary

        return summary(recipe.model)

    def fits(self, recipe: Recipe, models: tuple[str, ...]) -> Work[dict[str, str]]:
        """Verdict of the estimate by model, otherwise as in the recipe; models without an estimate are left out."""
        from sparsezo_gui.engine.planning import estimating

        verdicts = {}
        for name in models:
            table = recipe.model.model_copy(update={"id": name, "revision": "main", "trust_remote_code": False})
            with contextlib.suppress(UserError):
                verdicts[name] = (yield from estimating(recipe.model_copy(update={"model": table}))).verdict
        return verdicts

    def estimate(self, recipe: Recipe) -> Work[a.MemoryEstimate]:
        """Memory by formula."""
        from sparsezo_gui.engine.planning import estimating

        return estimating(recipe)

    def measure(self, recipe: Recipe) -> Work[a.MemoryEstimate]:
        """Memory by two real steps."""
        from sparsezo_gui.engine.planning import measure

        return measure(recipe)

    def ways(self, recipe: Recipe) -> Work[a.Plan]:
        """The ways to tune, by formula."""
        from sparsezo_gui.engine.plan import plan

        return plan(recipe, measure=False)

    def plan(self, recipe: Recipe) -> Work[a.Plan]:
        """The ways to tune, by measurement."""
        from sparsezo_gui.engine.plan import plan

        return plan(recipe, measure=True)

    def mask(self, recipe: Recipe) -> Work[a.MaskReport]:
        """Report of the mask."""
        from sparsezo_gui.engine.masks.report import find_mask
        from sparsezo_gui.engine.planning import concrete

        return (yield from find_mask((yield from concrete(recipe))[0]))

    def rates(self, recipe: Recipe) -> Work[a.RateReport]:
        """A suitable learning rate."""
        from sparsezo_gui.engine.rate_search import find_rate

        return find_rate(recipe)

    def noise(self, recipe: Recipe) -> Work[NoiseProbed]:
        """Differences of the loss and their rounding noise."""
        from sparsezo_gui.engine.noise_probe import probe_noise

        return probe_noise(recipe)

    def preview(self, recipe: Recipe, page: int) -> Work[a.DataPreview]:
        """One page of the data, and the text that the model will see."""
        from sparsezo_gui.engine.planning import preview_data

        return preview_data(recipe, page)

    def consent(self, code: a.ModelCode) -> None:
        """Saves that the user allows a model's code to run."""
        from sparsezo_gui.engine.pretrained.code import Code
        from sparsezo_gui.engine.pretrained.consent import give

        assert isinstance(code, Code)
        give(code)


class Worker(QObject):
    """Serves requests on its thread until ``closing`` is set."""

    def __init__(self, engine: EngineCalls) -> None:
        super().__init__()
        self.engine = engine
        self.inbox: SimpleQueue[Ticket | None] = SimpleQueue()  # None only wakes the worker
        self.outbox: deque[Message] = deque()
        self.closing = threading.Event()
        self.newest: dict[type[Request[Any]], int] = {}  # number of the newest request by kind
        self.cancelled: dict[type[Request[Any]], int] = {}  # by kind, the number up to which requests are cancelled
        self._deferred: deque[Ticket] = deque()

    @Slot()
    def serve(self) -> None:
        """Runs until the window closes."""
        _lower_priority()
        while not self.closing.is_set():
            ticket = self._deferred.popleft() if self._deferred else self.inbox.get()
            if ticket is not None:
                self._serve(ticket)

    def _serve(self, ticket: Ticket) -> None:
        if self._outdated(ticket):
            return
        try:
            answer = ticket.request.ask(self.engine)
            if isinstance(answer, Iterator):
                self._advance(ticket, answer)
            else:
                self._send(Answered(ticket, answer))
        except BaseException as error:  # shown in the window, with its traceback
            if not is_fault(error):
                raise
            self._send(Failed(ticket, explain(error, ticket.request.activity)))

    def _outdated(self, ticket: Ticket) -> bool:
        kind = type(ticket.request)
        return kind.only_last and ticket.number < self.newest.get(kind, 0)

    def _abandoned(self, ticket: Ticket) -> bool:
        cancelled = ticket.number <= self.cancelled.get(type(ticket.request), 0)
        return self.closing.is_set() or cancelled or self._outdated(ticket)

    def _advance(self, ticket: Ticket, events: Iterator[Event]) -> None:
        """Advances an iterator to its end or until it is cancelled; the answer is a generator's return value."""
        with contextlib.closing(events) if isinstance(events, Generator) else contextlib.nullcontext():
            while not self._abandoned(ticket):
                try:
                    event = next(events)
                except StopIteration as stop:
                    self._send(Answered(ticket, stop.value))
                    return
                self._send(Emitted(ticket, event))
                if isinstance(event, Started):
                    # From here on the loop reads its commands: stopping is a command, not a cancellation.
                    gc.freeze()
                # A pause with a reason ends automatically, so the loop is advanced again at once.
                waits = isinstance(event, Released) or (isinstance(event, Paused) and not event.reason)
                self._serve_between_events(ticket, waits)
        self._send(Cancelled(ticket))

    def _serve_between_events(self, advanced: Ticket, waits: bool) -> None:
        """Answers small requests between two events; during a pause, until the loop has a command."""
        run = advanced.request if waits and isinstance(advanced.request, RunRequest) else None
        while True:
            block = run is not None and run.commands.empty() and not self._abandoned(advanced)
            try:
                ticket = self.inbox.get(block)
            except Empty:
                return
            if ticket is None:
                continue
            if ticket.request.long:
                self._deferred.append(ticket)
            else:
                self._serve(ticket)

    def _send(self, message: Message) -> None:
        self.outbox.append(message)


def _lower_priority() -> None:
    """Gives the window's thread priority, in the system's scheduler and for the interpreter lock."""
    sys.setswitchinterval(0.001)
    if sys.platform.startswith("linux"):
        # On Linux niceness is per thread. Elsewhere the QThread's low priority does this.
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
