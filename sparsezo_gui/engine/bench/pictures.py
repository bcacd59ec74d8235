"""Plots of the results of `sparsezo_gui.engine.bench.quality`, with matplotlib."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from sparsezo_gui.engine.bench.quality import Quality
from sparsezo_gui.engine.files import replacing
from sparsezo_gui.errors import UserError

Panel = dict[str, list[tuple[float, float, float]]]  # by rule: density, mean and standard error in percent


def densities(quality: Quality, task: str) -> Panel:
    """Final accuracy over the density, for methods that were measured at several."""
    found: Panel = {}
    for name in quality.methods:
        rule, _, density = name.partition("@")
        cells = quality.whole(task, name)
        if density and cells:
            hits = [100 * cell["final"] for cell in cells]
            error = statistics.stdev(hits) / len(hits) ** 0.5 if len(hits) > 1 else 0.0
            found.setdefault(rule, []).append((float(density), statistics.mean(hits), error))
    return {rule: sorted(points) for rule, points in found.items() if len(points) > 1}


def curves(quality: Quality, task: str) -> Panel:
    """Validation accuracy over forward passes: mean and standard error over the seeds."""
    found: Panel = {}
    for name in quality.methods:
        cells = quality.whole(task, name)
        if "@" not in name and cells and cells[0]["curve"]:
            found[name] = [_point(at) for at in zip(*(cell["curve"] for cell in cells), strict=False)]
    return found


def _point(at: tuple[Any, ...]) -> tuple[float, float, float]:
    hits = [100 * point[1] for point in at]
    return at[0][0], statistics.mean(hits), statistics.stdev(hits) / len(hits) ** 0.5 if len(hits) > 1 else 0.0


def check(path: Path) -> None:
    """Raises `UserError` if the file type is not supported."""
    from matplotlib.backend_bases import FigureCanvasBase

    if _kind(path) not in FigureCanvasBase.get_supported_filetypes():
        raise UserError(f"{path}: unsupported file type. Choose a name that ends in .png, .svg or .pdf for --picture.")


def _kind(path: Path) -> str:
    return path.suffix.lstrip(".").lower() or "png"


def draw(quality: Quality, path: Path) -> bool:
    """Writes a figure with panels for each task; returns whether there was anything to plot."""
    from matplotlib.figure import Figure

    panels = [
        (f"{task}: {title}", label, scale, found)
        for task in quality.tasks
        for title, label, scale, found in (
            ("accuracy over the share of tuned weights", "share of the eligible weights", "log",
             densities(quality, task)),
            ("accuracy over forward passes", "forward passes", "linear", curves(quality, task)),
        )
        if found
    ]  # fmt: skip
    if not panels:
        return False
    figure = Figure(figsize=(9.5, 4.8 * len(panels)), layout="constrained")
    for axes, (title, label, scale, found) in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels,
                                                  strict=True):  # fmt: skip
        for number, (name, points) in enumerate(found.items()):
            x, y, error = zip(*points, strict=True)
            dash = ("-", "--", "-.", ":")[number // 10 % 4]
            axes.errorbar(x, y, error, label=name, marker="osD^vP*X<>"[number % 10], ms=4, lw=1.2, ls=dash, capsize=2)
        axes.set(title=title, xlabel=label, ylabel="accuracy, %", xscale=scale)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0)
    with replacing(path) as temporary:
        figure.savefig(temporary, format=_kind(path), dpi=120)
    return True
