"""The commands that a run obeys between its steps, and the reasons for which it waits automatically."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from queue import Empty

from sparsezo_gui.engine.data.prompts import encode_prompt
from sparsezo_gui.engine.generate import reply
from sparsezo_gui.engine.loop.evaluation import evaluated
from sparsezo_gui.engine.loop.loading import in_memory, recorded_factor, release
from sparsezo_gui.engine.loop.rescue import return_to
from sparsezo_gui.engine.loop.running import Events, Loaded, Running
from sparsezo_gui.engine.loop.writing import keep_checkpoint
from sparsezo_gui.engine.provenance import in_words
from sparsezo_gui.engine.runs.lineage import lineage_of
from sparsezo_gui.engine.session.replay import replay
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import events as e
from sparsezo_gui.work import finish


def obey(running: Running) -> Events:
    """Executes the commands in order; stays here while the loop is paused or waits."""
    if running.paused and not running.postponed:
        yield e.Paused(running.step)
    while not running.stopping:
        yield from _look(running)
        try:
            command = running.next_command()
        except Empty:
            if not running.waiting:
                return
            yield e.Progress(f"Waiting: {running.waiting}")
            continue
        yield from _do(running, command)
        # Repeated before each wait, so that the consumer knows that nothing comes before the next command.
        waits = not running.postponed and (isinstance(command, e.Pause) or running.idle)
        if running.paused and not running.stopping and waits:
            loaded = isinstance(running.model, Loaded)
            yield e.Paused(running.step) if loaded else e.Released(running.step)


def _look(running: Running) -> Events:
    """Starts to wait if there is a reason to, and continues once it is over."""
    reason = running.watch.reason()
    if reason and not running.waiting:
        running.journal.sync()
        yield e.Notice(f"The run waits: {reason}.", "warning")
        yield e.Paused(running.step, reason)
    elif running.waiting and not reason and not running.paused:
        yield e.Resumed(running.step)
    running.waiting = reason


def _do(running: Running, command: e.Command) -> Events:
    try:
        match command:
            case e.Stop():
                running.stopping = True
            case e.Pause():
                running.paused = True
                running.journal.sync()
            case e.Release():
                running.paused = True
                yield from release(running)
            case e.Resume() if running.paused or running.waiting:
                _refuse_changed((yield from in_memory(running)))
                running.paused, running.waiting = False, ""
                running.watch.snooze()
                yield e.Resumed(running.step)
            case e.EvaluateNow(split, step):
                yield from at(running, step, lambda model: _evaluate_asked(running, model, split))
            case e.Ask() if running.interrupted():
                yield e.Answer(running.step, "", last=True)
            case e.Ask():
                yield from at(running, command.step, lambda model: _answer(running, model, command))
            case e.GoBack(step):
                yield from _go_back(running, step)
            case e.SetRate(factor):
                yield from _set_rate(running, factor)
    except Exception as error:
        # The command failed; the run itself is fine. A prompt may contain anything.
        if isinstance(command, e.Resume) or (not isinstance(error, UserError) and not isinstance(command, e.Ask)):
            raise
        text = str(error) if isinstance(error, UserError) else f"The model could not answer ({error})."
        yield e.Notice(text, "warning")
        if isinstance(command, e.Ask):
            yield e.Answer(running.step, text, last=True)


def _refuse_changed(model: Loaded) -> Loaded:
    """The model, if the run may take steps."""
    if model.session.changed:
        raise UserError(
            f"Since the run started, {in_words(model.session.changed)} changed, so you can only ask and evaluate it. "
            "To resume it, restore what was there; or start a new run."
        )
    return model


def at(running: Running, step: int | None, work: Callable[[Loaded], Events]) -> Events:
    """Does ``work`` with the values after ``step``, and then restores the current ones."""
    model = yield from in_memory(running)
    session = model.session
    if step is None or step == session.step:
        yield from work(model)
        return
    if session.tuned.space.in_place:  # a copy of the values would be another model in memory
        yield from keep_checkpoint(running, model)
        values = None
    else:
        values = session.tuned.values.clone()
    now = replace(session)
    try:
        yield from replay(session, lineage_of(running.run, step))
        yield from work(model)
    finally:
        if values is None:
            finish(replay(session, lineage_of(running.run)))
        else:
            session.recipe, session.step, session.state = now.recipe, now.step, now.state
            session.tuned.values.copy_(values)
        session.factor = now.factor


def _evaluate_asked(running: Running, model: Loaded, split: str) -> Events:
    if not getattr(model.data, split).encoded:
        raise UserError(f"There are no {split} examples to evaluate on.")
    yield from evaluated(running, model, split)


def _answer(running: Running, model: Loaded, command: e.Ask) -> Events:
    session = model.session
    known = session.recipe.data, session.model.tokenizer
    before = [("system", command.system)] if command.system else []
    for said, answered in command.turns:
        before += [("user", said), ("assistant", answered)]
    question = encode_prompt(*known, command.prompt, model.data.answers, command.raw, before)
    with session.tuned.applied():
        for piece in reply(session.model, question, command.tokens, command.temperature, command.seed):
            yield e.Answer(session.step, piece)
            if running.interrupted():
                break
    yield e.Answer(session.step, "", last=True)


def _set_rate(running: Running, factor: float) -> Events:
    session = _refuse_changed((yield from in_memory(running))).session
    session.factor *= factor
    yield from running.record(e.RateChanged(running.step, session.factor))
    yield from running.record(e.Notice(f"The learning rate is now {session.factor:g} × the scheduled one."))


def _go_back(running: Running, step: int) -> Events:
    model = _refuse_changed((yield from in_memory(running)))
    run, session = running.run, model.session
    if step < run.start:
        raise UserError(
            f"Run '{run.name}' branched off at step {run.start}, so it cannot return to step {step}. Branch from its "
            "parent run at that step."
        )
    lineage_of(run, step)  # raises if there is no such step
    yield from return_to(running, model, step)
    session.factor = recorded_factor(run, session.factor)
    if session.factor != 1.0:
        yield e.Notice(f"The learning rate is {session.factor:g} × the scheduled one, as it was then.")
