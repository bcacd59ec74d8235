"""Folders that appear complete or not at all: built next to their target under a lock, then renamed.

A draft is a folder ``.sparsezo-XXXXXXXX`` with a ``lock``, held by its creator, and the ``content``, which gets the
final name. Drafts left by killed processes are removed when the next draft is made in the same folder, or the runs
there are listed: nobody holds their lock, and they are older than the time between creating a folder and locking it.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sparsezo_gui.engine.files import already_exists, make_folder, sync
from sparsezo_gui.engine.locks import held

PREFIX = ".sparsezo-"
AGE = 600.0  # seconds before an unlocked draft is removed
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EACCES if os.name == "nt" else errno.EEXIST)


@contextmanager
def drafting(parent: Path) -> Iterator[Path]:
    """Yields a new folder in ``parent``, which the caller renames with `publish`; otherwise it is removed.

    Raises OSError.
    """
    make_folder(parent)
    sweep(parent)
    draft = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    try:
        with held(draft / "lock"):
            (draft / "content").mkdir(mode=0o700)
            try:
                yield draft / "content"
            finally:
                shutil.rmtree(draft / "content", ignore_errors=True)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def publish(content: Path, target: Path) -> None:
    """Renames a draft's content, whose files are synced, to ``target``, which must not exist or be an empty folder.

    Raises `UserError` if another process was faster, and OSError.
    """
    try:
        for folder in (content, *filter(Path.is_dir, content.rglob("*"))):
            sync(folder)
        if os.name == "nt" and target.is_dir():  # where nothing can be renamed over a folder, not even an empty one
            target.rmdir()
        os.rename(content, target)
    except OSError as error:
        if error.errno in _TAKEN:
            raise already_exists(target) from None
        raise
    for folder in (target.parent, target.parent.parent):  # the first may be new as well
        sync(folder)


def new_folder(folder: Path, name: str) -> Path:
    """Makes a folder in ``folder``, for this process alone: named ``name`` as far as file names allow, with -2, -3, …
    if that is taken."""
    make_folder(folder)
    stem, number = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "run", 1
    while True:
        path = folder / (stem if number == 1 else f"{stem}-{number}")
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            number += 1
        else:
            return path


def sweep(folder: Path) -> None:
    """Removes drafts of killed processes in ``folder``."""
    with suppress(OSError), os.scandir(folder) as entries:
        for path in [Path(entry.path) for entry in entries if entry.name.startswith(PREFIX) and is_old(entry)]:
            with suppress(OSError):
                with held(path / "lock") as lock:
                    shutil.rmtree(path / "content", ignore_errors=True)
                    lock.forget = True
                path.rmdir()


def is_old(entry: os.DirEntry[str]) -> bool:
    """Whether this is a folder old enough that its creator, if still running, holds its lock."""
    try:
        return entry.is_dir(follow_symlinks=False) and time.time() - entry.stat(follow_symlinks=False).st_mtime > AGE
    except OSError:  # gone meanwhile
        return False
