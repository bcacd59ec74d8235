"""A session at any step: replayed from the journal, starting at the nearest checkpoint."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from sparsezo_gui.engine.data import TaskData
from sparsezo_gui.engine.runs import checkpoints
from sparsezo_gui.engine.runs.lineage import Lineage
from sparsezo_gui.engine.session import Session, State
from sparsezo_gui.engine.session.loading import data_of
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe.events import Notice, Progress

DRAWN_AHEAD = 100_000  # values per direction from which directions are drawn ahead in parallel


def replay(
    session: Session, lineage: Lineage, from_checkpoints: bool = True
) -> Generator[Progress | Notice, None, None]:
    """Replays values and state to the end of ``lineage``: the same bits from any starting point, and without
    forward passes unless the estimator back-propagates. Raises `UserError` if that needs data that is missing."""
    session.recipe, session.factor = lineage.segments[-1].recipe, 1.0
    _start_from_checkpoint(session, lineage, from_checkpoints)
    total, done = lineage.step - session.step, 0
    for index, part in enumerate(lineage.segments):
        if session.step == part.first and index:
            session.state = _carried(session, lineage.segments[index - 1].recipe, part.recipe)
        records = part.steps[session.step - part.first :] if session.step < part.last else part.steps[:0]
        for record, drawn in zip(records, _drawn(session, part.recipe, len(records)), strict=True):
            z = session.shaped(part.recipe, drawn)
            recorded, rate = record["values"].tolist(), float(record["rate"])
            exact = None
            if part.recipe.estimator.exact and any(recorded):
                exact = _exact(session, part.recipe, z, (yield from data_of(session, part.run, ("train",))))
            session.advance(z, recorded, rate, exact, part.recipe)
            done += 1
            if done % 100 == 0:
                yield Progress("Replaying the journal", done, total, "steps")
    session.factor = lineage.factor


def _exact(session: Session, recipe: Recipe, directions: Any, data: TaskData) -> Tensor | None:
    """The backprop part of the next step, which is not in the journal and is computed again."""
    as_then = replace(session, recipe=recipe)
    probe = as_then.probe(as_then.choose(data.train.encoded).examples, directions)
    return recipe.estimator.estimate(probe, session.state.estimator).exact


def _carried(session: Session, before: Recipe, after: Recipe) -> State:
    """The state of a branch: its parent's, for the parts with the same rule in both."""
    state, start = session.state, session.start(after)
    return State(
        state.estimator if type(before.estimator) is type(after.estimator) else start.estimator,
        state.update if type(before.update) is type(after.update) else start.update,
    )


def _drawn(session: Session, recipe: Recipe, count: int) -> Iterator[Any]:
    """Random numbers for the next ``count`` steps, drawn ahead with PyTorch's number of threads: they take most of the
    time of a replay."""
    steps = range(session.step + 1, session.step + 1 + count)
    draw, values = partial(session.drawn, recipe), session.tuned.values
    if values.numel() < DRAWN_AHEAD or values.device.type != "cpu":
        yield from map(draw, steps)
        return
    ahead = iter(steps)
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        waiting = deque(threads.submit(draw, step) for step in islice(ahead, torch.get_num_threads()))
        while waiting:
            drawn = waiting.popleft().result()
            waiting.extend(threads.submit(draw, step) for step in islice(ahead, 1))
            yield drawn


def _start_from_checkpoint(session: Session, lineage: Lineage, from_checkpoints: bool) -> None:
    """Sets the values to the last usable checkpoint on ``lineage``, or to the start."""
    tuned = session.tuned
    found = [
        (checkpoint, part)
        for part in lineage.segments
        for checkpoint in (checkpoints.listed(part.run.path) if from_checkpoints else ())
        if part.first < checkpoint.step <= part.last and checkpoint.on(part.journal)
    ]
    for checkpoint, part in sorted(found, key=lambda item: item[0].step, reverse=True):
        known = part.journal.hash(checkpoint.records)
        states = checkpoints.read(checkpoint, tuned.start, tuned.values, tuned.mask.hash, known)
        if states is not None:
            session.state, session.step = State(*states), checkpoint.step
            return
    session.begin(lineage.segments[0].recipe)
