"""Evaluates a run: at its start, at intervals and at its end, and whether it still improves."""

from __future__ import annotations

from collections.abc import Generator

from sparsezo_gui.engine.data import task
from sparsezo_gui.engine.data.splits import SPLITS
from sparsezo_gui.engine.evaluate import BATCH, evaluate
from sparsezo_gui.engine.loop.running import Events, Loaded, Running
from sparsezo_gui.recipe import events as e
from sparsezo_gui.recipe import outcome


def evaluated(running: Running, model: Loaded, *splits: str) -> Events:
    """Metrics on each split that has examples, and its best and worst examples."""
    session = model.session
    for split in splits:
        examples = getattr(model.data, split).encoded
        if examples:
            base = session.base(examples, BATCH)
            with session.tuned.applied():
                found = yield from evaluate(session.model, examples, split, session.recipe.objective, base)
            changed = tuple(name for name in session.changed if name == split or name not in SPLITS)
            metric = task(session.recipe.data.task).metric
            yield from running.record(e.Evaluation(session.step, split, found.metrics, changed, metric))
            yield from running.record(e.Examples(session.step, split, found.best, found.worst))


def evaluate_due(running: Running, model: Loaded) -> Generator[e.Event, None, bool]:
    """Evaluates at the start and at the evaluation interval, also if a run was interrupted before it did; returns
    whether the run has stopped improving."""
    every = model.session.recipe.loop.evaluate_every
    if model.step == 0:
        yield from _evaluate_untold(running, model, *running.splits)
    elif every and model.step % every == 0 and model.step > running.run.start:
        yield from _evaluate_untold(running, model, "validation")
        return (yield from _out_of_patience(running, model))
    return False


def evaluate_end(running: Running, model: Loaded) -> Events:
    """The final metrics, unless already recorded, and the best step."""
    yield from _evaluate_untold(running, model, *running.splits)
    best = outcome.best(outcome.on_lineage(running.run.events()))
    if best is not None and best.step != model.step:
        yield from running.record(
            e.Notice(f"Step {best.step} was best on the validation examples; it can be evaluated and exported too.")
        )


def _evaluate_untold(running: Running, model: Loaded, *splits: str) -> Events:
    """Metrics on ``splits`` that are not recorded yet."""
    events = outcome.on_lineage(running.run.events())
    known = {event.split for event in outcome.evaluations(events) if event.step == model.step}
    yield from evaluated(running, model, *(split for split in splits if split not in known))


def _out_of_patience(running: Running, model: Loaded) -> Generator[e.Event, None, bool]:
    """Whether the run has not improved for as many evaluations as its recipe allows."""
    loop, events = model.session.recipe.loop, outcome.on_lineage(running.run.events())
    if not loop.patience or outcome.stale(events, running.first, loop.evaluate_every) < loop.patience:
        return False
    best = outcome.best(events)
    than = f"were no better than that of step {best.step}" if best else "had no finite loss"
    yield from running.record(
        e.Notice(
            f"The last {loop.patience} evaluations {than}, so the run ended {loop.steps - model.step} steps early. "
            "It can still be resumed."
        )
    )
    return True
