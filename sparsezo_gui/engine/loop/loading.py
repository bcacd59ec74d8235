"""Loads and releases the model of a run."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from queue import Empty

from sparsezo_gui.engine import device as devices
from sparsezo_gui.engine.loop.running import Events, Loaded, Released, Running
from sparsezo_gui.engine.loop.writing import keep_checkpoint
from sparsezo_gui.engine.runs import journal as journals
from sparsezo_gui.engine.runs.folder import RunFolder, with_data
from sparsezo_gui.engine.runs.lineage import lineage_of
from sparsezo_gui.engine.session.loading import data_of
from sparsezo_gui.engine.session.opening import loaded, restore
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import events as e
from sparsezo_gui.recipe import outcome


def load(running: Running, first: bool = False) -> Events:
    """Loads the model, restores its values at the last step, and reads the data.

    At ``first``, skips the replay to the last step if the first command goes back to an earlier one.
    """
    running.run.recipe.privacy.check()
    session = yield from loaded(running.run, running.accept, running.workers)
    yield from restore(session, running.run, _asked_back(running) if first else None)
    data = yield from data_of(session, running.run, accept=running.accept)
    if running.run.facts.data_hash is None and not session.changed:
        inputs = dict(session.data[running.run.recipe.data.model_dump_json()][1])
        running.run = with_data(running.run, inputs.pop("data_hash"), len(data.train), inputs)
        yield from running.record(
            e.Notice(
                f"The steps up to {running.run.start} were trained on other data, which may include some of these "
                "validation and test examples.", "warning",
            )
        )  # fmt: skip
    running.model = Loaded(session, data)
    _tell_forgotten_returns(running.run)
    session.factor = recorded_factor(running.run, session.factor)


def in_memory(running: Running) -> Generator[e.Event, None, Loaded]:
    """The model, loaded again if it was released."""
    if isinstance(running.model, Released):
        factor = running.model.factor
        yield from load(running)
        assert isinstance(running.model, Loaded)
        running.model.session.factor = factor
    return running.model


def release(running: Running) -> Events:
    """Releases the model's memory. What is not in the journal is kept."""
    if isinstance(running.model, Released):
        return
    running.model = yield from _left(running, running.model)
    devices.give_back_freed()
    if not running.idle:
        yield e.Released(running.step)


def _left(running: Running, model: Loaded) -> Generator[e.Event, None, Released]:
    yield from keep_checkpoint(running, model)
    return Released(model.step, model.factor, model.hash)


def recorded_factor(run: RunFolder, now: float) -> float:
    """Factor on the scheduled rate: as last changed on the run's lineage, or else as it is ``now``."""
    changed = [event for event in outcome.on_lineage(run.events()) if isinstance(event, e.RateChanged)]
    return changed[-1].factor if changed else now


def _asked_back(running: Running) -> int | None:
    """The step that the first command goes back to, if there is one."""
    with suppress(Empty, UserError):
        command = running.next_command(wait=False)
        running.postponed.appendleft(command)
        if isinstance(command, e.GoBack) and command.step >= running.run.start:
            return lineage_of(running.run, command.step).step
    return None


def _tell_forgotten_returns(run: RunFolder) -> None:
    """A crash can happen after a return was journalled and before its event was recorded."""
    if not run.journal.exists():
        return
    known = sum(isinstance(event, e.Returned) for event in run.events())
    for _, step in journals.read(run.journal).returns[known:]:
        run.record(e.Returned(step))
