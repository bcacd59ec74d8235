"""Formats numbers for people to read."""

from __future__ import annotations

import time

from sparsezo_gui.recipe import metrics
from sparsezo_gui.recipe.events import Evaluation, Progress
from sparsezo_gui.sizes import duration as duration
from sparsezo_gui.sizes import latency as latency
from sparsezo_gui.sizes import size as size

PACE_KNOWN = 2.0  # seconds into a stage, from which on its remaining time is shown


def count(number: float) -> str:
    """Counts: 950, 12 300, 1.2 M, 7.1 B."""
    if number < 100_000:
        return f"{int(number):,}".replace(",", "\u2009")
    for unit, factor in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if number >= factor:
            return f"{number / factor:.3g} {unit}"
    return str(number)


def number(value: float) -> str:
    """Settings as users type them: 0.001, 1e-06, 2000."""
    if isinstance(value, int):
        return str(value)
    if value and (abs(value) < 1e-3 or abs(value) >= 1e6):
        mantissa, exponent = f"{value:.6e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:.10g}"


def metric(name: str, value: float) -> str:
    """Metrics: shares such as accuracy in percent, losses as plain numbers."""
    if metrics.metric(name).percent:
        return f"{100 * value:.1f} %"
    return f"{value:.4g}" if abs(value) < 1e4 else count(value)


def split(evaluation: Evaluation) -> str:
    """The examples of an evaluation: Validation, or First 64 validation examples."""
    if evaluation.partial:
        return f"First {count(evaluation.metrics['examples'])} {evaluation.split} examples"
    return field_label(evaluation.split)


def field_label(name: str) -> str:
    """A field's name as a label: learning_rate → Learning rate."""
    return "GPU" if name == "gpu" else name.replace("_", " ").replace("-", " ").capitalize()


def file_name(name: str) -> str:
    """``name`` as a safe file name: no path separators, and not hidden."""
    return "".join(sign if sign.isalnum() or sign in "-_. " else "-" for sign in name).strip(". ")


class ProgressText:
    """Progress as text, with the remaining time of its stage once that can be estimated."""

    def __init__(self) -> None:
        self._stage, self._first, self._began = "", 0, 0.0

    def of(self, progress: Progress) -> str:
        """For example 'Preparing examples: 1 200 of 2 500 examples, about 40 s left'."""
        now = time.monotonic()
        if progress.stage != self._stage or progress.done < self._first:
            self._stage, self._first, self._began = progress.stage, progress.done, now
        if not progress.total:
            return progress.stage
        done, took = progress.done - self._first, now - self._began
        left = took * (progress.total - progress.done) / done if done and took > PACE_KNOWN else 0
        text = f"{progress.stage}: {count(progress.done)} of {count(progress.total)} {progress.unit}".strip()
        return f"{text}, about {duration(left)} left" if left >= 1 else text
