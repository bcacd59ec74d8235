"""Small open models to begin with, those that fit this computer first."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache

from sparsezo_gui import resources
from sparsezo_gui.answers.memory import TIGHT

BYTES, REST = 0.5625, 2  # of a 4-bit weight with its part of a scale, and of an embedding in 16 bits
WORK = 1.25 * 2**30  # bytes of a run besides its weights: the program itself, activations and tuned values, roughly
ORDER = ("fits", "tight", "too large")


@dataclass(frozen=True)
class Recommended:
    """A model of the Hub; ``weights`` are those that are kept in 4 bits, ``bytes`` those to download."""

    id: str
    family: str
    parameters: int
    weights: int
    bytes: int
    licence: str

    def verdict(self, available: int) -> str:
        """About whether tuning it fits: see `MemoryEstimate.verdict`, which is exact once its config is here."""
        needed = BYTES * self.weights + REST * (self.parameters - self.weights) + WORK
        return "too large" if needed > available else "fits" if needed <= TIGHT * available else "tight"


@cache
def recommended() -> tuple[Recommended, ...]:
    """All of them, the smallest first."""
    tables = tomllib.loads(resources.RECOMMENDED.read_text(encoding="utf-8"))["model"]
    return tuple(Recommended(**table) for table in tables)


def in_order(available: int) -> list[tuple[Recommended, str]]:
    """With their verdicts: those that fit first, and of these the largest."""
    found = [(model, model.verdict(available)) for model in recommended()]
    return sorted(found, key=lambda each: (ORDER.index(each[1]), -each[0].parameters))
