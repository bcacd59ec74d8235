"""Work of several stages as one fraction, with the time left: for the window, the terminal and their tests.

Every stage reports its own progress; how long the later ones take is not known. Each has a duration to expect, of a
135M model on two cores, and the finished stages show how much slower or faster this work is.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe.events import Progress
from sparsezo_gui.sizes import duration, size

RECENT = 5.0  # seconds whose speed is shown
KNOWN = 2.0  # seconds into a stage from which on its own pace is used, and the time left is shown


@dataclass(frozen=True)
class Stage:
    """A stage of ``seconds`` (0: unknown), which reports progress under names that begin with one of ``names``; ()
    stands for all other names. If it ``repeats``, it reports again and again from nothing to all, so that its progress
    does not show when it ends."""

    seconds: float
    names: tuple[str, ...] = ()
    repeats: bool = False


ONE = (Stage(0),)
"""Work whose stages are shown one by one."""
_MODEL = (Stage(0, ("Looking for the model", "Downloading the model")), Stage(5, ("Loading the model",)))
_DATA = Stage(2, ("Reading data", "Preparing examples"))
_FIRST = Stage(5, ("Evaluating on",))
_MASK = Stage(10)  # whose rule chooses the names under which it reports
_RATE = Stage(60, ("Trying a learning rate",), repeats=True)
RESUMING = (*_MODEL, Stage(2, ("Replaying the journal",)), _DATA, _FIRST)
"""From resuming a run to its next step."""


def starting(recipe: Recipe) -> tuple[Stage, ...]:
    """From the start of a run to its first step."""
    return (*_MODEL, _DATA, _MASK, *([_RATE] if recipe.update.find_rate else []), _FIRST)


@dataclass(frozen=True)
class Overall:
    """Stage ``number`` of ``count``, the ``fraction`` of all work, the seconds ``left``, and the ``speed`` of the last
    seconds, in units of the progress per second."""

    number: int
    count: int
    fraction: float
    left: float
    speed: float = field(default=0.0, compare=False)

    def words(self) -> str:
        """For example 'stage 2 of 6, about 40 s left'; empty if there is nothing to say."""
        stage = [f"stage {self.number} of {self.count}"] if self.count > 1 else []
        return ", ".join(stage + ([f"about {duration(self.left)} left"] if self.left >= 1 else []))


def amount(progress: Progress, speed: float) -> str:
    """Bytes as text, such as '1.2 GiB of 3.4 GiB, 5.6 MiB/s'."""
    done = f"{size(progress.done)} of {size(progress.total)}"
    return f"{done}, {size(speed)}/s" if speed else done


class Stages:
    """Follows the progress of ``stages``, each of which may be left out; ``clock`` counts seconds."""

    def __init__(self, stages: tuple[Stage, ...], clock: Callable[[], float] = time.monotonic) -> None:
        self._stages, self._clock = stages, clock
        self._began = self._entered = self._reported = clock()
        self._index, self._name, self._first, self._fraction = 0, "", 0, 0.0
        self._seen = deque[tuple[float, int]]()  # when how much was done, in the last seconds
        self._took = self._expected = 0.0  # seconds of the finished stages with a known duration

    def at(self, progress: Progress) -> Overall:
        """How far all of the work is. The fraction never falls, and the time left is never negative."""
        now = self._clock()
        self._enter(self._place(progress.stage), now)
        if progress.stage != self._name or progress.done < self._first:
            self._name, self._first, self._reported = progress.stage, progress.done, now
            self._seen.clear()
        left = self._left(progress, now) + self._pace * sum(each.seconds for each in self._stages[self._index + 1 :])
        elapsed, speed = now - self._began, self._speed(progress.done, now)
        if elapsed > 0:
            self._fraction = max(self._fraction, elapsed / (elapsed + left))
        return Overall(self._index + 1, len(self._stages), self._fraction, left if elapsed > KNOWN else 0.0, speed)

    def _speed(self, done: int, now: float) -> float:
        self._seen.append((now, done))
        while len(self._seen) > 2 and self._seen[1][0] <= now - RECENT:
            self._seen.popleft()
        began, had = self._seen[0]
        return (done - had) / (now - began) if now - began >= 1 else 0.0

    def _place(self, name: str) -> int:
        """The stage that reports under ``name``; a stage that is over does not come back."""
        named = (index for index, each in enumerate(self._stages) if name.startswith(each.names))
        other = next((index for index, each in enumerate(self._stages) if not each.names), self._index)
        return max(self._index, next(named, other))

    def _enter(self, index: int, now: float) -> None:
        if index > self._index:
            if expected := self._stages[self._index].seconds:
                self._took, self._expected = self._took + now - self._entered, self._expected + expected
            self._index, self._entered = index, now

    @property
    def _pace(self) -> float:
        """How many times longer than expected the finished stages took."""
        return self._took / self._expected if self._took else 1.0

    def _left(self, progress: Progress, now: float) -> float:
        """Seconds left of the current stage: by its pace, or else as expected, ever less but never nothing."""
        done, spent = progress.done - self._first, now - self._reported
        stage = self._stages[self._index]
        if progress.total and done > 0 and spent > KNOWN and not stage.repeats:
            return spent * max(progress.total - progress.done, 0) / done
        expected = self._pace * stage.seconds
        return expected**2 / (expected + now - self._entered) if expected else 0.0
