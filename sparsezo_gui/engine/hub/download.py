"""Downloads of a model from the Hub into the Hugging Face cache: resumed when interrupted, checked when complete.

The Hub's own client begins an unfinished file anew, which can cost hours of a laptop's line, and compares only sizes.
So the bytes come here, over its session and into its layout: ``blobs`` holds contents by their hash, as
``HASH.incomplete`` until they are whole and right, and ``snapshots/COMMIT`` links to them by their names.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import filelock
import huggingface_hub
from huggingface_hub import constants
from huggingface_hub import errors as hub
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from sparsezo_gui.engine.files import sync, write_text
from sparsezo_gui.engine.locks import held
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.events import Progress

WAITS = (1.0, 1.0, 2.0, 4.0, 8.0)  # seconds before each retry, as long as no byte arrives
BUSY = (408, 429, 500, 502, 503, 504)  # HTTP errors that may be temporary
TELL = 0.1  # seconds between progress events
T = TypeVar("T")


@dataclass(frozen=True)
class HubFile:
    """``hash`` is the sha256 of a large file's content; of a small one the sha1 that git gives it."""

    name: str
    size: int
    hash: str


@dataclass(frozen=True)
class Snapshot:
    """One commit of a model on the Hub, and its place in the cache. ``token`` is sent when a file is asked for."""

    id: str
    commit: str
    token: str | None = field(default=None, repr=False)

    @property
    def storage(self) -> Path:
        """Folder of all commits of the model."""
        return Path(constants.HF_HUB_CACHE) / self._key

    @property
    def folder(self) -> Path:
        """Folder of this commit's files."""
        return self.storage / "snapshots" / self.commit

    @property
    def _key(self) -> str:
        return repo_folder_name(repo_id=self.id, repo_type="model")

    def missing(self, file: HubFile) -> int:
        """Bytes of ``file`` that are missing on this computer."""
        if (self.folder / file.name).exists() or self._blob(file).exists():
            return 0
        return max(file.size - _size(self._part(file)), 0)

    def fetch(self, file: HubFile) -> Generator[int, None, None]:
        """Downloads ``file``, yielding how many bytes it has. Closing this keeps the part that has arrived.

        Raises `UserError` for a wrong content, which is removed, and whatever the Hub's client raises.
        """
        if (self.folder / file.name).exists():
            return
        with self._locked(file):
            if not self._blob(file).exists():
                yield from self._receive(file)
            _link(self._blob(file), self.folder / file.name)

    def note(self, revision: str) -> None:
        """Notes in the cache which commit ``revision`` (a branch or tag) is, so that it is found without the Hub."""
        if revision != self.commit:
            write_text(self.storage / "refs" / revision, self.commit)

    def _blob(self, file: HubFile) -> Path:
        return self.storage / "blobs" / file.hash

    def _part(self, file: HubFile) -> Path:
        return self.storage / "blobs" / f"{file.hash}.incomplete"

    @contextmanager
    def _locked(self, file: HubFile) -> Iterator[None]:
        path = Path(constants.HF_HUB_CACHE) / ".locks" / self._key / f"{file.hash}.lock"  # where the client has it
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
        url = huggingface_hub.hf_hub_url(self.id, file.name, revision=self.commit)
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
        except hub.HTTPError as error:  # the line broke, or the Hub refuses
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
            told = 0.0
            for chunk in response.iter_bytes():
                out.write(chunk)
                if time.monotonic() - told > TELL:
                    told = time.monotonic()
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
    """Computes a hash such as ``like``: the sha256 of a content, or the sha1 that git gives one of ``size`` bytes."""
    return hashlib.sha256() if len(like) == 64 else hashlib.sha1(b"blob %d\0" % size)


def remove_damaged(id: str, since: float) -> bool:
    """Removes what came of the data set ``id`` after ``since`` (seconds since 1970) with another content than the hash
    says that it is called by; whether there was any. The libraries that fetch data sets compare only sizes."""
    storage = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=id, repo_type="dataset")
    came = [blob for blob in (storage / "blobs").glob("*") if len(blob.name) in (40, 64)]
    wrong = [blob for blob in came if blob.stat().st_mtime >= since and not _is_named_right(blob)]
    for path in (*wrong, *(storage / "snapshots").rglob("*")):
        if path in wrong or (path.is_symlink() and not path.exists()):
            path.unlink()
    return bool(wrong)


def _is_named_right(blob: Path) -> bool:
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
        time.sleep(min(TELL, seconds))
