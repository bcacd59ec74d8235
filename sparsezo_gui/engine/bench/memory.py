"""Memory of real runs, compared with the formula, the measured fit, exact gradients, plain inference and QLoRA, and the
seconds that each takes for a step.

A process cannot fully release memory for the next measurement, so each figure comes from a separate process.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import shutil
import time
import warnings
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from transformers import PreTrainedModel

from sparsezo_gui.engine import device as devices
from sparsezo_gui.engine import planning
from sparsezo_gui.engine.bench import references, shapes
from sparsezo_gui.engine.device import watched
from sparsezo_gui.engine.files import write_text
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import Recipe, dump, loads, with_settings
from sparsezo_gui.recipe.events import Event, Notice, Progress, Started, Step
from sparsezo_gui.recipe.tables import build
from sparsezo_gui.work import finish

Columns = dict[str, int | float | None]
"""Bytes (int) or seconds (float) by column of the table; None where something is not installed."""
Cells = Sequence[tuple[int, int, str]]
"""Examples, tokens per example, and what is trained: only the answers, or the whole text."""
EXACT = ("estimator.rule=first-order",)
STEPS = 2
VALIDATION = TEST = 2


def grid(
    batches: Sequence[int] | None = None, tokens: Sequence[int] | None = None, trained: Sequence[str] | None = None
) -> Cells:
    """The usual cells, or those of the given numbers."""
    return tuple(itertools.product(batches or (1, 8), tokens or (128, 1024), trained or ("answers", "whole")))


USUAL = grid()


def memory(
    folder: Path,
    names: Sequence[str],
    settings: Sequence[str] = (),
    cells: Cells = USUAL,
    columns: Sequence[str] = (),
    kept: Path | None = None,
) -> Generator[Event, None, list[dict[str, Any]]]:
    """MiB for each shape, batch size, length and scope: formula, measured fit, and the peaks of a run (before and after
    its first step starts) and of the others; and seconds a step. ``names`` are shapes, or folders of models.
    ``columns`` are keys of `WORK`; none means all. Cells with a file in the folder ``kept`` are not measured again.
    """
    found, columns = [], columns or tuple(WORK)
    for name in names:
        if Path(name).is_dir():
            place = Path(name).resolve()
        else:
            place = yield from shapes.make(name, folder / name, weights={*columns} - FORMULAS != set())
        name = place.name
        for batch, tokens, scope in cells:
            recipe = recipe_of(folder, place, batch, tokens, scope, settings)
            row: dict[str, Any] = {"shape": name, "batch": batch, "tokens": tokens, "trained": scope}
            for done, column in enumerate(columns):
                yield Progress(f"{name}, {batch} × {tokens} tokens, {scope}: {column}", done, len(columns), "processes")
                file = kept / f"{name}-{batch}-{tokens}-{scope}-{column}.json" if kept else folder / "cell.json"
                if not (kept and file.exists()):
                    write_text(file, json.dumps(_apart(WORK[column], dump(recipe))))
                row |= {key: told(count) for key, count in json.loads(file.read_text()).items()}
            found.append(row)
            yield Notice(", ".join(f"{column} {value}" for column, value in row.items()))
    return found


def told(count: float | None) -> float | None:
    """Bytes in MiB, and seconds as they are."""
    return count // 2**20 if isinstance(count, int) else count


def recipe_of(folder: Path, place: Path, batch: int, tokens: int, scope: str, settings: Sequence[str]) -> Recipe:
    """A run on examples that are all truncated to ``tokens`` tokens; ``scope`` is 'answers' or 'whole'."""
    data = folder / f"data-{tokens}.jsonl"
    rows = [{"text": f"{number} " + "one two three four " * tokens, "label": "ab"[number % 2]}
            for number in range(batch + VALIDATION + TEST)]  # fmt: skip
    data.write_text("\n".join(map(json.dumps, rows)))
    task = {"task": "text"} if scope == "whole" else {
        "task": "choice", "template": "{{ text }}:", "columns": {"answer": "label"},
    }  # fmt: skip
    return with_settings(build({
        "model": {"id": str(place)},
        "data": {"source": str(data), "validation": VALIDATION, "test": TEST, "max_tokens": tokens, **task},
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
    found = planning.estimate(recipe)
    return {"formula": found.total, "qlora_formula": found.others["qlora"]}


def _measured(recipe: Recipe) -> Columns:
    return {"measured": finish(planning.measure(recipe)).total}


def _exact_formula(recipe: Recipe) -> Columns:
    return {"exact_formula": planning.estimate(with_settings(recipe, EXACT)).total}


def _exact(recipe: Recipe) -> Columns:
    """The same run with exact gradients."""
    found = _run(with_settings(recipe, EXACT))
    return {"exact": found["run"], "exact_s": found["run_s"]}


def _run(recipe: Recipe) -> Columns:
    """Peaks before the first step, with loading and mask search, and from then on, with evaluations; and seconds of a
    step once it is warm."""
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
        seconds = [event.seconds for event in events if isinstance(event, Step)]
    shutil.rmtree(recipe.run.folder)
    return {"start": start.bytes, "run": run.bytes, "run_s": round(seconds[-1], 2)}


def _plain(recipe: Recipe) -> Columns:
    """Peak and seconds of a plain forward pass on as many examples, with logits of the last token only."""
    device, model, rows = _loaded(recipe)
    with torch.inference_mode():
        peak, seconds = _twice(device, lambda: model(rows, use_cache=False, logits_to_keep=1))
    return {"plain": peak, "plain_s": seconds}


def _qlora(recipe: Recipe) -> Columns:
    """Peak and seconds of a step with adapters on all linear layers and checkpointing; None if peft is not
    installed."""
    device, model, rows = _loaded(recipe)
    made = references.text if recipe.data.task == "text" else references.example
    try:
        examples = [made(number, row) for number, row in enumerate(rows.tolist())]
        step = references.QLoRA(model, examples, checkpointing=True).step
    except ImportError:
        return {"qlora": None, "qlora_s": None}
    peak, seconds = _twice(device, step)
    return {"qlora": peak, "qlora_s": seconds}


def _twice(device: torch.device, work: Callable[[], object]) -> tuple[int, float]:
    """Peak of doing ``work`` twice, and the seconds of the second time."""
    with watched(device) as peak:
        peak.start()
        work()
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - started
    return peak.bytes, round(seconds, 2)


def _loaded(recipe: Recipe) -> tuple[torch.device, PreTrainedModel, torch.Tensor]:
    device = devices.choose(recipe.model.device)
    dtype = devices.compute_dtype(device, recipe.model)
    model = references.load_plain(Path(recipe.model.id), device, dtype)
    devices.give_back_freed()
    return device, model, torch.full((recipe.loop.batch_size, recipe.data.max_tokens), 5, device=device)


WORK = {
    "formula": _formula, "measured": _measured, "run": _run, "exact_formula": _exact_formula, "exact": _exact,
    "plain": _plain, "qlora": _qlora,
}  # fmt: skip
"""What each process measures, by column of the table."""
FORMULAS = {"formula", "exact_formula"}
"""Those that need no weights."""
