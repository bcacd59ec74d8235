"""Starting a run: creates and locks its folder with the recipe in it, and removes it again if the start fails."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from sparsezo_gui.engine.drafts import is_old, new_folder
from sparsezo_gui.engine.files import cannot_write, make_folder, own, sync, write_text
from sparsezo_gui.engine.locks import held
from sparsezo_gui.engine.runs.folder import locked, runs_home
from sparsezo_gui.engine.runs.preparing import LOCK, LOCK_MARKER, RECIPE, is_start, may_be_start
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import Recipe, dump, load
from sparsezo_gui.untrusted import resolved


@contextmanager
def starting(recipe: Recipe, folder: Path | None = None) -> Iterator[tuple[Path, list[str]]]:
    """Creates and locks the folder of a new run, and writes its recipe; yields the folder, and sentences on what its
    disk does not support.

    It is ``folder``, or the recipe's own, or a dated one in the runs folder. If the start fails, its files are removed
    again; if it is interrupted, they stay, and `restarting` prepares the run again. Raises `UserError` if the folder is
    taken.
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
                write_text(path / RECIPE, dump(_named(recipe, path)))
                yield path, lock.weaker
            except Exception:
                lock.forget = _remove_start(path)
                raise
    finally:
        if made and lock and lock.forget:
            with suppress(OSError):
                path.rmdir()


@contextmanager
def restarting(path: Path) -> Iterator[tuple[Recipe, list[str]]]:
    """Locks a start whose preparation was interrupted; yields its recipe, and sentences as `starting` does. Raises
    `UserError`."""
    with locked(path) as lock:
        if not is_start(path):  # by the process that held the lock before
            raise UserError(f"{path}: was prepared by another window or terminal meanwhile. Resume it again.")
        yield load(path / RECIPE), lock.weaker


def _named(recipe: Recipe, path: Path) -> Recipe:
    """The recipe with the name that its run gets."""
    return recipe.model_copy(update={"run": recipe.run.model_copy(update={"name": recipe.run.name or path.name})})


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
    if path.is_file() or (path.is_dir() and not may_be_start(path)):
        resume = shlex.join(["sparsezo", "resume", str(path)])
        raise UserError(f"{path}: already exists. Choose a new folder, or resume that run: {resume}")


def _remove_start(path: Path) -> bool:
    """Removes all files of a failed start except the lock, which the caller must hold. Returns whether it did."""
    if not path.is_dir() or not may_be_start(path):
        return False
    for name in set(os.listdir(path)) - {LOCK, LOCK_MARKER}:
        with suppress(OSError):
            (path / name).unlink()
    return True


def sweep_starts(folder: Path) -> None:
    """Removes reserved names that killed processes left in ``folder``."""
    with suppress(OSError), os.scandir(folder) as entries:
        for path in [Path(entry.path) for entry in entries if is_old(entry)]:
            with suppress(OSError):
                if is_start(path) or not may_be_start(path):
                    continue
                if (path / LOCK).exists():
                    with held(path / LOCK) as lock:
                        lock.forget = _remove_start(path)
                path.rmdir()
