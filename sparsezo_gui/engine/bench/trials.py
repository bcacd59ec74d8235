"""A cell of `sparsezo_gui.engine.bench.quality`: a full run of the program and what came of it, or a model untuned."""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np

from sparsezo_gui.engine import device as devices
from sparsezo_gui.engine import frozen, training
from sparsezo_gui.engine.bench.judged import judged
from sparsezo_gui.engine.data import TaskData
from sparsezo_gui.engine.data.tasks import task
from sparsezo_gui.engine.masks.kept import KeptMasks
from sparsezo_gui.engine.masks.rule import Search
from sparsezo_gui.engine.objective import count_tokens
from sparsezo_gui.engine.runs import journal
from sparsezo_gui.engine.runs.folder import RunFolder, open_run
from sparsezo_gui.engine.runs.lineage import lineage_of
from sparsezo_gui.engine.session import Session
from sparsezo_gui.engine.session.loading import data_of, load_data
from sparsezo_gui.engine.session.opening import open_session
from sparsezo_gui.engine.session.replay import replay
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import Recipe, dump, outcome
from sparsezo_gui.recipe import events as e

Cell = dict[str, Any]
Work = Generator[e.Event, None, Cell]
SPLITS = ("validation",)  # evaluated in a run; test examples only after it


def untuned(recipe: Recipe) -> Work:
    """The model as it is, on the test examples."""
    model = yield from frozen.load(recipe.model)
    data = yield from load_data(recipe, model)
    return (yield from judged(model, data.test.encoded, recipe)) | {"curve": [], "tuned": 0, "rate": 0.0}


def tuned(recipe: Recipe, folder: Path) -> Work:
    """A run of ``recipe``, resumed if it was interrupted, and how good the model is at its end (``final``) and at its
    best step on validation examples (``best``). ``folder`` keeps masks, and the run until it is done."""
    devices.give_back_freed()
    path = folder / "runs" / hashlib.sha256(dump(recipe).encode()).hexdigest()[:16]
    steps = training.resume(path, splits=SPLITS) if (path / "run.json").exists() else training.train(
        recipe, folder=path, find=KeptMasks(folder / "masks", recipe.model).find, splits=SPLITS
    )  # fmt: skip
    try:
        for event in steps:
            if isinstance(event, e.Step):
                yield e.Progress("Tuning", event.step, recipe.loop.steps, f"loss {event.loss:.4f}")
            elif isinstance(event, e.Progress):
                yield event
    except UserError as error:  # such as steps without a finite loss: the run up to there counts
        if not (path / "run.json").exists():
            raise
        yield e.Notice(str(error), "warning")
    cell = yield from _outcome(recipe, open_run(path))
    shutil.rmtree(path)
    return cell


def _outcome(recipe: Recipe, run: RunFolder) -> Work:
    events, metric = outcome.on_lineage(run.events()), task(recipe.data.task).metric
    found = next((event for event in events if isinstance(event, e.RateFound)), None)
    general = next((event for event in reversed(events) if isinstance(event, e.GeneralText)), None)
    validated = sorted(outcome.evaluations(events), key=lambda event: event.step)
    records = journal.read(run.journal).records
    taken = np.append(0, np.cumsum(records["kind"] == journal.STEP))  # with those that a guard took back
    session = yield from open_session(run)
    data = yield from data_of(session, run)
    searches = _mask_passes(session, data) + (found.passes if found else 0)
    passes = taken * run.recipe.cost + searches
    seconds = np.append(0.0, np.cumsum(records["seconds"], dtype=np.float64))
    curve = []
    for event in validated:
        at, metrics = _place(records, event.step), event.metrics
        spent = round(float(seconds[at]), 1)
        curve.append((int(passes[at]), metrics[metric], spent, metrics["loss"], event.step))
    cell = {
        "curve": curve, "validation_loss": curve[-1][3] if curve else math.inf, "steps": int(taken[-1]),
        "passes": int(passes[-1]), "tuned": run.facts.tuned, "seconds": round(float(seconds[-1]), 1),
        "mask_seconds": run.facts.mask_seconds, "rate_seconds": found.seconds if found else 0.0,
        "rate": run.recipe.update.learning_rate, "general_text": general.increase if general else None,
        "peak_memory_mib": round(int(records["memory"].max(initial=0)) / 2**20),
    }  # fmt: skip
    return cell | (yield from _tested(session, data, run, outcome.best(events)))


def _mask_passes(session: Session, data: TaskData) -> int:
    """Forward passes of a batch, by tokens, that finding the mask took on the run's own examples."""
    recipe, encoded = session.recipe, data.train.encoded
    tokens = recipe.loop.batch_size * sum(map(count_tokens, encoded)) / len(encoded)
    return round(recipe.mask.work(session.model, Search(recipe.loop.seed, recipe.data), own=True) / tokens)


def _place(records: np.ndarray, step: int) -> int:
    """How many of a journal's ``records`` were written when the run last reached ``step``."""
    return int(np.flatnonzero(records["step"] == step)[-1]) + 1 if step else 0


def _tested(session: Session, data: TaskData, run: RunFolder, best: e.Evaluation | None) -> Work:
    """The test examples, at the end of the run and at its ``best`` step."""
    recipe = session.recipe
    with session.tuned.applied():
        final = yield from judged(session.model, data.test.encoded, recipe)
    if best is None or best.step == session.step:
        return final | {"best": final["final"]}
    yield from replay(session, lineage_of(run, best.step))
    with session.tuned.applied():
        found = yield from judged(session.model, data.test.encoded, recipe)
    return final | {"best": found["final"], "best_scores": found["scores"], "best_step": best.step}
