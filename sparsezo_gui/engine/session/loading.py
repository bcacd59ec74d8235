"""What a session is made of: the model and the data of a recipe."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from sparsezo_gui.engine import frozen, provenance
from sparsezo_gui.engine.data import TaskData, load_task
from sparsezo_gui.engine.data.prompts import learned_end
from sparsezo_gui.engine.frozen import FrozenModel
from sparsezo_gui.engine.prefix import Prefix
from sparsezo_gui.engine.runs.folder import RunFolder
from sparsezo_gui.engine.session import Session
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe.events import Notice, Progress
from sparsezo_gui.recipe.recipe import SPLITS


def load_model(recipe: Recipe) -> Generator[Progress, None, FrozenModel]:
    """The recipe's model, with the blocks that its mask may tune, and the end-of-answer token of its examples."""
    model = yield from frozen.load(recipe.model)
    tune_blocks(model, recipe)
    model.learned_end = learned_end(recipe.data, model.tokenizer)
    return model


def tune_blocks(model: FrozenModel, recipe: Recipe) -> None:
    """Makes the blocks that the mask of ``recipe`` may tune those of ``model``."""
    model.spec = recipe.mask.tunable(model.source.spec)
    model.prefix = Prefix(model) if model.spec.tunable_blocks[0] else None


def load_data(recipe: Recipe, model: FrozenModel) -> Generator[Progress | Notice, None, TaskData]:
    """The recipe's data, encoded for ``model``; yields notices about it."""
    data = yield from load_task(recipe.data, model.tokenizer, model.limits)
    yield from data.notices
    return data


def data_of(
    session: Session, run: RunFolder, uses: Sequence[str] = SPLITS, accept: bool = False
) -> Generator[Progress | Notice, None, TaskData]:
    """The data of ``run``, read once. Raises `ChangedInputs` if one of the splits in ``uses`` changed since the run
    started, unless ``accept`` is set."""
    table = run.recipe.data.model_dump_json()
    if table not in session.data:
        data = yield from load_data(run.recipe, session.model)
        session.data[table] = data, provenance.of_data(data, run.recipe.data)
    data, found = session.data[table]
    changed = provenance.compare(run, found, (*uses, "template"), accept)
    new = tuple(name for name in changed if name not in session.changed)
    if new:
        session.changed += new
        yield Notice(provenance.marked(new), "warning")
    return data
