"""How long one input may take and how much memory: a hang or a huge allocation is a failure, not a wait."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

try:
    import resource
except ImportError:  # Windows: inputs are read there all the same, without limits
    resource = None

SECONDS, MEMORY = 5, 2 * 2**30


class Hang(BaseException):
    """Raised by the timer; no exception that a handler in the program could take for its own."""


@contextmanager
def limited_memory(size: int = MEMORY) -> Iterator[None]:
    """Lets this process map at most ``size`` bytes more than now (on Linux); beyond, an allocation fails."""
    if sys.platform != "linux":
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextmanager
def limited_time(seconds: float = SECONDS) -> Iterator[None]:
    """Raises `Hang` inside of a block that takes more processor time, or waits for far longer."""
    if resource is None:
        yield
        return

    def ring(_signal: int, _frame: object) -> None:
        raise Hang(f"longer than {seconds} s")

    timers = ((signal.ITIMER_PROF, signal.SIGPROF, seconds), (signal.ITIMER_REAL, signal.SIGALRM, 20 * seconds))
    before = [signal.signal(number, ring) for _, number, _ in timers]
    for timer, _, limit in timers:
        signal.setitimer(timer, limit)
    try:
        yield
    finally:
        for (timer, number, _), handler in zip(timers, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)
