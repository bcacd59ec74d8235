"""Locks between processes, on every disk: the system's, or a file that names its holder if the disk has none.

The system's lock (flock or similar) is on a file that stays, and is released however its holder ends. Network and USB
disks may not support it. There the holder makes a second file, ``NAME.pid``, with its process, computer and start time;
this is weaker, since a computer cannot tell whether a process on another one still runs.
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
    """A lock held by this process. ``weaker`` says what its disk cannot do; ``forget`` is set to remove the lock's file
    as well."""

    weaker: list[str] = field(default_factory=list)
    forget: bool = False


@contextmanager
def held(path: Path, seconds: float = 0.0) -> Iterator[Lock]:
    """Inside, no other process holds ``path``. Raises `filelock.Timeout` after ``seconds``, and OSError."""
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
        # cannot remove an open file, so there the order is reversed.)
        if found.forget and os.name != "nt":
            path.unlink(missing_ok=True)
        lock.release()
        if found.forget and os.name == "nt":
            with suppress(OSError):
                path.unlink(missing_ok=True)


def is_held(path: Path) -> bool:
    """Whether a process holds ``path``. Writes nothing if the disk has locks, so it works on read-only disks."""
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
    except OSError:  # on a read-only disk
        return False
