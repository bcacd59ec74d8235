"""Asks what was exported, loaded from its files as any other model, the same prompts as the run."""

from __future__ import annotations

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
    known = {"id": str(out.resolve()), "revision": "main"}
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update=known)})
    model = yield from load_model(recipe)
    answers: tuple[str, ...] = ()
    if answers_in_data(recipe.data):
        answers = (yield from load_data(recipe, model)).answers
    asked = encode_prompt(recipe.data, model.tokenizer, prompt, answers)
    yield Progress("Answering")
    return "".join(reply(model, asked, TOKENS)).strip()
