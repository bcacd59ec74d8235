"""Is a difference on the same test examples more than chance?"""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction
from typing import NamedTuple

LEVEL = 0.05  # of significance


class Paired(NamedTuple):
    """How many examples became ``better`` and ``worse``, and the probability ``p`` that so uneven a split, either way,
    is chance."""

    better: int
    worse: int
    p: float

    @property
    def verdict(self) -> str:
        """'above' or 'below', or '' if the difference may be chance."""
        if self.p >= LEVEL:
            return ""
        return "above" if self.better > self.worse else "below"


def compared(pairs: Iterable[tuple[float, float]]) -> Paired:
    """The exact sign test of (before, after) scores, higher being better; of scores 0 and 1, McNemar's exact test."""
    signs = [(after > before) - (after < before) for before, after in pairs]
    better, worse = signs.count(1), signs.count(-1)
    return Paired(better, worse, sign_test(better, worse))


def sign_test(better: int, worse: int) -> float:
    """Two-sided exact p that of ``better`` + ``worse`` fair coins at least max(better, worse) fall alike."""
    count = better + worse
    tail = sum(math.comb(count, each) for each in range(min(better, worse) + 1))
    return min(1.0, float(Fraction(2 * tail, 2**count)))
