"""Divergence detection from a run's losses and recorded values, and the step to roll back to.

The reference is the base model's loss on 32 batches of shuffled training examples: mean S and standard deviation D over
batches. So that a run starts without delay, one of them is measured after each of the first 32 steps, and the guard
acts from then on; only the first condition could be true earlier, from step 16. If losses are not finite, the missing
batches are measured at once. A run is in trouble if one of these is true; all use medians over steps, so that single
batches do not matter:

- far worse than at the start: the median of the last 16 losses is above 3·S, and above S + 4·D;
- worse for long: the median of the last 64 losses is above 1.25·S, and above S + D;
- progress is lost: the lowest median over 64 steps was below 0.7·S, and below S − 1.5·D, and that of the last 64 has
  gone three quarters of the way back to S;
- outliers, and no better than at the start: the median magnitude of the recorded values of the last 32 steps is above
  8 σ, where σ is 1.48 × the median of the 256 steps before (for a normal distribution that is its σ), and the median of
  the last 16 losses is above S;
- the loss was not finite in 10 steps in a row, after it had been.

Before any action, the base model is measured on 96 more batches, and the run is checked again. Of simulated runs of
3000 steps that learned nothing, up to 2 in 100 were suspected at first, and none of 400 after that; of those that
learned, none was, whether batch losses were normal or mostly small with a few large ones.

All of this is our own choice. A single outlier of the projected gradients is no reason: batches differ, and in a
healthy run of the bundled model some reach 6 σ, while the median of 32 stays below 2 σ. Too high a learning rate does
not always give a high loss: that model then gives the same answer to every prompt, for a loss of 1.8 instead of 1.4 at
the start.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from statistics import mean, stdev

QUICK, STEEP, LONG, BEFORE = 16, 32, 64, 256  # window lengths in steps
FAR, WORSE, LEARNED = (2.0, 4.0), (0.25, 1.0), (0.3, 1.5)  # multiples of S and D; the larger margin counts
LOST, SIGMAS = 0.75, 8.0
NORMAL = 1.4826  # σ of a normal distribution over the median of its sizes
BAD_STEPS = 10  # steps in a row without a finite loss
BATCHES, SURE = 32, 128  # batches for the base model's loss: at first, and in total after a suspicion


class Median:
    """The median of the last ``window`` numbers; NaN until there are enough."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._recent: deque[float] = deque()
        self._sorted: list[float] = []

    def add(self, number: float) -> float | None:
        """Adds a number, and returns the one that leaves the window."""
        self._recent.append(number)
        insort(self._sorted, number)
        if len(self._recent) <= self._window:
            return None
        oldest = self._recent.popleft()
        del self._sorted[bisect_left(self._sorted, oldest)]
        return oldest

    @property
    def value(self) -> float:
        """The median; of an even count, the mean of the middle two."""
        count = len(self._sorted)
        if count < self._window:
            return math.nan
        return (self._sorted[(count - 1) // 2] + self._sorted[count // 2]) / 2


class Guard:
    """Watches a run that starts at step ``start``; ``base`` are the base model's losses.

    ``best`` is the step to roll back to: where the losses were lowest over 64 steps, or the start if they never were
    below the base model's.
    """

    def __init__(self, base: Sequence[float], start: int) -> None:
        finite = [loss for loss in base if math.isfinite(loss)]
        self._usual = mean(finite) if finite else math.inf
        self._spread = stdev(finite) if len(finite) > 1 else 0.0
        self._quick, self._long = Median(QUICK), Median(LONG)
        self._sizes, self._sizes_before = Median(STEEP), Median(BEFORE)
        self._lowest = self._usual
        self._missing, self._seen = 0, False
        self.best = start

    def saw(self, step: int, loss: float, recorded: Sequence[float]) -> None:
        """Adds the measurements of ``step``."""
        if not math.isfinite(loss):
            self._missing += 1
            return
        self._missing, self._seen = 0, True
        self._quick.add(loss)
        self._long.add(loss)
        left = self._sizes.add(math.sqrt(sum(value * value for value in recorded) / max(len(recorded), 1)))
        if left is not None:
            self._sizes_before.add(left)
        if self._long.value < self._lowest:
            self._lowest, self.best = self._long.value, step

    @property
    def trouble(self) -> str:
        """What is wrong with the run, in a sentence; empty if nothing is."""
        quick, long, usual = self._quick.value, self._long.value, self._usual
        learned = usual - self._lowest
        began = f"the initial loss of {usual:.3g}"
        if quick > usual + self._margin(FAR):
            return f"The loss of the last {QUICK} steps ({quick:.3g}) is more than three times {began}."
        if long > usual + self._margin(WORSE):
            return f"The loss of the last {LONG} steps ({long:.3g}) is clearly above {began}."
        if learned > self._margin(LEARNED) and long > self._lowest + LOST * learned:
            return f"The loss was down to {self._lowest:.3g} and is back at {long:.3g}, near {began}."
        if quick > usual and self._sizes.value > SIGMAS * NORMAL * self._sizes_before.value > 0:
            return f"Gradients of the last {STEEP} steps are far larger than before, and the loss is above {began}."
        if self._missing >= BAD_STEPS and self._seen:
            return f"The loss was not finite for {BAD_STEPS} steps in a row."
        return ""

    def _margin(self, parts: tuple[float, float]) -> float:
        return max(parts[0] * abs(self._usual), parts[1] * self._spread)
