"""Fair timing: contestants run in turns, and the median of each counts."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Generator, Mapping

import torch

from sparsezo_gui.recipe.events import Progress


def medians(
    contestants: Mapping[str, Callable[[], object]], device: torch.device, repeats: int, stage: str
) -> Generator[Progress, None, dict[str, float]]:
    """Median seconds of each contestant over ``repeats`` rounds, in which all run once, after a warm-up round."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for done in range(repeats + 1):
        yield Progress(stage, done, repeats + 1, "rounds")
        for name, work in contestants.items():
            started = time.perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times[name].append(time.perf_counter() - started)
    return {name: statistics.median(taken[1:]) for name, taken in times.items()}
