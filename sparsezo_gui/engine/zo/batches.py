"""The order of the examples: a pure function of (seed, step)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from sparsezo_gui.engine.zo import generator

if TYPE_CHECKING:
    from sparsezo_gui.recipe.recipe import LoopTable

_Example = TypeVar("_Example")

_permutation = lru_cache(maxsize=4)(generator.permutation)


def batch_indices(seed: int, step: int, batch_size: int, count: int) -> list[int]:
    """Which of ``count`` examples are in ``step`` (from 1). Every epoch is a new permutation, without gaps."""
    first = (step - 1) * batch_size
    places = np.arange(first, first + batch_size)
    return [int(_permutation(seed, int(place // count), count)[place % count]) for place in places]


def shuffled_batch(loop: LoopTable, step: int, examples: Sequence[_Example]) -> list[_Example]:
    """The examples of ``step`` (from 1), in shuffled order."""
    return [examples[i] for i in batch_indices(loop.seed, step, loop.batch_size, len(examples))]
