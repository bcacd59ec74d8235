"""Slow work with progress: when to report it, and work in a thread."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Generator
from queue import Empty, SimpleQueue
from typing import TypeVar

from sparsezo_gui.recipe.events import Progress

PROGRESS_EVERY = 0.1  # seconds
T = TypeVar("T")


class Clock:
    """Says when to report progress: immediately, and then ten times a second."""

    def __init__(self) -> None:
        self._last = -math.inf

    def due(self) -> bool:
        """Whether progress is due."""
        now = time.monotonic()
        due = now - self._last > PROGRESS_EVERY
        self._last = now if due else self._last
        return due


def in_background(call: Callable[[], T], waiting: Progress | Callable[[], Progress]) -> Generator[Progress, None, T]:
    """The result of ``call``; yields ``waiting`` (or its result) while it runs in a thread. Closing the generator does
    not wait for the thread."""
    done: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()

    def work() -> None:
        try:
            done.put((call(), None))
        except BaseException as error:
            done.put((None, error))

    threading.Thread(target=work, daemon=True).start()
    while True:
        try:
            value, error = done.get(timeout=PROGRESS_EVERY)
        except Empty:
            yield waiting() if callable(waiting) else waiting
            continue
        if error is not None:
            raise error
        return value  # type: ignore[return-value]
