"""Deletes runs. What is deleted is told first, with its size."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from sparsezo_gui.answers import Removable
from sparsezo_gui.engine.files import cannot_write, sync
from sparsezo_gui.engine.runs.folder import BRANCHES, find, locked
from sparsezo_gui.engine.runs.listing import is_run
from sparsezo_gui.engine.runs.preparing import LOCK, RECIPE
from sparsezo_gui.errors import UserError


def removable(folder: Path) -> Removable:
    """What deleting the run in ``folder`` removes. Raises `UserError` if it is no run."""
    path = _run(folder)
    size = branches = 0
    for place, folders, files in os.walk(path):  # does not follow links
        if Path(place).name == BRANCHES:
            branches += sum(Path(place, each, "run.json").is_file() for each in folders)
        size += sum(os.lstat(Path(place, each)).st_size for each in files)
    return Removable(str(path), size, branches)


def remove(folder: Path) -> Removable:
    """Deletes the run in ``folder`` with its branches. Raises `UserError` if one of them is active, then deletes none.

    It stops being a run first, so that a deletion that is interrupted leaves no half of one in the list.
    """
    found = removable(folder)
    path = Path(found.path)
    for place in (path, *(each.parent for each in path.rglob(f"{BRANCHES}/*/run.json"))):
        if (place / LOCK).exists():
            with locked(place):
                pass
    try:
        hidden = path.with_name(f".{path.name}.deleted")
        path.rename(hidden)
        for name in ("run.json", RECIPE):
            (hidden / name).unlink(missing_ok=True)
        sync(path.parent)
        shutil.rmtree(hidden)
    except OSError as error:
        raise cannot_write(path, error) from error
    return found


def _run(folder: Path) -> Path:
    if folder.is_symlink():
        raise UserError(f"{folder}: a link to a run elsewhere. Delete the run there, or the link.")
    path = find(folder)
    if not is_run(path):
        raise UserError(f"{path}: not a run (it has no run.json). Choose a run folder.")
    return path
