"""Evaluates a run: at its start, at intervals and at its end, and whether it still improves.

The first step should not wait for the base model's results on all examples, so at step 0 only the first `FIRST`
validation examples are evaluated: a first point for the plot, marked as partial and compared with nothing. The base
model is evaluated on a whole split right before the first later step is, at the interval, at the end, or when asked:
only then is there something to compare it with. What a stop or crash came before is measured after the resume.
"""

from __future__ import annotations

from collections.abc import Generator

from sparsezo_gui.engine.data import task
from sparsezo_gui.engine.evaluate import BATCH, evaluate
from sparsezo_gui.engine.general import NOT_MEASURED, compared
from sparsezo_gui.engine.loop.running import Events, Loaded, Running
from sparsezo_gui.engine.runs.answers import answers_of, keep_answers
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import events as e
from sparsezo_gui.recipe import outcome
from sparsezo_gui.recipe.recipe import SPLITS

# Increase of the perplexity on general text without a warning: half of what 4 bits instead of 16 cost SmolLM2-135M on
# that text (43.7 → 52.8). Tuning need not cost anything: 30 exact steps on SST-2 changed it by −0.3 %.
MOST = 0.1
FIRST = 64  # validation examples before the first step: two batches, a few seconds for a small model on a laptop


def evaluated(running: Running, model: Loaded, *splits: str) -> Events:
    """Metrics on each split that has examples, and its best and worst examples; before, those of the base model, if
    they are unknown."""
    for split in splits:
        if model.step and not _changed(model, split) and split not in _known(running, 0):
            yield from _measured(running, model, split, base=True)
        yield from _measured(running, model, split)


def _measured(running: Running, model: Loaded, split: str, base: bool = False, first: int | None = None) -> Events:
    """Metrics on the ``first`` examples of a split (None: all), of the current values or of the ``base`` model."""
    session, whole = model.session, getattr(model.data, split).encoded
    examples = whole[:first]
    if not examples:
        return
    compared = session.base(examples, BATCH)
    with session.original() if base else session.current():
        before = () if base or first else _answers(running, model, split, len(examples))
        found = yield from evaluate(session.model, examples, split, session.recipe.objective, compared, before)
    if base and first is None and any(found.answers):
        running.answers[split] = found.answers
        keep_answers(running.run.path, running.answers)
    step, metric = 0 if base else session.step, task(session.recipe.data.task).metric
    partial = len(examples) < len(whole)
    yield from running.record(e.Evaluation(step, split, found.metrics, _changed(model, split), metric, partial))
    yield from running.record(e.Examples(step, split, found.best, found.worst, found.changed))


def _answers(running: Running, model: Loaded, split: str, count: int) -> list[str]:
    """What the base model answered to the ``count`` examples of a split; none if that is unknown, or they changed."""
    running.answers = running.answers or answers_of(running.run.path)
    known = running.answers.get(split, [])
    return known if len(known) == count and not _changed(model, split) else []


def _changed(model: Loaded, split: str) -> tuple[str, ...]:
    """The inputs of an evaluation that changed since the run started."""
    return tuple(name for name in model.session.changed if name == split or name not in SPLITS)


def _known(running: Running, step: int) -> set[str]:
    """The splits on which ``step`` was evaluated."""
    events = outcome.on_lineage(running.run.events())
    return {event.split for event in outcome.evaluations(events) if event.step == step}


def _begun(running: Running) -> bool:
    """Whether the base model was evaluated, if only in part."""
    return any(isinstance(event, e.Evaluation) and event.step == 0 for event in running.run.events())


def evaluate_due(running: Running, model: Loaded) -> Generator[e.Event, None, bool]:
    """Evaluates at the start and at the evaluation interval, also if a run was interrupted before it did; returns
    whether the run has stopped improving."""
    every = model.session.recipe.loop.evaluate_every
    if model.step == 0 and not _begun(running):
        yield from _measured(running, model, "validation", first=FIRST)
    elif every and model.step % every == 0 and model.step > running.run.start:
        yield from _evaluate_untold(running, model, "validation")
        return (yield from _out_of_patience(running, model))
    return False


def evaluate_end(running: Running, model: Loaded) -> Events:
    """The final metrics, unless already recorded, and the best step."""
    yield from _evaluate_untold(running, model, *running.splits)
    yield from _check_general_text(running, model)
    best = outcome.best(outcome.on_lineage(running.run.events()))
    if best is not None and best.step != model.step:
        yield from running.record(
            e.Notice(f"Step {best.step} was best on the validation examples; it can be evaluated and exported too.")
        )


def _check_general_text(running: Running, model: Loaded) -> Events:
    """The perplexity on general text, unless already recorded, with a warning if tuning raised it too much."""
    if model.session.changed or outcome.general_text(outcome.on_lineage(running.run.events()), model.step):
        return
    try:
        found = yield from compared(model.session)
    except UserError as error:  # a tokenizer can work on all examples and fail here
        yield e.Notice(f"{NOT_MEASURED} {error}", "warning")
        return
    yield from running.record(found)
    if not found.increase <= MOST:
        yield from running.record(
            e.Notice(
                f"The perplexity on general text is {found}: the model lost some of what it could do before. Use an "
                "earlier step, or a new run with fewer steps or a lower learning rate.", "warning",
            )
        )  # fmt: skip


def _evaluate_untold(running: Running, model: Loaded, *splits: str) -> Events:
    """Metrics on ``splits`` that are not recorded yet."""
    known = _known(running, model.step)
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
