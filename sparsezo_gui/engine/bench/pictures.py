"""Plots of the results of `sparsezo_gui.engine.bench.quality`, with matplotlib."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from sparsezo_gui.engine.bench.contestants import parsed
from sparsezo_gui.engine.bench.quality import Quality
from sparsezo_gui.engine.bench.tables import measure_of
from sparsezo_gui.engine.bench.trials import Cell
from sparsezo_gui.engine.files import replacing
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.metrics import metric

Panel = dict[str, list[tuple[float, float, float]]]  # by rule: density or passes, mean and standard error


def densities(quality: Quality, task: str) -> Panel:
    """The final metric over the density, for methods that were measured at several."""
    found: Panel = {}
    for name in quality.methods:
        method, cells = parsed(name), quality.whole(task, name)
        if method.density and cells:
            mean, error = _mean(cells[0], [cell["final"] for cell in cells])
            found.setdefault(method.masked, []).append((float(method.density), mean, error))
    return {rule: sorted(points) for rule, points in found.items() if len(points) > 1}


def curves(quality: Quality, task: str) -> Panel:
    """The metric on validation data over forward passes: mean and standard error over the seeds."""
    found: Panel = {}
    for name in quality.methods:
        cells = quality.whole(task, name)
        if "@" not in name and cells and cells[0]["curve"]:
            columns = zip(*(cell["curve"] for cell in cells), strict=False)
            found[name] = [(at[0][0], *_mean(cells[0], [point[1] for point in at])) for at in columns]
    return found


def _mean(cell: Cell, values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard error of values of the metric of ``cell``, in percent if it is a share."""
    scale = 100 if metric(measure_of(cell)).percent else 1
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return scale * statistics.mean(values), scale * error


def _unit(quality: Quality, task: str) -> str:
    cell = next(cell for name in quality.methods for cell in quality.whole(task, name))
    found = metric(measure_of(cell))
    return f"{found.title}, %" if found.percent else found.title


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
        (f"{task}: {title}", label, scale, _unit(quality, task), found)
        for task in quality.tasks
        for title, label, scale, found in (
            ("over the share of tuned weights", "share of the eligible weights", "log",
             densities(quality, task)),
            ("over forward passes", "forward passes", "linear", curves(quality, task)),
        )
        if found
    ]  # fmt: skip
    if not panels:
        return False
    figure = Figure(figsize=(9.5, 4.8 * len(panels)), layout="constrained")
    for axes, (title, label, scale, unit, found) in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels,
                                                  strict=True):  # fmt: skip
        for number, (name, points) in enumerate(found.items()):
            x, y, error = zip(*points, strict=True)
            dash = ("-", "--", "-.", ":")[number // 10 % 4]
            axes.errorbar(x, y, error, label=name, marker="osD^vP*X<>"[number % 10], ms=4, lw=1.2, ls=dash, capsize=2)
        axes.set(title=title, xlabel=label, ylabel=unit, xscale=scale)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0)
    with replacing(path) as temporary:
        figure.savefig(temporary, format=_kind(path), dpi=120)
    return True
