"""Files that are never half-written (a temporary name, a sync, a rename), and that their owner alone can read.

Runs, exports and shared runs tell of the data that they were made with, so nobody else on the computer reads them
unless the owner lets them, whatever the umask says: files are made with the mode 0600 and folders with 0700. Asking for
it when they are made, rather than afterwards, leaves no moment in between, and works where a disk knows no chmod.
"""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import platformdirs
from safetensors import SafetensorError

from sparsezo_gui.border import resolved
from sparsezo_gui.errors import DiskFull, UserError

# What a file system answers that lacks a service; which of them is a matter of the file system.
UNSUPPORTED = frozenset((errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY))
_NO_SYNC = UNSUPPORTED | {errno.EBADF, errno.EACCES, errno.EPERM, errno.EISDIR}  # of a folder, which not all can open
_NO_CHMOD = UNSUPPORTED | {errno.EPERM, errno.EACCES}


def home() -> Path:
    """Folder of all that the program keeps: ``$SPARSEZO_HOME``, or the user's data folder."""
    chosen = os.environ.get("SPARSEZO_HOME")
    return Path(chosen) if chosen else Path(platformdirs.user_data_dir("sparsezo", appauthor=False))


def make_folder(path: Path) -> None:
    """Makes a folder, and those that it lies in, where they are not there yet; new ones for their owner alone."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)


def private(path: str, flags: int) -> int:
    """For ``open(…, opener=private)``: a new file is for its owner alone."""
    return os.open(path, flags, 0o600)


def own(path: Path) -> None:
    """Takes what others made or made before from all but its owner, on disks that can."""
    set_mode(path, 0o700 if path.is_dir() else 0o600)


@contextmanager
def replacing(path: Path, new: bool = False) -> Iterator[Path]:
    """Gives a temporary path beside ``path``; on success it is synced and takes its place, on failure it is removed.

    A ``new`` file takes no other's place: where there is one by then, UserError is raised.
    """
    try:
        make_folder(path.parent)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        sync(temporary)
        (_put_new if new else os.replace)(temporary, path)
        sync(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))  # it wraps what the system said into its words
        raise cannot_write(path, OSError(int(number[1]) if number else errno.EIO, str(error))) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes ``text`` as UTF-8, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def open_plain(path: Path) -> BinaryIO:
    """Opens a file for reading. Raises OSError, also where it is a pipe or a device, for which a reader would wait."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is not a file", str(path))
    return path.open("rb")


def refuse_links(folder: Path, files: Iterable[Path]) -> None:
    """Raises `UserError` for one of the ``files`` that lies outside of ``folder`` because it, or its folder, is a link.

    A folder that was passed on could hold a link to a file of the user's own, and an export would carry that away. In
    a Hugging Face cache the files of a snapshot are links to blobs, of the repository or of the whole cache.
    """
    top = resolved(folder)
    homes = [parent.parent for parent in top.parents if parent.name == "snapshots"]
    roots = (top, *(place / "blobs" for home in homes for place in (home, home.parent)))
    for path in files:
        target = resolved(path)
        if not any(target.is_relative_to(root) for root in roots):
            raise UserError(f"{path}: is a link out of its folder, to {target}. Put the file itself there.")


def _put_new(temporary: Path, path: Path) -> None:
    """Gives a file its name where nothing has it."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise already_exists(path) from None
    except OSError:  # a disk without hard links; a moment is left in which another could take the name
        if path.exists():
            raise already_exists(path) from None
        os.replace(temporary, path)


def already_exists(path: Path) -> UserError:
    """The sentence for a name that is taken."""
    return UserError(f"{path}: already exists. Choose another name.")


def sync(path: Path) -> bool:
    """Brings a file or folder to the disk; whether it could. Windows and some file systems cannot sync folders: there a
    rename has to be enough."""
    if path.is_dir():
        return os.name != "nt" and _sync_folder(path)
    handle = os.open(path, os.O_RDWR)
    try:
        return sync_open(handle)
    finally:
        os.close(handle)


def _sync_folder(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
        return False
    return True


def sync_open(handle: int) -> bool:
    """Brings what was written to ``handle`` to the disk; whether the file system has a way to."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        return False
    return True


def set_mode(path: Path, mode: int) -> bool:
    """Sets who may read and write ``path``; whether the file system knows such a thing."""
    try:
        path.chmod(mode)
    except OSError as error:
        if error.errno not in _NO_CHMOD:
            raise
        return False
    return True


def write_all(file: BinaryIO, content: bytes) -> None:
    """Writes all of ``content`` to an unbuffered file. Raises the OSError that says why not."""
    left = memoryview(content)
    while left:
        written = file.write(left)
        if not written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left = left[written:]


def cannot_write(path: Path, error: OSError) -> UserError:
    """The sentence for a failed write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"{path}: the disk is full. Free some space and try again; nothing half-written was left.")
    if error.errno == errno.EFBIG:
        return UserError(
            f"{path}: a file cannot be that large here, because of the disk's format (FAT32: 4 GiB) or 'ulimit -f'. "
            "Raise the limit or choose another disk; nothing half-written was left."
        )
    return UserError(f"{path}: cannot be written ({error.strerror}). Choose another place or change its permissions.")
