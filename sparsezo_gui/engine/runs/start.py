"""Starting a run: creates and locks its folder, and removes it again if the start fails."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from sparsezo_gui.engine.drafts import is_old, new_folder
from sparsezo_gui.engine.files import cannot_write, make_folder, own, sync
from sparsezo_gui.engine.locks import held
from sparsezo_gui.engine.runs.folder import LOCK, LOCK_MARKER, TEMPORARY, locked, runs_home
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.untrusted import resolved

OF_START = ("mask.safetensors", "recipe.toml", LOCK, LOCK_MARKER)  # files from before the run exists


@contextmanager
def starting(recipe: Recipe, folder: Path | None = None) -> Iterator[tuple[Path, list[str]]]:
    """Creates and locks the folder of a new run; yields it and sentences on what its disk does not support.

    It is ``folder``, or the recipe's own, or a dated one in the runs folder. If the start fails, its files are removed
    again. Raises `UserError` if the folder is taken.
    """
    chosen = folder or (Path(recipe.run.folder) if recipe.run.folder else None)
    try:
        if chosen is None:
            sweep_starts(runs_home())
            path, made = new_folder(runs_home(), f"{recipe.run.name or 'run'}-{datetime.now():%Y%m%d-%H%M%S}"), True
        else:
            path, made = _make(chosen)
    except OSError as error:
        raise cannot_write(chosen or runs_home(), error) from error
    lock = None
    try:
        with locked(path) as lock:
            _refuse_taken(path)  # by the process that held the lock before
            own(path)
            sync(path)  # a lock file on disk marks the other files as ours, not the user's
            try:
                yield path, lock.weaker
            finally:
                lock.forget = _remove_start(path)
    finally:
        if made and lock and lock.forget:
            with suppress(OSError):
                path.rmdir()


def _make(folder: Path) -> tuple[Path, bool]:
    """The full path of the folder, and whether it is new."""
    path = resolved(folder)
    _refuse_taken(path)
    make_folder(path.parent)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        return path, False
    return path, True


def _refuse_taken(path: Path) -> None:
    """Raises `UserError` if the folder has any files except those that a killed start leaves behind."""
    if path.is_file() or (path.is_dir() and not _is_start(path)):
        resume = shlex.join(["sparsezo", "resume", str(path)])
        raise UserError(f"{path}: already exists. Choose a new folder, or resume that run: {resume}")


def _is_start(path: Path) -> bool:
    """Whether all files in the folder could be left over from a killed start, which creates its empty lock file
    first."""
    names = os.listdir(path)
    if not names:
        return True
    if LOCK not in names or (path / LOCK).stat().st_size:
        return False
    return all(name in OF_START or TEMPORARY.fullmatch(name) for name in names)


def _remove_start(path: Path) -> bool:
    """Removes all files of a failed start except the lock, which the caller must hold. Returns whether it did."""
    if not path.is_dir() or not _is_start(path):
        return False
    for name in set(os.listdir(path)) - {LOCK, LOCK_MARKER}:
        with suppress(OSError):
            (path / name).unlink()
    return True


def sweep_starts(folder: Path) -> None:
    """Removes failed starts and reserved names that killed processes left in ``folder``."""
    with suppress(OSError), os.scandir(folder) as entries:
        for path in [Path(entry.path) for entry in entries if is_old(entry)]:
            with suppress(OSError):
                if not _is_start(path):
                    continue
                if (path / LOCK).exists():
                    with held(path / LOCK) as lock:
                        lock.forget = _remove_start(path)
                path.rmdir()
