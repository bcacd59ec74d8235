"""Starting and resuming runs: `train` and `resume` prepare a run and hand over to its loop.

Both yield events (see `sparsezo_gui.recipe.events`) until the run is done, stopped or fails. Commands arrive in a queue
and are read between steps. Closing the iterator stops immediately; steps in the journal are kept.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from sparsezo_gui.answers import Cost
from sparsezo_gui.engine import device as devices
from sparsezo_gui.engine import loop, memory, noise_probe, provenance, rate_search
from sparsezo_gui.engine.data import TaskData
from sparsezo_gui.engine.files import own
from sparsezo_gui.engine.frozen import FrozenModel
from sparsezo_gui.engine.loop import Commands, Loaded, Running
from sparsezo_gui.engine.loop.loading import load
from sparsezo_gui.engine.masks.kept import find_once
from sparsezo_gui.engine.masks.rule import MaskRule, Search
from sparsezo_gui.engine.planning import concrete, formula
from sparsezo_gui.engine.privacy import accounting
from sparsezo_gui.engine.runs import disk_space
from sparsezo_gui.engine.runs import folder as folders
from sparsezo_gui.engine.runs.checkpoints import usual_bytes
from sparsezo_gui.engine.runs.preparing import MASK, is_start
from sparsezo_gui.engine.runs.start import restarting, starting
from sparsezo_gui.engine.session import Session
from sparsezo_gui.engine.session.loading import load_data, load_model
from sparsezo_gui.engine.spaces.mask import Mask
from sparsezo_gui.engine.spaces.values import tuned_values
from sparsezo_gui.engine.workers import Workers
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe import events as e
from sparsezo_gui.recipe.recipe import SPLITS
from sparsezo_gui.sizes import size

Find = Callable[[MaskRule, FrozenModel, Search], Generator[e.Progress, None, tuple[Mask, Cost]]]


def train(
    recipe: Recipe, commands: Commands | None = None, folder: Path | None = None, find: Find | None = None,
    splits: Sequence[str] = SPLITS[1:], workers: Workers | None = None,
) -> Iterator[e.Event]:  # fmt: skip
    """Starts a new run of ``recipe`` in ``folder`` (None: where the recipe says), whose passes ``workers`` share.
    Raises `UserError`.

    A benchmark may ``find`` masks among its own, and evaluate only some ``splits`` at the end.
    """
    with starting(recipe, folder) as (path, weaker):
        yield from _begun(recipe, path, weaker, commands or SimpleQueue(), find, splits, workers or Workers())


def _begun(
    recipe: Recipe, path: Path, weaker: list[str], commands: Commands, find: Find | None, splits: Sequence[str],
    workers: Workers,
) -> Iterator[e.Event]:  # fmt: skip
    """Prepares the run whose folder is locked, and runs it."""
    yield e.Preparing(str(path), recipe.run.name or path.name)
    yield from (e.Notice(text, "warning") for text in weaker)
    running = yield from _new_run(recipe, path, commands, find, workers)
    running.splits = tuple(splits)
    yield from loop.events(running)


def _new_run(
    recipe: Recipe, path: Path, commands: Commands, find: Find | None, workers: Workers
) -> Generator[e.Event, None, Running]:
    """A new run before its first step. It has the only reference to the model, so that memory can be released."""
    recipe, chosen = yield from concrete(recipe)
    recipe.privacy.check()
    recipe = workers.prepare(recipe)
    model = yield from load_model(recipe)
    workers.load(recipe)
    yield from (e.Notice(text, "warning") for text in disk_space.check(recipe, model.source, path))
    data = yield from load_data(recipe, model)
    if planned := accounting.planned(recipe, len(data.train)):
        yield from _privacy_notices(planned, len(data.train))
    find = find or partial(find_once, table=recipe.model)
    mask, cost = yield from find(recipe.mask, model, Search(recipe.loop.seed, recipe.data))
    if recipe.mask.cost():
        took = f"took {cost.seconds:.0f} s and at most {size(cost.bytes)}"
        yield e.Notice(f"The mask was found before, which {took}." if cost.kept else f"Finding the mask {took}.")
    session = Session(recipe, model, tuned_values(model, mask))
    session.begin()
    yield from _checkpoint_notices(session)
    mask.save(path / MASK)
    needed = formula(recipe, model.source.spec, data)
    model.pack_rows = needed.rows
    workers.open(session)
    probed = (yield from noise_probe.tune_epsilon(session, data)) if noise_probe.needed(session) else []
    if model.prefix:
        model.prefix.room = min(model.prefix.room, needed.part(memory.KEPT_STATES))
        yield e.Notice(model.prefix.notice(data.train.encoded, data.validation.encoded, data.test.encoded))
    found = (yield from _find_rate(session, data)) if recipe.update.find_rate else []
    facts = {**_facts(session, data), "mask_seconds": round(cost.seconds, 1), "chosen": chosen}
    run = folders.create(path, session.recipe, facts)
    for event in (*probed, *found):
        run.record(event)
        yield event
    return Running(run, commands, Loaded(session, data), workers=workers)


def resume(
    folder: str | Path, commands: Commands | None = None, paused: bool = False, accept: bool = False,
    splits: Sequence[str] = SPLITS[1:], workers: Workers | None = None,
) -> Iterator[e.Event]:  # fmt: skip
    """Resumes the run in ``folder`` after its last recorded step; if its preparation was interrupted, that is done
    again, with what it had found. Any number of ``workers`` share it. If ``paused``, it waits for commands first, so
    that the model can be used as of any step, also with changed inputs if ``accept`` is set. ``splits`` are evaluated
    at the end. Raises `UserError`."""
    path = folders.find(folder)
    if is_start(path) and not paused:
        with restarting(path) as (recipe, weaker):
            yield from _begun(recipe, path, weaker, commands or SimpleQueue(), None, splits, workers or Workers())
        return
    run = folders.open_resolved(path)
    with folders.locked(run.path) as lock:
        own(run.root.path)  # runs of earlier versions are readable by other users
        yield from (e.Notice(text, "warning") for text in lock.weaker)
        running = Running(
            run, commands or SimpleQueue(), paused=paused, splits=tuple(splits), accept=accept,
            workers=workers or Workers(),
        )  # fmt: skip
        yield from load(running, first=True)
        yield from loop.events(running)


def _checkpoint_notices(session: Session) -> Iterator[e.Event]:
    """Warns if there is no space for a checkpoint, without which reopening a long run is slow."""
    recipe = session.recipe
    budget, needed = recipe.run.checkpoints, usual_bytes(session.tuned.values, recipe.state_vectors)
    if budget and needed > budget * 2**20:
        yield e.Notice(
            f"[run] checkpoints = {budget} leaves no space for those of this run, which take {size(needed)} or more "
            f"each: reopening the run will replay all its steps. Set it to {4 * needed >> 20} or more.", "warning",
        )  # fmt: skip


def _privacy_notices(planned: accounting.Spent, examples: int) -> Iterator[e.Event]:
    """The privacy budget of the whole run, before the first step."""
    yield e.Notice(
        f"Privacy of the {examples:,} training examples after all {planned.steps:,} steps: {planned}. Run folder, "
        "validation examples and the choice of the best step are not covered."
    )
    if planned.delta * examples >= 1:
        yield e.Notice(
            f"[privacy] delta = {planned.delta:g} is not below 1 / {examples:,}, one over the number of training "
            "examples: it allows revealing a whole example. Set a smaller delta.", "warning",
        )  # fmt: skip


def _find_rate(session: Session, data: TaskData) -> Generator[e.Event, None, list[e.Event]]:
    """Gives the session the learning rate that short runs find; returns the events that say so."""
    started, recipe = time.monotonic(), session.recipe
    search = rate_search.prepared(session, data.train.encoded) if len(data.train) > 1 else None
    report = None if search is None else (yield from search.run())
    if search is None or report is None or report.rate is None:
        session.recipe = recipe.with_rate(recipe.update.learning_rate)
        why = report.words if report else "The run is too short to find a learning rate."
        return [e.Notice(f"{why} The run uses the usual one, {recipe.update.learning_rate:g}.", "warning")]
    session.recipe = recipe.with_rate(report.rate)
    trials = [
        e.Trial(rung.rate, math.nan if rung.loss is None else rung.loss, list(rung.losses)) for rung in report.rungs
    ]
    seconds = round(time.monotonic() - started, 1)
    found = e.RateFound(report.rate, report.base, report.passes, seconds, trials)
    return [found, e.Notice(report.words)]


def _facts(session: Session, data: TaskData) -> dict[str, Any]:
    spec = session.model.spec
    inputs = {**provenance.of_model(session.model.source), **provenance.of_data(data, session.recipe.data)}
    return {
        "model": session.model.source.id,
        "revision": session.model.source.revision,
        "fingerprint": session.model.fingerprint,
        "generator": session.generator,
        "mask_hash": session.tuned.mask.hash,
        "data_hash": inputs.pop("data_hash"),
        "inputs": inputs,
        "examples": len(data.train),
        "parameters": spec.parameters,
        "eligible": spec.eligible,
        "tuned": session.tuned.mask.size,
        "pack_rows": session.model.pack_rows,
        "device": devices.name(session.model.device),
    }
