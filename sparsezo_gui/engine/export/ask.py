"""Asks what was exported, loaded from its files as any other model, the same prompts as the run."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path

from sparsezo_gui.recipe.events import Notice, Progress

TOKENS = 96  # of an answer at most


def ask_export(folder: Path, out: Path, prompt: str) -> Generator[Progress | Notice, None, str]:
    """The answer of the export at ``out`` of the run in ``folder`` to ``prompt``, through the run's template. Raises
    `UserError`."""
    from sparsezo_gui.engine.data.prompts import answers_in_data, encode_prompt
    from sparsezo_gui.engine.generate import reply
    from sparsezo_gui.engine.runs.folder import open_run
    from sparsezo_gui.engine.session.loading import load_data, load_model

    recipe = open_run(folder).recipe
    with tempfile.TemporaryDirectory() as place:
        known = {"id": str(_loadable(out.resolve(), recipe.model.id, Path(place))), "revision": "main"}
        recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update=known)})
        model = yield from load_model(recipe)
    answers: tuple[str, ...] = ()
    if answers_in_data(recipe.data):
        answers = (yield from load_data(recipe, model)).answers
    asked = encode_prompt(recipe.data, model.tokenizer, prompt, answers)
    yield Progress("Answering")
    return "".join(reply(model, asked, TOKENS)).strip()


def _loadable(out: Path, base: str, place: Path) -> Path:
    """The export, or a copy of it in the folder ``place``: small files of tuned values look for a base model that is
    not on the Hub beside them, where only their reader puts it. Raises `UserError`."""
    from sparsezo_gui.engine.files import cannot_write
    from sparsezo_gui.engine.pretrained.places import local_folder
    from sparsezo_gui.engine.pretrained.tuned import untuned
    from sparsezo_gui.names import free
    from sparsezo_gui.recipe.recipe import ModelTable
    from sparsezo_gui.resources import BUNDLED_MODELS

    found = local_folder(base)
    if untuned(ModelTable(id=str(out))).id == str(out) or found is None or found in BUNDLED_MODELS.values():
        return out
    try:
        (place / found.name).symlink_to(found, target_is_directory=found.is_dir())
        copied = free(place / f"export{out.suffix}")  # the base model may be called the same
        shutil.copytree(out, copied) if out.is_dir() else shutil.copyfile(out, copied)
    except OSError as error:
        raise cannot_write(place, error) from error
    return copied
