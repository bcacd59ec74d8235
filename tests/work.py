"""How much work something is, not how long it takes: the same on a busy computer."""

from __future__ import annotations

import os
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def calls(work: Callable[[], Any]) -> int:
    """How many functions ``work`` calls in this thread, those in C too: it grows with lines, files and reads."""
    count = 0

    def note(_frame: Any, event: str, _what: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def peak(work: Callable[[], Any]) -> int:
    """Bytes of Python's memory that ``work`` takes at most at one time."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@contextmanager
def processor_seconds(at_most: float) -> Iterator[None]:
    """Fails where this process and those that it started and that have ended take more processor time. For what would
    take minutes where it went wrong; everything else is counted."""
    before = sum(os.times()[:4])
    yield
    spent = sum(os.times()[:4]) - before
    assert spent < at_most, f"{spent:.1f} seconds of processor time"
