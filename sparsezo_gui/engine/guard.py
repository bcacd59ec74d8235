"""Whether a run diverges, told from its losses and scalars as they come, and from which step it could go on.

It is judged against what the base model loses on 32 batches of the training examples as they come shuffled: S, and D
from batch to batch (mean and standard deviation). A run is in trouble when one of these holds; all go by medians over
steps, so that single batches do not matter:

- far worse than it began: the median of the last 16 losses is above 3·S, and above S + 4·D;
- worse for long: the median of the last 64 losses is above 1.25·S, and above S + D;
- what it learned is lost: the lowest median over 64 steps was below 0.7·S, and below S − 1.5·D, and that of the last 64
  has come three quarters of the way back to S;
- outliers, and no better than it began: the median size of the scalars of the last 32 steps is beyond 8 σ, where σ is
  1.48 × the median of the 256 steps before (for a normal distribution that is its σ), and the median of the last 16
  losses is above S;
- the loss was not a finite number in 10 steps in a row, and was before.

Before anything is done about it, the base model is measured on 96 batches more, and the run judged again: of made-up
runs of 3000 steps that learned nothing, up to 2 in 100 were suspected at first, and none of 400 after that; of those
that learned none ever was, whether the losses of batches were spread normally, or most were small and a few large.

Own choices. A single outlier of the slopes is no reason: batches differ, and of a healthy run of the bundled model some
are at 6 σ, while the median of 32 stays below 2 σ there. Too high a rate does not always give a high loss: that model
then answers alike whatever it is asked, which costs it 1.8 instead of the 1.4 that it begins with.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from statistics import mean, stdev

QUICK, STEEP, LONG, BEFORE = 16, 32, 64, 256  # steps of the windows
FAR, WORSE, LEARNED = (2.0, 4.0), (0.25, 1.0), (0.3, 1.5)  # parts of S and D; the larger one counts
LOST, SIGMAS = 0.75, 8.0
NORMAL = 1.4826  # σ of a normal distribution over the median of its sizes
BAD_STEPS = 10  # steps in a row without a finite loss
BATCHES, SURE = 32, 128  # that the base model is measured on at first, and once there is a suspicion


class Median:
    """The median of the last ``window`` numbers; NaN until there are as many."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._recent: deque[float] = deque()
        self._sorted: list[float] = []

    def add(self, number: float) -> float | None:
        """Takes in a number, and gives the one that leaves the window for it."""
        self._recent.append(number)
        insort(self._sorted, number)
        if len(self._recent) <= self._window:
            return None
        oldest = self._recent.popleft()
        del self._sorted[bisect_left(self._sorted, oldest)]
        return oldest

    @property
    def value(self) -> float:
        """The median; of an even number of numbers the mean of the middle two."""
        count = len(self._sorted)
        if count < self._window:
            return math.nan
        return (self._sorted[(count - 1) // 2] + self._sorted[count // 2]) / 2


class Guard:
    """Watches a run that begins at step ``start``; ``base`` are the base model's losses.

    ``best`` is the step to go back to: where the losses were lowest over 64 steps, or the start where they never were
    lower than the base model's.
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

    def saw(self, step: int, loss: float, scalars: Sequence[float]) -> None:
        """Takes in what ``step`` measured."""
        if not math.isfinite(loss):
            self._missing += 1
            return
        self._missing, self._seen = 0, True
        self._quick.add(loss)
        self._long.add(loss)
        left = self._sizes.add(math.sqrt(sum(scalar * scalar for scalar in scalars) / max(len(scalars), 1)))
        if left is not None:
            self._sizes_before.add(left)
        if self._long.value < self._lowest:
            self._lowest, self.best = self._long.value, step

    @property
    def trouble(self) -> str:
        """What is wrong with the run, in a sentence; empty while it is well."""
        quick, long, usual = self._quick.value, self._long.value, self._usual
        learned = usual - self._lowest
        began = f"of {usual:.3g} that it began with"
        if quick > usual + self._margin(FAR):
            return f"The loss of the last {QUICK} steps ({quick:.3g}) is more than three times that {began}."
        if long > usual + self._margin(WORSE):
            return f"The loss of the last {LONG} steps ({long:.3g}) is clearly above that {began}."
        if learned > self._margin(LEARNED) and long > self._lowest + LOST * learned:
            return f"The loss was down to {self._lowest:.3g} and is back at {long:.3g}, near that {began}."
        if quick > usual and self._sizes.value > SIGMAS * NORMAL * self._sizes_before.value > 0:
            return f"The slopes of the last {STEEP} steps are far larger than before, and the loss above that {began}."
        if self._missing >= BAD_STEPS and self._seen:
            return f"The loss was not a finite number {BAD_STEPS} steps in a row."
        return ""

    def _margin(self, parts: tuple[float, float]) -> float:
        return max(parts[0] * abs(self._usual), parts[1] * self._spread)
