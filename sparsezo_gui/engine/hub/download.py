"""Downloads from the Hub into the Hugging Face cache: resumed when interrupted, checked when complete.

The Hub's own client restarts an unfinished file, which can cost hours on a slow connection, and compares only sizes. So
files are downloaded here, with its HTTP session and into its cache layout: ``blobs`` contains contents by hash, named
``HASH.incomplete`` until they are complete and checked, and ``snapshots/COMMIT`` links to them by file name.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import filelock
import huggingface_hub
from huggingface_hub import constants
from huggingface_hub import errors as hub
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from sparsezo_gui.engine.files import sync, write_text
from sparsezo_gui.engine.hub.refusals import BUSY
from sparsezo_gui.engine.locks import held
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.events import Progress
from sparsezo_gui.sizes import size

WAITS = (1.0, 1.0, 2.0, 4.0, 8.0)  # seconds before each retry, as long as no byte arrives
PROGRESS_EVERY = 0.1  # seconds between progress events
SPARE = 256 * 2**20  # bytes that stay free on the disk after a download
T = TypeVar("T")


@dataclass(frozen=True)
class HubFile:
    """A file on the Hub; ``hash`` is the SHA-256 of a large file's content, and git's SHA-1 of a small one."""

    name: str
    size: int
    hash: str


@dataclass(frozen=True)
class Snapshot:
    """One commit of a repository on the Hub, and its location in the cache. ``token`` is sent with each request."""

    id: str
    commit: str
    token: str | None = field(default=None, repr=False)
    kind: str = "model"
    """'model' or 'dataset'."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w{1,100}", self.commit, re.ASCII):
            raise UserError(f"{constants.ENDPOINT} does not say which commit of '{self.id}' it has. Unset HF_ENDPOINT.")

    @property
    def noun(self) -> str:
        """'model' or 'data set'."""
        return "data set" if self.kind == "dataset" else "model"

    @property
    def storage(self) -> Path:
        """Folder of all its commits."""
        return Path(constants.HF_HUB_CACHE) / self._key

    @property
    def folder(self) -> Path:
        """Folder of this commit's files."""
        return self.storage / "snapshots" / self.commit

    @property
    def _key(self) -> str:
        return repo_folder_name(repo_id=self.id, repo_type=self.kind)

    def missing(self, file: HubFile) -> int:
        """Bytes of ``file`` that are missing on this computer."""
        if (self.folder / file.name).exists() or self._blob(file).exists():
            return 0
        return max(file.size - _size(self._part(file)), 0)

    def fetch(self, file: HubFile) -> Generator[int, None, None]:
        """Downloads ``file``, yielding the bytes that it has so far. Closing the generator keeps the partial file.

        Raises `UserError` for a wrong checksum, after removing the file, and the errors of the Hub's client.
        """
        if (self.folder / file.name).exists():
            return
        with self._locked(file):
            if not self._blob(file).exists():
                yield from self._receive(file)
            _link(self._blob(file), self.folder / file.name)

    def note(self, revision: str) -> None:
        """Records in the cache that ``revision`` (a branch or tag) is this commit, so that it is found offline."""
        refs = self.storage / "refs"
        path = refs / revision
        if revision != self.commit and path.is_relative_to(refs) and ".." not in path.parts:
            write_text(path, self.commit)

    def _blob(self, file: HubFile) -> Path:
        return self.storage / "blobs" / file.hash

    def _part(self, file: HubFile) -> Path:
        return self.storage / "blobs" / f"{file.hash}.incomplete"

    @contextmanager
    def _locked(self, file: HubFile) -> Iterator[None]:
        path = Path(constants.HF_HUB_CACHE) / ".locks" / self._key / f"{file.hash}.lock"  # as the client does
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with held(path):
                yield
        except filelock.Timeout as error:
            raise UserError(
                f"'{file.name}' of '{self.id}' is being downloaded by another program. Wait until that "
                "has finished, then start again."
            ) from error

    def _receive(self, file: HubFile) -> Generator[int, None, None]:
        part = self._part(file)
        part.parent.mkdir(parents=True, exist_ok=True)
        url = huggingface_hub.hf_hub_url(self.id, file.name, repo_type=self.kind, revision=self.commit)
        yield from _complete(part, url, build_hf_headers(token=self.token), file.size)
        part.touch()  # a file may be empty
        if not (yield from _is_right(part, file)):
            part.unlink()
            raise UserError(
                f"'{file.name}' of '{self.id}' was damaged during download: its checksum is wrong. It was "
                "removed; start again. If that does not help, a proxy or virus scanner may be changing "
                "downloads."
            )
        sync(part)
        os.replace(part, self._blob(file))


def hub_file(sibling: RepoSibling) -> HubFile:
    """The file with its size and checksum. Raises `UserError` if the Hub does not provide them."""
    hash = (sibling.lfs.sha256 if sibling.lfs else sibling.blob_id) or ""
    if sibling.size is None or not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", hash):
        raise UserError(
            f"{constants.ENDPOINT} does not provide size and checksum of '{sibling.rfilename}', so it is not a full "
            "mirror of the Hub. Unset HF_ENDPOINT, or download the files with another program and choose their folder."
        )
    return HubFile(sibling.rfilename, sibling.size, hash)


def check_download_room(snapshot: Snapshot, needed: int) -> None:
    """Raises `UserError` if ``needed`` bytes do not fit on the disk of the Hugging Face cache."""
    place = Path(constants.HF_HUB_CACHE)
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed and needed + SPARE > free:
        raise UserError(
            f"'{snapshot.id}' needs {size(needed)} on the disk of {place}, but only {size(free)} are "
            "free. Free some space, or set HF_HOME to a folder on another disk."
        )


def fetch_all(snapshot: Snapshot, files: Iterable[HubFile], done: int, total: int) -> Generator[Progress, None, int]:
    """Downloads ``files``; progress counts from ``done`` bytes of ``total``. Returns the bytes done afterwards."""
    for file in files:
        with closing(snapshot.fetch(file)) as work:
            for have in work:
                yield Progress(f"Downloading the {snapshot.noun}", done + have, total, "bytes")
        done += file.size
    return done


def patiently(call: Callable[[], T], waiting: Progress) -> Generator[Progress, None, T]:
    """Result of ``call``; retries while the Hub is busy, and yields ``waiting`` meanwhile."""
    for wait in WAITS:
        try:
            return call()
        except hub.HfHubHTTPError as error:
            if not _passes(error):
                raise
        for _ in _pause(wait):
            yield waiting
    return call()


def _complete(part: Path, url: str, headers: dict[str, str], size: int) -> Generator[int, None, None]:
    """Appends to ``part`` until it has ``size`` bytes, with as many connections as needed."""
    fruitless = 0
    while (have := _size(part)) < size:
        try:
            yield from _append(part, url, headers, size)
        except hub.HTTPError as error:  # the connection broke, or the Hub refuses
            fruitless = 0 if _size(part) > have else fruitless + 1
            if not _passes(error) or fruitless == len(WAITS):
                raise
            for _ in _pause(WAITS[fruitless]):
                yield _size(part)


def _append(part: Path, url: str, headers: dict[str, str], size: int) -> Generator[int, None, None]:
    """Downloads the missing bytes of ``part`` over one connection. Raises if some are still missing."""
    headers = {**headers, "Accept-Encoding": "identity", "Range": f"bytes={_size(part)}-"}
    with get_session().stream("GET", url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT) as response:
        hf_raise_for_status(response)
        with open(part, "wb" if response.status_code == 200 else "ab") as out:  # 200: ranges are not supported
            reported = 0.0
            for chunk in response.iter_bytes():
                out.write(chunk)
                if out.tell() > size:  # not what the Hub announced: refused by its checksum
                    break
                if time.monotonic() - reported > PROGRESS_EVERY:
                    reported = time.monotonic()
                    yield out.tell()
    if _size(part) < size:
        raise hub.HTTPError("the connection ended early")


def _passes(error: hub.HTTPError) -> bool:
    """Whether the error may be temporary."""
    return not isinstance(error, hub.HfHubHTTPError) or error.response.status_code in BUSY


def _is_right(part: Path, file: HubFile) -> Generator[int, None, bool]:
    """Whether the content has the hash from the Hub."""
    digest = _digest(file.hash, file.size)
    with open(part, "rb") as content:
        while chunk := content.read(2**24):
            digest.update(chunk)
            yield file.size
    return bool(digest.hexdigest() == file.hash)


def _digest(like: str, size: int) -> Any:
    """A new digest of the same kind as the hash ``like``: SHA-256, or git's SHA-1 for a content of ``size`` bytes."""
    return hashlib.sha256() if len(like) == 64 else hashlib.sha1(b"blob %d\0" % size)


def remove_damaged(id: str, since: float) -> bool:
    """Removes files of the data set ``id`` that were downloaded after ``since`` (seconds since 1970) and whose content
    does not match the hash in their name; returns whether there were any. The libraries that download data sets compare
    only sizes."""
    storage = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=id, repo_type="dataset")
    blobs = [blob for blob in (storage / "blobs").glob("*") if len(blob.name) in (40, 64)]
    wrong = [blob for blob in blobs if blob.stat().st_mtime >= since and not _matches_name(blob)]
    for path in (*wrong, *(storage / "snapshots").rglob("*")):
        if path in wrong or (path.is_symlink() and not path.exists()):
            path.unlink()
    return bool(wrong)


def _matches_name(blob: Path) -> bool:
    with blob.open("rb") as content:
        return hashlib.file_digest(content, lambda: _digest(blob.name, _size(blob))).hexdigest() == blob.name


def _link(blob: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # a link to removed content
    try:
        path.symlink_to(os.path.relpath(blob, path.parent))
    except OSError:  # Windows allows links only to developers
        os.replace(blob, path)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _pause(seconds: float) -> Generator[None, None, None]:
    """Waits, yielding often enough to be interrupted."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(min(PROGRESS_EVERY, seconds))
