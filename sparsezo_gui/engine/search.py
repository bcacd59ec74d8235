"""Models and data sets on the Hub, with a verdict on each model before anything of it is downloaded."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import replace
from multiprocessing import TimeoutError
from multiprocessing.pool import IMapIterator, ThreadPool

from sparsezo_gui.answers import Found
from sparsezo_gui.engine.data.background import PROGRESS_EVERY, in_background
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
    pool = ThreadPool(AT_ONCE)  # its threads end with the program, whatever they wait for
    try:
        configs = pool.imap(_config, found)
        for number in range(len(found)):
            config = yield from _next(configs, Progress("Checking what fits", number, len(found), "models"))
            found[number] = _judged(replace(found[number], config=config), recipe)
        return found
    finally:
        pool.terminate()


def judge(found: Iterable[Found], recipe: Recipe) -> list[Found]:
    """Models that a search ``found``, with the verdicts for ``recipe``; does not ask the Hub."""
    return [_judged(replace(each, fit="", problem="") if each.config else each, recipe) for each in found]


def _next(configs: IMapIterator[bytes], waiting: Progress) -> Generator[Progress, None, bytes]:
    """The next config, yielding ``waiting`` until it is there."""
    while True:
        yield waiting
        try:
            return configs.next(timeout=PROGRESS_EVERY)
        except TimeoutError:
            continue


def _config(entry: Found) -> bytes:
    """The config.json of a model; empty if it cannot be had, as of a gated model, or is not needed."""
    try:
        return b"" if entry.problem else read_config_json(entry.id)
    except UserError:
        return b""


def _judged(entry: Found, recipe: Recipe) -> Found:
    """The entry with its verdict, or with what is wrong with it."""
    if not entry.config:
        return entry
    model = recipe.model.model_copy(update={"id": entry.id, "revision": "main", "trust_remote_code": False})
    try:
        found = formula(recipe.model_copy(update={"model": model}), spec_from(entry.config), None)
    except UserError as error:
        return replace(entry, problem=str(error))
    return replace(entry, fit=found.verdict)
