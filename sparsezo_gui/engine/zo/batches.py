"""The order of the examples: a pure function of (seed, step)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from sparsezo_gui.engine.zo import generator

_permutation = lru_cache(maxsize=4)(generator.permutation)


def batch_indices(seed: int, step: int, batch_size: int, count: int) -> list[int]:
    """Which of ``count`` examples make up ``step`` (from 1). Every epoch is a fresh permutation, without gaps."""
    first = (step - 1) * batch_size
    places = np.arange(first, first + batch_size)
    return [int(_permutation(seed, int(place // count), count)[place % count]) for place in places]
