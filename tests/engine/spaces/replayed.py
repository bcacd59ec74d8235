"""A run for tests of spaces: trained, stopped and resumed, and replayed."""

from __future__ import annotations

from pathlib import Path
from queue import SimpleQueue

from torch import Tensor

from sparsezo_gui.engine import training
from sparsezo_gui.engine.runs.folder import open_run
from sparsezo_gui.engine.runs.lineage import lineage_of
from sparsezo_gui.engine.session import Session
from sparsezo_gui.engine.session.opening import open_session
from sparsezo_gui.engine.session.replay import replay
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe import events as e
from tests.engine.conftest import finish


def replayed(chosen: Recipe, folder: Path) -> tuple[Session, dict[int, Tensor]]:
    """Trains in ``folder`` / "whole"; gives its session at step 4, and its values at steps 0, 2, 4 and 6. A stopped and
    resumed run, and a replayed one, end with the same bits."""
    whole = list(training.train(chosen, folder=folder / "whole"))
    commands = SimpleQueue()
    for event in training.train(chosen, commands, folder=folder / "parts"):
        if isinstance(event, e.Step) and event.step == 3:
            commands.put(e.Stop())
    assert list(training.resume(folder / "parts"))[-1].hash == whole[-1].hash
    run = open_run(folder / "whole")
    session, at = finish(open_session(run, from_checkpoints=False)), {}
    assert session.tuned.hash() == whole[-1].hash
    for step in (0, 2, 6, 4):
        finish(replay(session, lineage_of(run).until(step), from_checkpoints=False))
        at[step] = session.tuned.values.clone()
    return session, at
