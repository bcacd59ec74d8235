"""Work as a generator that yields events and returns its result: how to run it, and how to change its events."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from typing import TypeVar

Made = TypeVar("Made")
Given = TypeVar("Given")
T = TypeVar("T")


def finish(work: Generator[Given, None, T], show: Callable[[Given], object] | None = None) -> T:
    """Runs ``work`` to its end and returns its result; ``show`` gets each event."""
    while True:
        try:
            event = next(work)
        except StopIteration as end:
            result: T = end.value
            return result
        if show is not None:
            show(event)


def changing(work: Generator[Given, None, T], change: Callable[[Given], Made | None]) -> Generator[Made, None, T]:
    """``work`` with what ``change`` makes of each event; None leaves it out."""
    with closing(work):
        while True:
            try:
                event = next(work)
            except StopIteration as end:
                result: T = end.value
                return result
            if (made := change(event)) is not None:
                yield made
