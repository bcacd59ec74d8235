"""Files that are never half-written (a temporary name, a sync, a rename), and that their owner alone can read.

Runs, exports and shared runs tell of the data that they were made with, so nobody else on the computer reads them
unless the owner lets them, whatever the umask says: files are made with the mode 0600 and folders with 0700. Asking for
it when they are made, rather than afterwards, leaves no moment in between, and works where a disk knows no chmod.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs
from safetensors import SafetensorError

from sparsezo_gui.errors import DiskFull, UserError


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
    with suppress(OSError):
        path.chmod(0o700 if path.is_dir() else 0o600)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside ``path``; on success it is synced and takes its place, on failure it is removed."""
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
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    except SafetensorError as error:
        # It wraps what the system said into its words, without the number.
        full = "No space left" in str(error) or "os error 28" in str(error)
        raise cannot_write(path, OSError(errno.ENOSPC if full else errno.EIO, str(error))) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes ``text`` as UTF-8, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def refuse_links(folder: Path, files: Iterable[Path]) -> None:
    """Raises `UserError` for one of the ``files`` that lies outside of ``folder`` because it, or its folder, is a link.

    A folder that was passed on could hold a link to a file of the user's own, and an export would carry that away. In
    a Hugging Face cache the files of a snapshot are links to blobs, of the repository or of the whole cache.
    """
    top = folder.resolve()
    homes = [parent.parent for parent in top.parents if parent.name == "snapshots"]
    roots = (top, *(place / "blobs" for home in homes for place in (home, home.parent)))
    for path in files:
        target = path.resolve()
        if not any(target.is_relative_to(root) for root in roots):
            raise UserError(f"{path}: is a link out of its folder, to {target}. Put the file itself there.")


def sync(path: Path) -> None:
    """Brings a file or folder to the disk; folders cannot be synced on Windows, where the rename is enough."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def cannot_write(path: Path, error: OSError) -> UserError:
    """The sentence for a failed write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"{path}: the disk is full. Free some space and try again; nothing half-written was left.")
    return UserError(f"{path}: cannot be written ({error.strerror}). Choose another place or change its permissions.")
