"""A session at any step: replayed from the journal, starting at the nearest checkpoint."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from sparsezo_gui.engine.data import TaskData
from sparsezo_gui.engine.runs import checkpoints, gradients
from sparsezo_gui.engine.runs.gradients import Gradients, Rounded, rounded
from sparsezo_gui.engine.runs.lineage import Lineage, Segment
from sparsezo_gui.engine.session import Session, State
from sparsezo_gui.engine.session.loading import data_of
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe.events import Notice, Progress

ROUNDING = 5e-2  # largest relative difference of a step's scalars: it grows with steps; other data gives tenths
DRAWN_AHEAD = 100_000  # values per direction from which directions are drawn ahead in parallel


@dataclass
class Replayed:
    """Of the replayed steps with an exact gradient: how many were recorded, how many computed again, and the largest
    difference of the latter's scalars from those in the journal, relative to the largest of the step."""

    recorded: int = 0
    again: int = 0
    difference: float = 0.0

    @property
    def rounding(self) -> bool:
        """Whether steps that were computed again differ, by no more than rounding explains."""
        return 0 < self.difference <= ROUNDING


def replay(
    session: Session, lineage: Lineage, from_checkpoints: bool = True
) -> Generator[Progress | Notice, None, Replayed]:
    """Replays values and state to the end of ``lineage``: the same bits from any starting point, and without
    forward passes, except for exact gradients that were not recorded. Raises `UserError` if those need data that is
    missing."""
    session.recipe, session.factor = lineage.segments[-1].recipe, 1.0
    _start_from_checkpoint(session, lineage, from_checkpoints)
    total, done, replayed = lineage.step - session.step, 0, Replayed()
    for index, part in enumerate(lineage.segments):
        if session.step == part.first and index:
            session.state = _carried(session, lineage.segments[index - 1].recipe, part.recipe)
        records = part.steps[session.step - part.first :] if session.step < part.last else part.steps[:0]
        recipe, kept = part.recipe, (yield from _gradients(session, part))
        for record, drawn in zip(records, _drawn(session, part.recipe, len(records)), strict=True):
            if recipe.mask.due(session.step + 1):
                yield from _refreshed(session, part, kept.of(record), replayed)
            z = session.shaped(recipe, drawn)
            recorded, rate = record["values"].tolist(), float(record["rate"])
            exact = None
            if recipe.estimator.exact and any(recorded):
                gradient = kept.of(record)
                if gradient is None:
                    data = yield from data_of(session, part.run, ("train",))
                    exact = _again(session, part, z, data, recorded, replayed)
                else:
                    exact = gradient.unpacked(session.tuned.values)
                    replayed.recorded += 1
            session.advance(z, recorded, rate, exact, recipe)
            done += 1
            if done % 100 == 0:
                yield Progress("Replaying the journal", done, total, "steps")
    session.factor = lineage.factor
    return replayed


def _gradients(session: Session, part: Segment) -> Generator[Notice, None, Gradients]:
    """The recorded exact gradients of a segment."""
    run, tuned = part.run, session.tuned
    size = part.recipe.gradient_size(tuned.values.numel())
    if not size or not run.facts.rounds:
        return Gradients(run.gradients)
    found = gradients.read(run.gradients, size, tuned.mask.hash)
    if found.fault:
        yield Notice(found.fault, "warning")
    return found


def _again(
    session: Session, part: Segment, directions: Any, data: TaskData, recorded: list[float], replayed: Replayed
) -> Tensor | None:
    """The exact gradient of the next step, computed again."""
    as_then = replace(session, recipe=part.recipe)
    probe = as_then.probe(as_then.choose(data.train.encoded).examples, directions)
    found = part.recipe.estimator.estimate(probe, session.state.estimator)
    largest = max(map(abs, recorded))
    differences = [abs(new - old) / largest for new, old in zip(found.recorded, recorded, strict=False)]
    replayed.again, replayed.difference = replayed.again + 1, max(replayed.difference, *differences)
    return rounded(found.exact).unpacked(session.tuned.values) if part.run.facts.rounds else found.exact


def _refreshed(
    session: Session, part: Segment, kept: Rounded | None, replayed: Replayed
) -> Generator[Progress | Notice, None, None]:
    """The basis of the next step's directions, as recorded or found again."""
    if kept is not None:
        session.use_basis(kept)
        replayed.recorded += 1
        return
    data = yield from data_of(session, part.run, ("train",))
    yield from session.refresh(data.train.encoded, part.recipe)
    replayed.again += 1


def _carried(session: Session, before: Recipe, after: Recipe) -> State:
    """The state of a branch: its parent's, for the parts with the same rule in both."""
    state, start = session.state, session.start(after)
    return State(
        state.estimator if type(before.estimator) is type(after.estimator) else start.estimator,
        state.update if type(before.update) is type(after.update) else start.update,
        state.basis,
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
