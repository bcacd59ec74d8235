"""Models and data sets on the Hub, with a verdict on each model before anything of it is downloaded."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from sparsezo_gui.answers import Found
from sparsezo_gui.engine.data.background import in_background
from sparsezo_gui.engine.hub.search import read_config_json, search_hub, spec_from
from sparsezo_gui.engine.planning import formula
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe.events import Progress

AT_ONCE = 6  # configs that are read at the same time


def search(text: str, recipe: Recipe, datasets: bool = False) -> Generator[Progress, None, list[Found]]:
    """Models (or data sets) on the Hub for the words ``text``, most downloaded first; each model with the verdict of
    the memory estimate for ``recipe`` on it, from its config alone. Closing the generator cancels. Raises `UserError`.
    """
    words = text.strip()
    if not words:
        raise UserError("Say what to search for, such as 'qwen3 0.6b'.")
    found = yield from in_background(lambda: search_hub(words, datasets=datasets), Progress("Searching the Hub"))
    if datasets:
        return found
    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        configs = [None if entry.problem else pool.submit(read_config_json, entry.id) for entry in found]
        for number, config in enumerate(configs):
            yield Progress("Checking what fits", number, len(found), "models")
            if config is not None:
                found[number] = _judged(found[number], config, recipe)
        return found
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _judged(entry: Found, config: Future[bytes], recipe: Recipe) -> Found:
    """The entry with its verdict, or with what is wrong with it; unchanged if its config cannot be had, as of a gated
    model."""
    model = recipe.model.model_copy(update={"id": entry.id, "revision": "main", "trust_remote_code": False})
    try:
        content = config.result()
    except UserError:
        return entry
    try:
        found = formula(recipe.model_copy(update={"model": model}), spec_from(content), None)
    except UserError as error:
        return replace(entry, problem=str(error))
    return replace(entry, fit=found.verdict)
