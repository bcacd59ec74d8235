"""The start of a run: its folder is made, locked, and taken away again where no run comes of it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from sparsezo_gui.border import resolved
from sparsezo_gui.engine.drafts import is_old, new_folder
from sparsezo_gui.engine.files import cannot_write, make_folder, own, sync
from sparsezo_gui.engine.locks import held
from sparsezo_gui.engine.runs.folder import LOCK, LOCK_MARKER, TEMPORARY, locked, runs_home
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import Recipe

OF_START = ("mask.safetensors", "recipe.toml", LOCK, LOCK_MARKER)  # what a start writes before there is a run


@contextmanager
def starting(recipe: Recipe, folder: Path | None = None) -> Iterator[tuple[Path, list[str]]]:
    """Within: the folder of a new run, which no other process writes, and what is weaker on its disk, in sentences.

    It is ``folder``, or the recipe's own, or a dated one among the runs. Where no run comes of it, what was written is
    removed again. Raises `UserError` where it is taken.
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
            _refuse_taken(path)  # by whom the lock was waited for
            own(path)
            sync(path)  # a lock that is there for sure tells what else is there from files of the user's
            try:
                yield path, lock.weaker
            finally:
                lock.forget = _remove_start(path)
    finally:
        if made and lock and lock.forget:
            with suppress(OSError):
                path.rmdir()


def _make(folder: Path) -> tuple[Path, bool]:
    """The folder's whole path, and whether it was made just now."""
    path = resolved(folder)
    _refuse_taken(path)
    make_folder(path.parent)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        return path, False
    return path, True


def _refuse_taken(path: Path) -> None:
    """Raises `UserError` for a folder that holds anything but what a start that was killed can have left."""
    if path.is_file() or (path.is_dir() and not _is_start(path)):
        resume = shlex.join(["sparsezo", "resume", str(path)])
        raise UserError(f"{path}: already exists. Name a new folder, or resume that run: {resume}")


def _is_start(path: Path) -> bool:
    """Whether a start that was killed before there was a run can have left all that is in the folder: its lock, which
    is an empty file, came first."""
    names = os.listdir(path)
    if not names:
        return True
    if LOCK not in names or (path / LOCK).stat().st_size:
        return False
    return all(name in OF_START or TEMPORARY.fullmatch(name) for name in names)


def _remove_start(path: Path) -> bool:
    """Removes all but the lock of a start that came to nothing; only for who holds the lock. Whether it did."""
    if not path.is_dir() or not _is_start(path):
        return False
    for name in set(os.listdir(path)) - {LOCK, LOCK_MARKER}:
        with suppress(OSError):
            (path / name).unlink()
    return True


def sweep_starts(folder: Path) -> None:
    """Removes the starts in ``folder`` that killed processes left, and the names that they had taken for one."""
    with suppress(OSError), os.scandir(folder) as entries:
        for path in [Path(entry.path) for entry in entries if is_old(entry)]:
            with suppress(OSError):
                if not _is_start(path):
                    continue
                if (path / LOCK).exists():
                    with held(path / LOCK) as lock:
                        lock.forget = _remove_start(path)
                path.rmdir()
