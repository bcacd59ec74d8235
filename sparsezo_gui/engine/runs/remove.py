"""Deletes runs. What is deleted is told first, with its size."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from sparsezo_gui.answers import Removable
from sparsezo_gui.engine.drafts import drafting
from sparsezo_gui.engine.files import cannot_write, sync
from sparsezo_gui.engine.runs.folder import BRANCHES, find, locked
from sparsezo_gui.engine.runs.listing import is_run
from sparsezo_gui.engine.runs.preparing import LOCK, RECIPE
from sparsezo_gui.errors import UserError


def removable(folder: Path) -> Removable:
    """What deleting the run in ``folder`` removes. Raises `UserError` if it is no run."""
    path = _run(folder)
    size = 0
    for place, _, files in os.walk(path):  # does not follow links
        for each in files:
            with suppress(FileNotFoundError):  # of an active run, a temporary file
                size += os.lstat(Path(place, each)).st_size
    return Removable(str(path), size, len(list(_branches(path))))


def remove(folder: Path) -> Removable:
    """Deletes the run in ``folder`` with its branches. Raises `UserError` if one of them is active, then deletes none.

    It becomes a draft first, so that a deletion that is interrupted leaves no half of one in the list, and is completed
    as those of drafts are.
    """
    found = removable(folder)
    path = Path(found.path)
    for place in (path, *_branches(path)):
        if (place / LOCK).exists():
            with locked(place):
                pass
    try:
        with drafting(path.parent) as draft:
            path.rename(draft / path.name)
            sync(draft)
            sync(path.parent)
            shutil.rmtree(draft / path.name)
    except OSError as error:
        raise cannot_write(path, error) from error
    return found


def _branches(run: Path) -> Iterator[Path]:
    """The branches of a run, and theirs."""
    for place, folders, _ in os.walk(run):  # does not follow links
        if Path(place).name == BRANCHES:
            found = (Path(place, each) for each in folders)
            yield from (each for each in found if is_run(each) and not each.is_symlink())


def _run(folder: Path) -> Path:
    if folder.is_symlink():
        raise UserError(f"{folder}: a link to a run elsewhere. Delete the run there, or the link.")
    path = find(folder)
    # Both files, as other programs also write a run.json, and all of the folder would be deleted.
    if not is_run(path) or not (path / RECIPE).is_file():
        raise UserError(f"{path}: not a run (it lacks run.json or {RECIPE}). Choose a run folder.")
    return path
