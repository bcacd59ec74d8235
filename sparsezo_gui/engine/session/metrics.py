"""Metrics of a run: base and tuned model on a split."""

from __future__ import annotations

from collections.abc import Generator

from sparsezo_gui.engine.evaluate import BATCH, evaluate
from sparsezo_gui.engine.runs.folder import RunFolder
from sparsezo_gui.engine.session import Session
from sparsezo_gui.engine.session.loading import data_of
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.events import Notice, Progress
from sparsezo_gui.recipe.recipe import SPLITS


def base_and_tuned(
    session: Session, run: RunFolder, split: str, accept: bool = False
) -> Generator[Progress | Notice, None, dict[str, dict[str, float]]]:
    """Metrics of ``session``, a step of ``run``, on ``split``: for 'base' and 'tuned', by name. Raises `UserError`, and
    `ChangedInputs` for changed examples unless ``accept`` is set."""
    if split not in SPLITS:
        raise UserError(f"There is no split '{split}'. Use {', '.join(SPLITS[:-1])} or {SPLITS[-1]}.")
    data = yield from data_of(session, run, (split,), accept)
    examples = getattr(data, split).encoded
    judged = session.model, examples, split, session.recipe.objective, session.base(examples, BATCH)
    with session.tuned.base():
        base = yield from evaluate(*judged)
    with session.tuned.applied():
        tuned = yield from evaluate(*judged)
    return {"base": base.metrics, "tuned": tuned.metrics}
