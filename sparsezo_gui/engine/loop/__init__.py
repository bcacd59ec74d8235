"""The training loop: an iterator of events that reads from top to bottom.

Between steps it obeys commands (`control`), evaluates (`evaluation`), and rolls back a run that diverges (`rescue`).
All of them work on one value, `Running`, whose model is `Loaded` or `Released`.
"""

from __future__ import annotations

from collections.abc import Generator

from sparsezo_gui.engine import device as devices
from sparsezo_gui.engine.loop.control import obey
from sparsezo_gui.engine.loop.evaluation import evaluate_due, evaluate_end
from sparsezo_gui.engine.loop.rescue import hopeless, rescued, watch_over
from sparsezo_gui.engine.loop.running import Commands, Events, Loaded, Running
from sparsezo_gui.engine.loop.step import take_step
from sparsezo_gui.engine.loop.writing import finish, keep_checkpoint, open_gradients
from sparsezo_gui.engine.runs import checkpoints
from sparsezo_gui.engine.runs.journal_writer import JournalWriter
from sparsezo_gui.engine.watch import Watch
from sparsezo_gui.recipe import events as e

__all__ = ["Commands", "Loaded", "Running", "events"]


def events(running: Running) -> Events:
    """Takes the steps of a run, whose model is loaded, until it is done, stopped or fails."""
    assert isinstance(running.model, Loaded)
    devices.give_back_freed()  # finding the mask leaves some
    run, facts, recipe = running.run, running.run.facts, running.run.recipe
    steps = recipe.loop.steps
    running.watch = Watch(recipe.run.pause_on, run.path, running.model.session.model.device)
    yield e.Started(
        str(run.path), run.name, running.step + 1, steps, facts.parameters, facts.eligible, facts.tuned, facts.device
    )
    if running.workers.greeting:
        yield from running.record(e.Notice(running.workers.greeting))
    with JournalWriter(run.journal, run.header) as running.journal:
        before, reason, running.first = running.journal.count, "", running.step
        # Steps lost from a damaged journal are taken again; checkpoints of the lost ones must not be used for them.
        checkpoints.thin(run.path, running.journal, recipe.run.checkpoints * 2**20)
        yield from open_gradients(running)
        while not reason and (running.step < steps or running.paused or not running.idle):
            yield from obey(running)
            # The model is passed to other functions, since a name for it here would keep it in memory.
            if running.stopping:
                reason = "stopped"
            elif isinstance(running.model, Loaded):
                reason = yield from _go_on(running, running.model)
        if isinstance(running.model, Loaded):
            if reason != "stopped":
                yield from evaluate_end(running, running.model)
            yield from keep_checkpoint(running, running.model)
        if running.workers.account:
            yield from running.record(e.Notice(running.workers.account))
        yield from finish(running, reason or "done", news=running.journal.count > before)


def _go_on(running: Running, model: Loaded) -> Generator[e.Event, None, str]:
    """The next step, with the evaluation before and the checkpoint after it; returns the reason to end, or nothing."""
    recipe = model.session.recipe
    if model.step >= recipe.loop.steps:
        return "done"
    if (yield from evaluate_due(running, model)):
        return "early"
    yield from take_step(running, model)
    yield from watch_over(running, model)
    if (yield from rescued(running, model)):
        return "early" if hopeless(running) else ""
    again = recipe.gradient_size(1) > 0 and running.gradients is None
    if model.step % checkpoints.spacing(running.run.facts.tuned, again) == 0:
        yield from keep_checkpoint(running, model)
    return ""
