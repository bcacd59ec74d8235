"""Asks the engine: queues requests for the worker, and keeps the state of each kind of request for the pages."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from PySide6.QtCore import QObject, QThread, QTimer, Signal

from sparsezo_gui.gui.calls import EngineCalls, Request, RunRequest
from sparsezo_gui.gui.messages import Answered, Emitted, Failed, Message, Ticket
from sparsezo_gui.gui.problems import Problem
from sparsezo_gui.gui.requests import LoadEngine
from sparsezo_gui.gui.wording import in_form_words
from sparsezo_gui.gui.worker import Engine, Worker
from sparsezo_gui.recipe.events import Event, Notice, Progress

DRAIN_MS = 66
A = TypeVar("A")
log = logging.getLogger(__name__)


class Channel(QObject, Generic[A]):
    """The state of one kind of request: the last one, and what came of it."""

    changed = Signal()  # at most once whenever messages are received
    finished = Signal(object)  # the request: answered, failed or cancelled
    answered = Signal(object, object)  # the request and its answer
    emitted = Signal(object)  # a list of events, of a request that holds the engine as a run

    def __init__(self) -> None:
        super().__init__()
        self.number = 0
        self.request: Request[A] | None = None
        self.busy = False
        self.progress: Progress | None = None
        self.notices: list[str] = []
        self.problem: Problem | None = None  # until the next answer
        self.answer: A | None = None  # the last one
        self.answered_request: Request[A] | None = None  # which that one answers

    def forget(self) -> None:
        """Drops the last answer and problem."""
        self.answer = self.answered_request = self.problem = None
        self.notices = []


class Client(QObject):
    """Owns the worker's thread. Everything here runs in the window's thread."""

    blocker_changed = Signal()
    consent_wanted = Signal(object, object)  # a refused request, and the model's code that it needs

    def __init__(self, engine: EngineCalls | None = None) -> None:
        super().__init__()
        self._channels: dict[type[Request[Any]], Channel[Any]] = {}
        self._number = 0
        self._announced = self.blocker
        self._thread = QThread()
        self._thread.setObjectName("engine")
        self._worker = Worker(engine or Engine())
        self._worker.moveToThread(self._thread)
        self._thread.started.connect(self._worker.serve)
        self._drain = QTimer(self, interval=DRAIN_MS)
        self._drain.timeout.connect(self.drain)

    def open(self) -> None:
        """Starts the worker."""
        self._thread.start(QThread.Priority.LowPriority)
        self._drain.start()

    def close(self, patience: float = 2.0) -> bool:
        """Ends the worker; returns False if it is still in a call that cannot be interrupted."""
        self._drain.stop()
        self._worker.closing.set()
        self._worker.inbox.put(None)
        self._thread.quit()
        return not self._thread.isRunning() or self._thread.wait(int(patience * 1000))

    # Requests

    def of(self, kind: type[Request[A]]) -> Channel[A]:
        """The state of this kind of request."""
        if kind not in self._channels:
            self._channels[kind] = Channel()
        return self._channels[kind]

    def on(self, *kinds: type[Request[Any]], call: Callable[[], object]) -> None:
        """Calls ``call`` whenever the state of one of these kinds changes."""
        for kind in kinds:
            self.of(kind).changed.connect(call)

    def ask(self, request: Request[Any]) -> None:
        """Queues a request for the worker."""
        log.info("asked: %s", request.activity)
        channel = self.of(type(request))
        self._number += 1
        channel.number = self._worker.newest[type(request)] = self._number
        channel.request, channel.busy, channel.progress, channel.notices = request, True, None, []
        self._worker.inbox.put(Ticket(self._number, request))
        self._announce_blocker()

    def load(self) -> None:
        """Starts to load the engine."""
        self.ask(LoadEngine(self._worker.closing))
        self.of(LoadEngine).changed.emit()

    def cancel(self, kind: type[Request[Any]]) -> None:
        """Cancels long work of this kind at its next event, or drops it if it has not started."""
        self._worker.cancelled[kind] = self.of(kind).number
        self.wake()

    def take_back(self, kind: type[Request[Any]]) -> None:
        """Cancels a request that waits for the engine to load, so that nothing came of it yet."""
        self.cancel(kind)
        channel = self.of(kind)
        self._number += 1
        channel.number, channel.busy = self._number, False  # what the worker says about it is not heard
        channel.changed.emit()
        self._announce_blocker()

    def wake(self) -> None:
        """Lets a worker that waits look again, at a cancellation or at a run's commands."""
        self._worker.inbox.put(None)

    def problem_of(self, *kinds: type[Request[Any]]) -> Problem | None:
        """The first problem among these kinds."""
        return next((problem for kind in kinds if (problem := self.of(kind).problem)), None)

    def busy_with(self, *kinds: type[Request[Any]]) -> bool:
        """Whether a request of these kinds is in progress; without kinds, any request."""
        return any(self.of(kind).busy for kind in kinds or tuple(self._channels))

    # Whether the engine is free

    @property
    def engine_state(self) -> str:
        """'waiting', 'loading', 'ready' or 'failed'."""
        load = self.of(LoadEngine)
        return "waiting" if not load.request else "loading" if load.busy else "failed" if load.problem else "ready"

    @property
    def blocker(self) -> str:
        """Why no long request can start now, as a sentence; empty if one can."""
        if self.engine_state != "ready":
            return "The engine failed to load." if self.engine_state == "failed" else "The engine is still loading."
        channels = sorted(self._channels.values(), key=lambda each: each.number)
        requests = (each.request for each in channels if each.busy and each.request is not None)
        return next((f"The engine is busy {each.activity}." for each in requests if each.long), "")

    def _announce_blocker(self) -> None:
        if self.blocker != self._announced:
            self._announced = self.blocker
            self.blocker_changed.emit()

    # Results

    def drain(self) -> None:
        """Empties the worker's outbox."""
        outbox, changed = self._worker.outbox, dict[Channel[Any], None]()
        channel, events = None, list[Event]()  # of a run, passed on together
        while outbox:
            message = outbox.popleft()
            request = message.ticket.request
            if isinstance(message, Emitted) and isinstance(request, RunRequest):
                channel = self.of(type(request))
                events.append(message.event)
                continue
            if channel is not None and events:
                channel.emitted.emit(events)
                events = []
            if self._receive(message):
                changed[self.of(type(request))] = None
        if channel is not None and events:
            channel.emitted.emit(events)
        for each in changed:
            each.changed.emit()
        self._announce_blocker()

    def _receive(self, message: Message) -> bool:
        """Takes a message; returns whether to announce it."""
        request = message.ticket.request
        channel = self.of(type(request))
        if message.ticket.number != channel.number:
            return False
        if isinstance(message, Emitted):
            if isinstance(message.event, Progress):
                channel.progress = message.event
            elif isinstance(message.event, Notice):
                channel.notices.append(in_form_words(message.event.text))
            return request.shows_progress
        channel.busy, channel.progress = False, None
        channel.problem = message.problem if isinstance(message, Failed) else None
        log.info("%s: %s", "done" if channel.problem is None else channel.problem.message, request.activity)
        if isinstance(message, Answered):
            channel.answer, channel.answered_request = message.answer, request
            channel.answered.emit(request, message.answer)
        channel.finished.emit(request)
        if request.long and channel.problem is not None and channel.problem.code is not None:
            self.consent_wanted.emit(request, channel.problem.code)
        return True
