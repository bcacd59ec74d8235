"""What the loop writes besides steps: checkpoints, and how the run ended."""

from __future__ import annotations

import math

from sparsezo_gui.engine.loop.running import Events, Loaded, Running
from sparsezo_gui.engine.privacy import accounting
from sparsezo_gui.engine.runs import checkpoints
from sparsezo_gui.engine.runs.gradients import GradientWriter, Rounded
from sparsezo_gui.errors import DiskFull, UserError
from sparsezo_gui.recipe import events as e

_AGAIN = "To open a past step, later ones are computed again from the data."


def keep_checkpoint(running: Running, model: Loaded) -> Events:
    """Saves a checkpoint of the current values. If it cannot be written, this only costs time later."""
    session, journal = model.session, running.journal
    tuned, budget = session.tuned, session.recipe.run.checkpoints * 2**20
    needed = checkpoints.usual_bytes(tuned.values, session.recipe.state_vectors)
    if needed > budget or session.step == running.run.start:
        return
    try:
        journal.sync()
        checkpoints.write(
            running.run.path, session.step, journal.count, tuned.start, tuned.values, session.state, tuned.mask.hash,
            journal.hash,
        )  # fmt: skip
        checkpoints.thin(running.run.path, journal, budget)
    except UserError as error:
        yield e.Notice(f"No checkpoint was saved at step {session.step}: {error}", "warning")


def open_gradients(running: Running) -> Events:
    """Starts to record exact gradients, if the run has any and its recipe leaves space for them."""
    run = running.run
    recipe, facts = run.recipe, run.facts
    size = recipe.gradient_size(facts.tuned)
    if size and facts.rounds and recipe.run.gradients:
        try:
            budget = recipe.run.gradients * 2**20
            running.gradients = GradientWriter(run.gradients, size, facts.mask_hash, budget)
        except UserError as error:
            yield e.Notice(f"No gradients are recorded: {error} {_AGAIN}", "warning")


def keep_gradient(running: Running, step: int, at: float, gradient: Rounded) -> Events:
    """Records the exact gradient of ``step``, before the step itself. If that is not possible, this only costs time
    later; a full disk ends or pauses the run."""
    writer = running.gradients
    if writer is None:
        return
    try:
        if writer.has_space(gradient):
            yield from running.written(lambda: writer.append(step, at, gradient))
            return
        why = f"[run] gradients = {running.run.recipe.run.gradients} (MiB) is used up."
    except DiskFull:
        raise
    except UserError as error:
        why = str(error)
    running.gradients = None
    yield from running.record(e.Notice(f"From step {step} on, no gradients are recorded: {why} {_AGAIN}", "warning"))


def finish(running: Running, reason: str, news: bool) -> Events:
    """The end; a run without new steps (``news``) keeps its earlier reason for ending."""
    end = e.Finished(running.step, reason, running.model.hash)
    if news or not any(isinstance(event, e.Finished) for event in running.run.events()):
        yield from _tell_spent(running)
        yield from running.record(end)
    else:
        yield end


def _tell_spent(running: Running) -> Events:
    spent = accounting.spent(running.run)
    if spent is None:
        return
    yield from running.record(
        e.Notice(f"Privacy of the examples after {spent.steps:,} steps, including those rolled back: {spent}.")
    )
    if math.isfinite(spent.epsilon):
        yield from running.record(e.Spent(running.step, spent.steps, spent.epsilon, spent.delta, spent.records))
