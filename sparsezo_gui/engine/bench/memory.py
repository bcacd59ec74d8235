"""Memory of real runs, compared with the formula, the measured fit, plain inference and QLoRA.

A process cannot fully release memory for the next measurement, so each figure comes from a separate process.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import shutil
import warnings
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from transformers import PreTrainedModel

from sparsezo_gui.engine import device as devices
from sparsezo_gui.engine import planning
from sparsezo_gui.engine.bench import references, shapes
from sparsezo_gui.engine.data import finish
from sparsezo_gui.engine.device import watched
from sparsezo_gui.engine.files import write_text
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import Recipe, dump, loads, with_settings
from sparsezo_gui.recipe.events import Event, Notice, Progress, Started
from sparsezo_gui.recipe.tables import build

Columns = dict[str, int | None]
GRID = tuple(itertools.product((1, 8), (128, 1024), ("answers", "whole")))
"""Examples, tokens per example, and what is trained: only the answers, or the whole text."""
STEPS = 2
EXAMPLES = 32
VALIDATION = 4


def memory(
    folder: Path,
    names: Sequence[str],
    settings: Sequence[str] = (),
    grid: Sequence[tuple[int, int, str]] = GRID,
    columns: Sequence[str] = (),
    kept: Path | None = None,
) -> Generator[Event, None, list[dict[str, Any]]]:
    """MiB for each shape, batch size, length and scope: formula, measured fit, and the peaks of a run (before and after
    its first step starts) and of the others. ``columns`` are keys of `WORK`; none means all. Cells with a file in
    the folder ``kept`` are not measured again.
    """
    found, columns = [], columns or tuple(WORK)
    for name in names:
        place = yield from shapes.make(name, folder / name)
        for batch, tokens, scope in grid:
            recipe = recipe_of(folder, place, batch, tokens, scope, settings)
            row: dict[str, Any] = {"shape": name, "batch": batch, "tokens": tokens, "trained": scope}
            for done, column in enumerate(columns):
                yield Progress(f"{name}, {batch} × {tokens} tokens, {scope}: {column}", done, len(columns), "processes")
                file = kept / f"{name}-{batch}-{tokens}-{scope}-{column}.json" if kept else folder / "cell.json"
                if not (kept and file.exists()):
                    write_text(file, json.dumps(_apart(WORK[column], dump(recipe))))
                row |= {key: count and count // 2**20 for key, count in json.loads(file.read_text()).items()}
            found.append(row)
            yield Notice(", ".join(f"{column} {value}" for column, value in row.items()))
    return found


def recipe_of(folder: Path, place: Path, batch: int, tokens: int, scope: str, settings: Sequence[str]) -> Recipe:
    """A run on examples that are all truncated to ``tokens`` tokens; ``scope`` is 'answers' or 'whole'."""
    data = folder / f"data-{tokens}.jsonl"
    rows = [{"text": f"{number} " + "one two three four " * tokens, "label": "ab"[number % 2]}
            for number in range(EXAMPLES)]  # fmt: skip
    data.write_text("\n".join(map(json.dumps, rows)))
    task = {"task": "text"} if scope == "whole" else {
        "task": "choice", "template": "{{ text }}:", "columns": {"answer": "label"},
    }  # fmt: skip
    return with_settings(build({
        "model": {"id": str(place)},
        "data": {"source": str(data), "validation": VALIDATION, "test": 2, "max_tokens": tokens, **task},
        "mask": {"rule": "random"},
        "loop": {"steps": STEPS, "batch_size": batch, "evaluate_every": STEPS},
        "run": {"folder": str(folder / "run")},
    }), settings)  # fmt: skip


def _apart(work: Callable[[Recipe], Columns], recipe: str) -> Columns:
    """Result of ``work`` in a fresh process. Raises `UserError` if the process dies."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(work, recipe, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        return cast("Columns", ours.recv())
    except EOFError:
        raise UserError(
            f"Measuring {work.__name__.strip('_')} failed: its process ended without a result, probably for lack of "
            "memory. Close other programs, or choose a smaller --shape."
        ) from None
    finally:
        process.join()


def _serve(work: Callable[[Recipe], Columns], recipe: str, pipe: Any) -> None:
    warnings.simplefilter("ignore")
    pipe.send(work(loads(recipe)))


def _formula(recipe: Recipe) -> Columns:
    return {"formula": planning.estimate(recipe).total}


def _measured(recipe: Recipe) -> Columns:
    return {"measured": finish(planning.measure(recipe)).total}


def _run(recipe: Recipe) -> Columns:
    """Peaks before the first step, with loading and mask search, and from then on, with evaluations."""
    from sparsezo_gui.engine.training import train

    shutil.rmtree(recipe.run.folder, ignore_errors=True)  # left by a killed measurement
    device, events = devices.choose(recipe.model.device), train(recipe)
    with watched(device) as start:
        start.start()
        for event in events:
            if isinstance(event, Started):
                break
    with watched(device) as run:
        run.start()
        for _ in events:
            pass
    shutil.rmtree(recipe.run.folder)
    return {"start": start.bytes, "run": run.bytes}


def _plain(recipe: Recipe) -> Columns:
    """Peak of one plain forward pass on as many examples, with logits of the last token only."""
    device, model, rows = _loaded(recipe)
    with watched(device) as peak, torch.inference_mode():
        peak.start()
        model(rows, use_cache=False, logits_to_keep=1)
    return {"plain": peak.bytes}


def _qlora(recipe: Recipe) -> Columns:
    """Peak of two steps with adapters on all linear layers and checkpointing; None if peft is not installed."""
    device, model, rows = _loaded(recipe)
    try:
        examples = [references.example(number, row) for number, row in enumerate(rows.tolist())]
        step = references.QLoRA(model, examples, checkpointing=True).step
    except ImportError:
        return {"qlora": None}
    with watched(device) as peak:
        peak.start()
        step()
        step()
    return {"qlora": peak.bytes}


def _loaded(recipe: Recipe) -> tuple[torch.device, PreTrainedModel, torch.Tensor]:
    device = devices.choose(recipe.model.device)
    dtype = devices.compute_dtype(device, recipe.model)
    model = references.load_plain(Path(recipe.model.id), device, dtype)
    devices.give_back_freed()
    return device, model, torch.full((recipe.loop.batch_size, recipe.data.max_tokens), 5, device=device)


WORK = {"formula": _formula, "measured": _measured, "run": _run, "plain": _plain, "qlora": _qlora}
"""What each process measures, by column of the table."""
