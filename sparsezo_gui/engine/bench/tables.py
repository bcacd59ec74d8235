"""The cells of `sparsezo_gui.engine.bench.quality` as tables: what came of each method, at the end and within so many
forward passes or minutes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from sparsezo_gui.engine.bench.contestants import UNTUNED, searched
from sparsezo_gui.engine.bench.judged import unpacked
from sparsezo_gui.engine.bench.paired import Paired, compared
from sparsezo_gui.engine.bench.quality import Quality
from sparsezo_gui.engine.bench.trials import Cell
from sparsezo_gui.recipe.metrics import metric

TARGET = "mezo"  # the method whose final accuracy the others should reach in fewer forward passes
COLUMNS = (
    "task",
    "method",
    "seeds",
    "metric",
    "base",
    "final",
    "against_base",
    "p",
    "best",
    "loss",
    "general_text",
    "passes",
    "minutes",
    "peak_memory_mib",
    "forwards_to_mezo",
    "seconds_to_mezo",
    "tuned",
    "rate",
    "search",
)
"""Those that people read; JSON has the others too."""
Row = dict[str, Any]


def rows(quality: Quality) -> list[Row]:
    """For each task and method: the task's metric, mean ± standard error over the seeds, in percent if it is a share,
    of the untuned model (``base``), at the end (``final``) and at the best step on validation data (``best``);
    ``against_base`` says whether the test examples of all seeds in pairs show a difference (see `paired`). ``minutes``
    are those of the steps and of finding mask and rate, and ``passes`` include those of finding the rate, and
    those of finding the mask on the run's own examples.
    ``general_text`` is by how many percent the perplexity on general text rose. ``forwards_to_mezo``: passes until the
    metric on validation data was what MeZO ended with on average, if all seeds got there. ``mib`` is the old name of
    ``peak_memory_mib``, in cells too."""
    return [
        _row(quality, task, name) for task in quality.tasks for name in quality.methods if quality.whole(task, name)
    ]


def _row(quality: Quality, task: str, name: str) -> Row:
    cells = quality.whole(task, name)
    named = measure_of(cells[0])
    pairs = paired(cells)
    memory = max(cell.get("peak_memory_mib", cell.get("mib")) or 0 for cell in cells) or ""
    seconds, general = _mean(cells, "seconds"), _mean(cells, "general_text")
    return {
        "task": task, "method": name, "seeds": len(cells), "metric": named,
        "base": spread(named, (cell["base_final"] for cell in cells if "base_final" in cell)),
        "final": spread(named, (cell["final"] for cell in cells)),
        "against_base": pairs.verdict if pairs else "", "better": pairs.better if pairs else "",
        "worse": pairs.worse if pairs else "", "p": f"{pairs.p:.2g}" if pairs else "",
        "best": spread(named, (cell["best"] for cell in cells if "best" in cell)),
        "loss": spread("loss", (cell["loss"] for cell in cells if "loss" in cell)),
        "passes": "" if name == UNTUNED else cells[0].get("passes", cells[0]["forwards"]),
        "minutes": "" if seconds is None else f"{(seconds + statistics.mean(map(_before, cells))) / 60:.1f}",
        **_reached(quality, cells, quality.whole(task, TARGET)),
        "tuned": cells[0]["tuned"], "rate": _range([cell["rate"] for cell in cells]),
        "search": _search(quality, name, cells),
        "seconds": "" if seconds is None else round(seconds), "mask_seconds": cells[0].get("mask_seconds", ""),
        "rate_seconds": cells[0].get("rate_seconds") or "",
        "general_text": "" if general is None else f"{100 * general:+.1f}",
        **dict.fromkeys(("peak_memory_mib", "mib"), memory),
    }  # fmt: skip


def measure_of(cell: Cell) -> str:
    """The name of the metric of ``cell``; the first ones had none but accuracy."""
    return str(cell.get("metric", "accuracy"))


def paired(cells: Iterable[Cell]) -> Paired | None:
    """The test of all seeds' test examples against the untuned model's; None if there are no scores."""
    pairs: list[tuple[float, float]] = []
    for cell in cells:
        if "base_scores" not in cell:
            return None
        sign = metric(cell["metric"]).sign  # of a metric of the loss, scores are losses
        before, after = unpacked(cell["base_scores"]), unpacked(cell["scores"])
        pairs += [(sign * one, sign * other) for one, other in zip(before, after, strict=True)]
    return compared(pairs)


def _reached(quality: Quality, cells: Sequence[Cell], target: Sequence[Cell]) -> Row:
    passes = seconds = None
    if target and cells[0]["curve"]:
        goal = statistics.mean(cell["curve"][-1][1] for cell in target)
        reached = [next((point[0] for point in cell["curve"] if point[1] >= goal), None) for cell in cells]
        counts = [count for count in reached if count is not None]
        if len(counts) == len(cells):
            passes = statistics.mean(counts)
            mean = _mean(cells, "seconds")
            seconds = None if mean is None else mean * passes / cells[0]["forwards"]
    return {
        "forwards_to_mezo": "" if passes is None else round(passes),
        "seconds_to_mezo": "" if seconds is None else round(seconds),
    }


def within(quality: Quality, passes: Sequence[int] = (), minutes: Sequence[float] = ()) -> list[Row]:
    """For each task and method, the metric on validation data at the last evaluation within so many forward passes, and
    within so many minutes of steps and searches; empty before the first. A rate that falls to zero would fall sooner
    in a shorter run, so this underrates methods with one."""
    found = []
    for task in quality.tasks:
        for name in quality.methods:
            cells = [cell for cell in quality.whole(task, name) if cell["curve"]]
            if cells:
                row = {"task": task, "method": name, "seeds": len(cells)}
                row |= {f"{limit} passes": _at(cells, 0, limit) for limit in passes}
                found.append(row | {f"{limit:g} min": _at(cells, 2, 60 * limit) for limit in minutes})
    return found


def _at(cells: Sequence[Cell], column: int, limit: float) -> str:
    """Mean over ``cells`` of the last value of their curves whose ``column`` is at most ``limit``."""
    values = []
    for cell in cells:
        before = _before(cell) if column else 0
        points = [point for point in cell["curve"] if len(point) > column and before + point[column] <= limit]
        if not points:
            return ""
        values.append(points[-1][1])
    return spread(measure_of(cells[0]), values)


def _range(rates: Sequence[float]) -> str:
    """The rate, or the lowest and the highest if each run found its own."""
    return " to ".join(dict.fromkeys((f"{min(rates):.1e}", f"{max(rates):.1e}")))


def _before(cell: Cell) -> float:
    """Seconds before the first step that finding mask and rate took."""
    return float(cell.get("mask_seconds") or 0) + float(cell.get("rate_seconds") or 0)


def _search(quality: Quality, name: str, cells: Sequence[Cell]) -> str:
    """How the rate was found."""
    if any(cell.get("rate_seconds") for cell in cells):
        return "short runs"
    return "whole runs" if searched(name) and quality.search else "no"


def _mean(cells: Sequence[Cell], key: str) -> float | None:
    values = [cell[key] for cell in cells if cell.get(key) is not None]
    return statistics.mean(values) if values else None


def spread(name: str, values: Iterable[float]) -> str:
    """Mean and standard error of a metric, in percent if it is a share; '' of nothing."""
    share = metric(name).percent
    scaled = [100 * value if share else value for value in values]
    if not scaled:
        return ""
    digits = 1 if share else 3
    error = f" ± {statistics.stdev(scaled) / math.sqrt(len(scaled)):.{digits}f}" if len(scaled) > 1 else ""
    return f"{statistics.mean(scaled):.{digits}f}{error}"
