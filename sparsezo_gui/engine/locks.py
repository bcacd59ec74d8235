"""Locks between processes, on every disk: the system's, or a file that names its holder where the system has none.

The system's lock (flock, or the like of it) lies on a file that stays, and is freed when its holder ends in any way.
Network and USB disks can lack it. There the holder makes a second file, ``NAME.pid``, with its process, computer and
start time; it is weaker, since a computer cannot tell whether a process of another one is still there.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import filelock

from sparsezo_gui.engine.files import UNSUPPORTED

NO_LOCKS = UNSUPPORTED | {errno.ENOLCK}


@dataclass
class Lock:
    """A lock that this process holds. ``weaker`` says, in sentences, what its disk cannot do; ``forget`` is set where
    the lock's file is to go as well."""

    weaker: list[str] = field(default_factory=list)
    forget: bool = False


@contextmanager
def held(path: Path, seconds: float = 0.0) -> Iterator[Lock]:
    """Within: no other process holds ``path``. Raises `filelock.Timeout` after so many ``seconds``, and OSError."""
    lock, found = filelock.FileLock(path, timeout=seconds, fallback_to_soft=False, preserve_lock_file=True), Lock()
    try:
        lock.acquire()
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        lock = filelock.SoftFileLock(_marker(path), timeout=seconds)
        lock.acquire()
        found.weaker.append(
            f"The disk of {path.parent} has no file locks, so the file '{_marker(path).name}' replaces one. Do not "
            "write there from two computers at once. If another computer crashed while it wrote there, delete that "
            "file."
        )
    try:
        yield found
    finally:
        # Between a release and a removal another process could take the lock, and a third one make a new file. (Windows
        # removes no file that is open, so there it is the other way round.)
        if found.forget and os.name != "nt":
            path.unlink(missing_ok=True)
        lock.release()
        if found.forget and os.name == "nt":
            with suppress(OSError):
                path.unlink(missing_ok=True)


def is_held(path: Path) -> bool:
    """Whether a process holds ``path``. Writes nothing where the system has locks, so it can be asked of any disk."""
    try:
        file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return False
    try:
        return not filelock.lock_descriptor(file, blocking=False)
    except OSError:
        return _is_marked(_marker(path))
    finally:
        os.close(file)


def _marker(path: Path) -> Path:
    return path.with_name(path.name + ".pid")


def _is_marked(marker: Path) -> bool:
    if not marker.exists():
        return False
    try:
        with filelock.SoftFileLock(marker, timeout=0):
            return False
    except filelock.Timeout:
        return True
    except OSError:  # on a disk that nobody can write
        return False
