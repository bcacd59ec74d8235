"""Files that are never half-written (temporary name, sync, rename), and that only their owner can read.

Runs, exports and shared runs reveal the data they were made with, so other users of the computer cannot read them
unless the owner allows it, whatever the umask: files get the mode 0600 and folders 0700. Setting the mode at creation,
rather than afterwards, leaves no gap, and works on disks without chmod.
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

from sparsezo_gui.errors import DiskFull, UserError
from sparsezo_gui.names import free
from sparsezo_gui.untrusted import resolved

# Error codes of file systems that lack an operation; which one depends on the file system.
UNSUPPORTED = frozenset((errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY))
_NO_SYNC = UNSUPPORTED | {errno.EBADF, errno.EACCES, errno.EPERM, errno.EISDIR}  # not all systems can open folders
_NO_CHMOD = UNSUPPORTED | {errno.EPERM, errno.EACCES}


def home() -> Path:
    """Folder of all the program's data: ``$SPARSEZO_HOME``, or the user's data folder."""
    chosen = os.environ.get("SPARSEZO_HOME")
    return Path(chosen) if chosen else Path(platformdirs.user_data_dir("sparsezo", appauthor=False))


def make_folder(path: Path) -> None:
    """Makes a folder and its missing parents; new ones are private to their owner."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)


def private(path: str, flags: int) -> int:
    """For ``open(…, opener=private)``: a new file is private to its owner."""
    return os.open(path, flags, 0o600)


def own(path: Path) -> None:
    """Makes existing files private to their owner, on disks that support it."""
    set_mode(path, 0o700 if path.is_dir() else 0o600)


@contextmanager
def replacing(path: Path, new: bool = False) -> Iterator[Path]:
    """Yields a temporary path next to ``path``; on success it is synced and replaces ``path``, else it is removed.

    A ``new`` file never replaces another: if there is one by then, raises UserError.
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
        number = re.search(r"os error (\d+)", str(error))  # the library wraps the system's error in its own message
        raise cannot_write(path, OSError(int(number[1]) if number else errno.EIO, str(error))) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes ``text`` as UTF-8, completely or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def open_plain(path: Path) -> BinaryIO:
    """Opens a file for reading. Raises OSError, also for a pipe or a device, which would block a reader."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is not a file", str(path))
    return path.open("rb")


def refuse_links(folder: Path, files: Iterable[Path]) -> None:
    """Raises `UserError` if one of the ``files`` is outside ``folder`` because it, or its folder, is a link.

    A folder from someone else could contain a link to one of the user's files, and an export would include that file.
    In a Hugging Face cache the files of a snapshot are links to blobs, of the repository or of the whole cache.
    """
    top = resolved(folder)
    homes = [parent.parent for parent in top.parents if parent.name == "snapshots"]
    roots = (top, *(place / "blobs" for home in homes for place in (home, home.parent)))
    for path in files:
        target = resolved(path)
        if not any(target.is_relative_to(root) for root in roots):
            raise UserError(f"{path}: links to a file outside its folder, {target}. Put the file itself there.")


def _put_new(temporary: Path, path: Path) -> None:
    """Gives a file its name unless it is taken."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise already_exists(path) from None
    except OSError:  # a disk without hard links; another process could take the name in between
        if path.exists():
            raise already_exists(path) from None
        os.replace(temporary, path)


def already_exists(path: Path) -> UserError:
    """The error for a name that is taken."""
    return UserError(f"{path}: already exists. Choose another name, such as '{free(path).name}'.")


def sync(path: Path) -> bool:
    """Syncs a file or folder to the disk; returns whether it could. Windows and some file systems cannot sync folders;
    the rename has to suffice there."""
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
    """Syncs ``handle`` to the disk; returns whether the file system can."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        return False
    return True


def set_mode(path: Path, mode: int) -> bool:
    """Sets the permissions of ``path``; returns whether the file system supports them."""
    try:
        path.chmod(mode)
    except OSError as error:
        if error.errno not in _NO_CHMOD:
            raise
        return False
    return True


def write_all(file: BinaryIO, content: bytes) -> None:
    """Writes all of ``content`` to an unbuffered file. Raises OSError."""
    left = memoryview(content)
    while left:
        written = file.write(left)
        if not written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left = left[written:]


def cannot_write(path: Path, error: OSError) -> UserError:
    """The error for a failed write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"{path}: the disk is full. Free some space and try again; no partial file was left.")
    if error.errno == errno.EFBIG:
        return UserError(
            f"{path}: the file is too large for the disk's format (FAT32: 4 GiB) or the limit set by 'ulimit -f'. "
            "Raise the limit or choose another disk; no partial file was left."
        )
    return UserError(f"{path}: cannot be written ({error.strerror}). Choose another place or change its permissions.")
