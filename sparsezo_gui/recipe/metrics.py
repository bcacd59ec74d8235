"""The metrics of evaluations: how each is measured, compared and shown. Adding one is a line here and its function.

A task names the metric that decides which step is best (`sparsezo_gui.engine.data.tasks`), and its evaluations carry
that name. The functions are named by strings, so reading the table imports nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sparsezo_gui.lazy import load

_FUNCTIONS = "sparsezo_gui.engine.metrics"


@dataclass(frozen=True)
class Metric:
    """A metric. ``sign`` is 1 if higher is better, -1 if lower is, 0 if neither; ``percent``: it is a share, 0 … 1;
    ``decides``: it may decide which step is best.

    The others name the function that measures it, if evaluations do: from the predicted and the correct ``choices``,
    from an answer that was ``written`` and its references (then averaged), or from the mean ``loss``.
    """

    title: str
    sign: int
    percent: bool = False
    decides: bool = False
    choices: str = ""
    written: str = ""
    loss: str = ""


METRICS = {
    "accuracy": Metric("Accuracy", 1, percent=True, decides=True, choices=f"{_FUNCTIONS}:accuracy"),
    "preferred": Metric("Preferred", 1, percent=True),
    "margin": Metric("Margin", 1),
    "exact_match": Metric("Exact match", 1, percent=True, decides=True, written=f"{_FUNCTIONS}:exact_match"),
    "f1": Metric(
        "F1", 1, percent=True, decides=True, choices=f"{_FUNCTIONS}:macro_f1", written=f"{_FUNCTIONS}:f1"
    ),
    "loss": Metric("Loss", -1),
    "perplexity": Metric("Perplexity", -1, decides=True, loss=f"{_FUNCTIONS}:perplexity"),
}  # fmt: skip


def metric(name: str) -> Metric:
    """The metric of that name; an unknown one is shown as it is, without a verdict."""
    return METRICS.get(name) or Metric(name.replace("_", " ").capitalize(), 0)


def interval(share: float, examples: float) -> tuple[float, float]:
    """The 95 % confidence interval of a ``share`` (0 … 1) of so many ``examples``, after Wilson, "Probable inference,
    the law of succession, and statistical inference", JASA 22 (1927): it stays inside 0 … 1."""
    z = 1.959964
    spread = z * math.sqrt(share * (1 - share) / examples + (z / examples) ** 2 / 4)
    middle, whole = share + z * z / (2 * examples), 1 + z * z / examples
    return max((middle - spread) / whole, 0.0), min((middle + spread) / whole, 1.0)


def functions(of: str) -> dict[str, Callable[..., Any]]:
    """The functions of the metrics that are measured ``of`` 'choices', 'written' or 'loss', by name."""
    return {name: load(path) for name, each in METRICS.items() if (path := getattr(each, of))}


def deciding(found: Mapping[str, float], named: str = "") -> str:
    """The metric among those ``found`` that decides which step is best: the one ``named``, or else the first of the
    table (so it was before evaluations named one); '' if the loss alone decides."""
    if named in found and metric(named).decides:
        return named
    return next((name for name, each in METRICS.items() if each.decides and name in found), "")
