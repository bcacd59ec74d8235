"""Rolls back a run that diverged.

A run that diverges (see `sparsezo_gui.engine.guard`) is rolled back automatically, as if by command: a return in the
journal to the step where its losses were lowest, with half the learning rate from there on. After `RESCUES` rollbacks
it ends.
"""

from __future__ import annotations

from collections.abc import Generator

import torch

from sparsezo_gui.engine import guard as guards
from sparsezo_gui.engine.guard import BAD_STEPS, Guard
from sparsezo_gui.engine.loop.running import Events, Loaded, Running
from sparsezo_gui.engine.runs import journal as journals
from sparsezo_gui.engine.runs.folder import RunFolder
from sparsezo_gui.engine.runs.lineage import lineage_of
from sparsezo_gui.engine.session.replay import replay
from sparsezo_gui.engine.zo.batches import shuffled_batch
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import events as e

RESCUES = 12  # automatic rollbacks; by then the rate is 4096 times lower


def watch_over(running: Running, model: Loaded) -> Events:
    """Called after a step: measures the base model on as many batches as the run has taken steps, and makes the guard
    once these are enough, if the recipe wants one."""
    recipe = model.session.recipe
    if running.guard or not recipe.loop.guard or recipe.privacy.private:  # which hides the losses
        return
    steps = guards.BATCHES if running.bad == BAD_STEPS else model.step - running.run.start
    yield from _measure_base(running, model, min(steps, guards.BATCHES))
    if len(running.base) >= guards.BATCHES:
        running.guard = _guard(running)


def rescued(running: Running, model: Loaded) -> Generator[e.Event, None, bool]:
    """Whether the run diverged and was rolled back. Raises `UserError` if no step has a finite loss."""
    guard = running.guard
    if guard and guard.trouble and len(running.base) < guards.SURE:
        yield from _measure_base(running, model, guards.SURE)
        guard = running.guard = _guard(running)
    trouble = guard.trouble if guard else ""
    if guard is None or not trouble:
        if running.bad == BAD_STEPS:
            raise UserError(
                f"The loss or gradient was not finite for {BAD_STEPS} steps in a row. Lower epsilon or the learning "
                "rate, or use more bits for the model. All earlier steps are kept."
            )
        return False
    back, factor = guard.best, model.factor / 2
    running.rescues += 1
    does = f"The run returns to step {back} and continues with half the learning rate."
    if hopeless(running):
        does = (
            f"Halving the rate {RESCUES} times did not help: the run returns to step {back} and ends there. Start a "
            "new one with a lower learning rate, which 'sparsezo rates' finds, or with a lower epsilon."
        )
    yield from running.record(e.Notice(f"{trouble} {does}", "warning"))
    yield from return_to(running, model, back)
    model.session.factor, running.bad = factor, 0
    yield from running.record(e.RateChanged(back, factor))
    return True


def hopeless(running: Running) -> bool:
    """Whether the run was rolled back so often that it ends."""
    return running.rescues >= RESCUES


def return_to(running: Running, model: Loaded, step: int) -> Events:
    """Returns values and journal to ``step``; the guard and early stopping restart with the remaining steps."""
    yield from running.written(lambda: running.journal.go_back(step))
    running.guard = None
    yield from replay(model.session, lineage_of(running.run))
    yield from running.record(e.Returned(step))


def _guard(running: Running) -> Guard:
    """The guard, from the base model's losses and the steps of the run's lineage."""
    guard = Guard(running.base, running.run.start)
    for record in journals.read(running.run.journal).steps:
        guard.saw(int(record["step"]), float(record["loss"]), record["values"].tolist())
    return guard


def _measure_base(running: Running, model: Loaded, count: int) -> Events:
    """Measures the base model on the run's first ``count`` batches, unless already done. Recorded once there are as
    many as the guard needs; with fewer, a resumed run measures them again."""
    session = model.session
    losses = running.base = running.base or _recorded_base(running.run)
    missing = range(len(losses), count)
    for number in missing:
        if len(missing) > 1:
            yield e.Progress("Measuring the base model", number, count, "batches")
        batch = shuffled_batch(session.recipe.loop, number + 1, model.data.train.encoded)
        compared = session.base(batch)
        with session.original(), torch.no_grad():
            found = session.recipe.objective.measure(session.model, batch, base=compared)
        losses.append(found.loss.item())
    if missing and count >= guards.BATCHES:
        yield from running.record(e.Base([*losses]))


def _recorded_base(run: RunFolder) -> list[float]:
    """The base model's losses on the run's first batches, as far as recorded."""
    return next((event.losses for event in reversed(run.events()) if isinstance(event, e.Base)), [])
