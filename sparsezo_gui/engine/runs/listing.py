"""The list of runs. How much it reads is limited, for any content of the folders."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from sparsezo_gui.answers import RunSummary
from sparsezo_gui.engine.drafts import sweep
from sparsezo_gui.engine.files import open_plain
from sparsezo_gui.engine.locks import is_held
from sparsezo_gui.engine.runs import journal
from sparsezo_gui.engine.runs.folder import BRANCHES, DEEPEST, EVENTS, open_resolved, runs_home
from sparsezo_gui.engine.runs.journal import Position
from sparsezo_gui.engine.runs.labels import labels_of
from sparsezo_gui.engine.runs.preparing import LOCK, RECIPE, is_start
from sparsezo_gui.engine.runs.start import sweep_starts
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import Recipe, load, outcome
from sparsezo_gui.recipe.events import Evaluation, Event
from sparsezo_gui.recipe.metrics import deciding

EVENT_BYTES, LINE_BYTES, MOST_EVENTS = 1 << 25, 1 << 12, 10_000  # limits for reading the end of events.jsonl
POINTS = 60  # of a curve in the list
_NEEDED = re.compile(rb'\s*\{\s*"event"\s*:\s*"(evaluation|returned|finished|spent)"')


def list_runs(also: Path | None = None) -> list[RunSummary]:
    """All runs, newest first, each followed by its branches; also the tree of ``also``, which may be anywhere."""
    home = runs_home().resolve()
    sweep(home)
    sweep_starts(home)
    roots = dict.fromkeys(path.resolve() if path.is_symlink() else path for path in _run_folders(home, links=True))
    if also is not None and is_run(also):
        also = also.resolve()
        while also.parent.name == BRANCHES and (also.parent.parent / "run.json").is_file():
            also = also.parent.parent
        roots.setdefault(also)
    found = sorted(map(_summary, roots), key=lambda run: run.created, reverse=True)
    return [each for run in found for each in _with_branches(run)]


def _run_folders(folder: Path, links: bool = False) -> list[Path]:
    """The run folders in ``folder``, with ``links`` also symbolic links."""
    with suppress(OSError), os.scandir(folder) as entries:
        return [
            Path(entry.path) for entry in entries
            if (links or not entry.is_symlink()) and is_run(Path(entry.path))
        ]  # fmt: skip
    return []


def is_run(path: Path) -> bool:
    """Whether the folder is a run, if only one that is still prepared."""
    return (path / "run.json").is_file() or is_start(path)


def _with_branches(run: RunSummary) -> Iterator[RunSummary]:
    """A run and, recursively, its branches."""
    left = [(run, 1)]
    while left:
        run, depth = left.pop()
        yield run
        folder = Path(run.path, BRANCHES)
        if depth < DEEPEST and folder.is_dir() and not folder.is_symlink():
            sweep(folder)
            sweep_starts(folder)
            branches = map(_summary, _run_folders(folder))
            in_order = sorted(branches, key=lambda each: (each.start, each.created), reverse=True)
            left += [(branch, depth + 1) for branch in in_order]


def summary(path: Path) -> RunSummary:
    """The list entry of a run; a damaged one is listed as such."""
    return _summary(path.resolve())


def _summary(path: Path) -> RunSummary:
    parent = str(path.parent.parent) if path.parent.name == BRANCHES else ""
    if is_start(path):
        return _summary_of_start(path)
    try:
        run = open_resolved(path)
        recipe, recorded = run.recipe, recent_events(path / EVENTS)
        position = journal.position(run.journal) if run.journal.exists() else Position(run.start, 0)
    except (UserError, OSError) as error:
        return RunSummary(str(path), path.name, "damaged", 0, 0, "", "", {}, parent, problem=str(error))
    events, step = outcome.on_lineage(recorded), position.step
    spent, best = outcome.spent(recorded, position.count), outcome.best(events)
    judged, labels = outcome.evaluations(events), labels_of(path)
    metric = deciding(judged[-1].metrics, judged[-1].metric) if judged else ""
    ended = step >= recipe.loop.steps or outcome.ended_early(events, step)
    state = "running" if is_held(path / LOCK) else "done" if ended else "stopped"
    return RunSummary(
        str(path), labels.name or run.own_name, state, step,
        recipe.loop.steps, run.facts.created, recipe.model.id, outcome.last_metrics(events),
        parent if run.facts.branched else "", run.start, best.step if best else None, run.notes,
        epsilon=spent.epsilon if spent else None, delta=spent.delta if spent else None,
        space=recipe.mask.space, tags=labels.tags, data=recipe.data.source, method=_method(recipe),
        metric=metric, curve=_curve(judged, metric), tuned=run.facts.tuned, parameters=run.facts.parameters,
    )  # fmt: skip


def _summary_of_start(path: Path) -> RunSummary:
    """The entry of a run that is being prepared, or whose preparation was interrupted."""
    state = "preparing" if is_held(path / LOCK) else "interrupted"
    try:
        recipe = load(path / RECIPE)
        created = datetime.fromtimestamp((path / RECIPE).stat().st_mtime, UTC).isoformat(timespec="seconds")
    except (UserError, OSError) as error:
        return RunSummary(str(path), path.name, "damaged", 0, 0, "", "", {}, problem=str(error))
    return RunSummary(
        str(path), recipe.run.name, state, 0, recipe.loop.steps, created, recipe.model.id, {}, space=recipe.mask.space,
        data=recipe.data.source, method=_method(recipe),
    )  # fmt: skip


def _method(recipe: Recipe) -> str:
    return f"{type(recipe.mask).title} · {type(recipe.estimator).title}"


def _curve(judged: list[Evaluation], metric: str) -> tuple[float, ...]:
    """The metric (the loss if none decides) on the validation examples, thinned."""
    found = [event.metrics[metric or "loss"] for event in judged
             if event.split == "validation" and (metric or "loss") in event.metrics]  # fmt: skip
    return tuple(found[:: max(len(found) // POINTS, 1)])


def recent_events(path: Path) -> list[Event]:
    """The most recent events that a summary needs: enough for thousands of evaluations."""
    lines: deque[bytes] = deque(maxlen=MOST_EVENTS)
    with suppress(FileNotFoundError), open_plain(path) as file:
        behind = max(os.fstat(file.fileno()).st_size - EVENT_BYTES, 0)
        file.seek(behind)
        starts = behind == 0  # whether the next piece starts a line
        for piece in iter(partial(file.readline, LINE_BYTES), b""):
            if starts and _NEEDED.match(piece):
                lines.append(piece)
            starts = piece.endswith(b"\n")
    return [event for line in lines if (event := outcome.event_of(line.decode("utf-8", "replace"))) is not None]
