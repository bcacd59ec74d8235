"""What is known of a recipe's model and data on this computer, without loading the model."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator
from functools import lru_cache
from pathlib import Path
from typing import Any

from sparsezo_gui.engine.data import TaskData, load_task
from sparsezo_gui.engine.hub.cache import cached_folder
from sparsezo_gui.engine.hub.library import usable_code
from sparsezo_gui.engine.pretrained.limits import BeyondModel, Limits, limits_of
from sparsezo_gui.engine.pretrained.places import local_folder
from sparsezo_gui.engine.pretrained.source import read_config
from sparsezo_gui.engine.pretrained.spec import spec
from sparsezo_gui.engine.pretrained.tokenizer import load_tokenizer
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.events import Progress
from sparsezo_gui.recipe.recipe import DataTable, ModelTable


def folder(table: ModelTable) -> Path | None:
    """The model's folder on this computer. Raises `UserError`."""
    return local_folder(table.id) or cached_folder(table)


_last: dict[Any, TaskData | None] = {}  # data requested last


def data(table: DataTable, model: ModelTable) -> Generator[Progress, None, TaskData | None]:
    """The encoded data, if it and the tokenizer are available and valid; errors in it are reported elsewhere."""
    known, _ = tokenizer(model)
    key = table.model_dump_json(), _changed(table.source), known
    if key in _last:
        return _last[key]
    try:
        found = (yield from load_task(table, known, limits(model))) if known else None
    except BeyondModel:
        raise
    except UserError:
        return None
    _last.clear()
    _last[key] = found
    return found


def _changed(source: str) -> tuple[tuple[str, int, int], ...]:
    """Modification times of a local source's files, so that changed ones are read again: that of a folder does not
    change when its files are written."""
    paths = sorted(map(str, Path(source).glob("*"))) if os.path.isdir(source) else [source]
    found = [(path, os.stat(path)) for path in paths if os.path.isfile(path)]
    return tuple((path, about.st_mtime_ns, about.st_size) for path, about in found)


@lru_cache(maxsize=2)
def _cached_limits(folder: Path, code: Any) -> Limits:
    config = read_config(folder, code)
    found = spec(config, code)
    return limits_of(folder, config, found.shapes, found.vocabulary)


def limits(table: ModelTable) -> Limits | None:
    """The model's limits, if they are known without loading it."""
    try:
        found = folder(table)
        return _cached_limits(found, usable_code(table, found)) if found else None
    except UserError:
        return None


_tokenizers: deque[Any] = deque(maxlen=2)  # used last, which are not loaded again


def tokenizer(table: ModelTable) -> tuple[Any, str]:
    """The model's tokenizer, or why it cannot be loaded; None and '' if it is not on this computer."""
    try:
        found = folder(table)
        used = load_tokenizer(found, usable_code(table, found)) if found else None
    except UserError as error:
        return None, str(error)
    if used is not None and all(used is not each for each in _tokenizers):
        _tokenizers.append(used)
    return used, ""
