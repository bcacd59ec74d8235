"""What a run really holds, against the formula, the measured fit, plain inference and QLoRA.

Memory of a process cannot be given back for the next measurement, so each figure comes from a process of its own.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
import warnings
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import torch

from sparsezo_gui.engine import planning
from sparsezo_gui.engine.bench import references, shapes
from sparsezo_gui.engine.data import finish
from sparsezo_gui.engine.models import device as devices
from sparsezo_gui.engine.models.device import watched
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import Recipe, dump, loads, with_settings
from sparsezo_gui.recipe.events import Event, Notice, Progress, Started
from sparsezo_gui.recipe.toml import build

GRID = ((4, 64), (16, 64), (4, 256), (16, 256))  # examples and tokens of each
STEPS = 8
EXAMPLES = 64


def memory(
    folder: Path, names: Sequence[str], settings: Sequence[str] = (), grid: Sequence[tuple[int, int]] = GRID
) -> Generator[Event, None, list[dict[str, Any]]]:
    """MiB for each shape, batch size and length: formula, measured fit, and the peaks of a run and of the others."""
    found = []
    for name in names:
        place = yield from shapes.make(name, folder / name)
        for batch, tokens in grid:
            recipe = recipe_of(folder, place, batch, tokens, settings)
            row: dict[str, Any] = {"shape": name, "batch": batch, "tokens": tokens}
            for done, (column, work) in enumerate(WORK.items()):
                yield Progress(f"{name}, {batch} × {tokens} tokens: {column}", done, len(WORK), "processes")
                held = _apart(work, dump(recipe))
                row[column] = held and held // 2**20
            found.append(row)
            yield Notice(", ".join(f"{column} {value}" for column, value in row.items()))
    return found


def recipe_of(folder: Path, place: Path, batch: int, tokens: int, settings: Sequence[str]) -> Recipe:
    """A run on examples that are all cut to ``tokens`` tokens."""
    data = folder / f"data-{tokens}.jsonl"
    rows = [{"text": f"{number} " + "one two three four " * tokens, "label": "ab"[number % 2]}
            for number in range(EXAMPLES)]  # fmt: skip
    data.write_text("\n".join(map(json.dumps, rows)))
    return with_settings(build({
        "model": {"id": str(place)},
        "data": {"source": str(data), "task": "choice", "template": "{{ text }}:", "columns": {"answer": "label"},
                 "validation": 2, "test": 2, "max_tokens": tokens},
        "mask": {"rule": "random"},
        "loop": {"steps": STEPS, "batch_size": batch, "evaluate_every": 0},
        "run": {"folder": str(folder / "run")},
    }), settings)  # fmt: skip


def _apart(work: Callable[[Recipe], int | None], recipe: str) -> int | None:
    """Result of ``work`` in a fresh process. Raises `UserError` when the process dies."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(work, recipe, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        raise UserError(f"Measuring {work.__name__.strip('_')} failed; its process ended without a result.") from None
    finally:
        process.join()


def _serve(work: Callable[[Recipe], int | None], recipe: str, pipe: Any) -> None:
    warnings.simplefilter("ignore")
    pipe.send(work(loads(recipe)))


def _formula(recipe: Recipe) -> int:
    return planning.estimate(recipe).total


def _measured(recipe: Recipe) -> int:
    return finish(planning.measure(recipe)).total


def _run(recipe: Recipe) -> int:
    """Peak of the loop from its first step on; what finding the mask and loading took before is told elsewhere."""
    from sparsezo_gui.engine.training import train

    with watched(devices.choose(recipe.model.device)) as peak:
        for event in train(recipe):
            if isinstance(event, Started):
                peak.start()
    shutil.rmtree(recipe.run.folder)
    return peak.bytes


def _plain(recipe: Recipe) -> int:
    """Peak of one plain forward pass of as many examples, with the logits of the last token only."""
    device, model, rows = _loaded(recipe)
    with watched(device) as peak, torch.inference_mode():
        peak.start()
        model(rows, use_cache=False, logits_to_keep=1)
    return peak.bytes


def _qlora(recipe: Recipe) -> int | None:
    """Peak of two steps with adapters on all linear layers, without checkpointing; None where peft is missing."""
    device, model, rows = _loaded(recipe)
    try:
        examples = [references.example(number, row) for number, row in enumerate(rows.tolist())]
        step = references.QLoRA(model, examples, checkpointing=False).step
    except ImportError:
        return None
    with watched(device) as peak:
        peak.start()
        step()
        step()
    return peak.bytes


def _loaded(recipe: Recipe) -> tuple[torch.device, Any, torch.Tensor]:
    device = devices.choose(recipe.model.device)
    dtype = devices.compute_dtype(device, recipe.model)
    model = references.load_plain(Path(recipe.model.id), device, dtype)
    devices.give_back_freed()
    return device, model, torch.full((recipe.loop.batch_size, recipe.data.max_tokens), 5, device=device)


WORK = {"formula": _formula, "measured": _measured, "run": _run, "plain": _plain, "qlora": _qlora}
"""Columns of the table."""
