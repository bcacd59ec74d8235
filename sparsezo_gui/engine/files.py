"""Files that are never half-written: a temporary name, a sync, a rename."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs
from safetensors import SafetensorError

from sparsezo_gui.border import resolved
from sparsezo_gui.errors import DiskFull, UserError


def home() -> Path:
    """Folder of all that the program keeps: ``$SPARSEZO_HOME``, or the user's data folder."""
    chosen = os.environ.get("SPARSEZO_HOME")
    return Path(chosen) if chosen else Path(platformdirs.user_data_dir("sparsezo", appauthor=False))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside ``path``; on success it is synced and takes its place, on failure it is removed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        sync(temporary)
        # mkstemp's 0600 would hide an export from the user's other programs.
        temporary.chmod(0o666 & ~_umask())
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
    top = resolved(folder)
    homes = [parent.parent for parent in top.parents if parent.name == "snapshots"]
    roots = (top, *(place / "blobs" for home in homes for place in (home, home.parent)))
    for path in files:
        target = resolved(path)
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


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
