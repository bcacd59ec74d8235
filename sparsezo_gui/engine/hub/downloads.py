"""What was downloaded from the Hub: lists it, and removes it with all its revisions, parts and prepared tables."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import filelock
from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name

from sparsezo_gui.answers import Cache
from sparsezo_gui.engine.locks import held
from sparsezo_gui.errors import UserError

KINDS = {"models": "model", "datasets": "data set"}


def downloads() -> list[Cache]:
    """Models and data sets in the Hugging Face cache, complete or not; the size of a data set has its tables."""
    listed = []
    for folder in sorted(Path(constants.HF_HUB_CACHE).glob("*--*")):
        kind, _, name = folder.name.partition("--")
        if kind in KINDS and folder.is_dir():
            with suppress(OSError):  # another process may remove it meanwhile
                if any(path.is_file() for path in folder.rglob("*")):
                    size = sum(map(_size, _places(folder)))
                    listed.append(
                        Cache(name.replace("--", "/"), KINDS[kind], size, folder.stat().st_mtime, str(folder))
                    )
    return listed


def named(id: str, dataset: bool) -> Cache:
    """The download of that name. Raises `UserError` if there is none."""
    kind = KINDS["datasets" if dataset else "models"]
    found = next((each for each in downloads() if (each.name, each.kind) == (id, kind)), None)
    if found is None:
        raise UserError(f"The {kind} '{id}' is not on this computer any more.")
    return found


def discard(id: str, dataset: bool) -> None:
    """Removes the incomplete parts of a download, if any."""
    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=id, repo_type="dataset" if dataset else "model")
    for part in (folder / "blobs").glob("*.incomplete"):
        with suppress(filelock.Timeout, OSError), held(folder.parent / ".locks" / folder.name / f"{part.stem}.lock"):
            part.unlink()


def remove_download(cache: Cache) -> None:
    """Removes a download. Raises `UserError` if it is in use or cannot be removed."""
    folder = Path(cache.path)
    locks = folder.parent / ".locks" / folder.name
    try:
        with ExitStack() as stack:
            for part in (folder / "blobs").glob("*.incomplete"):
                locks.mkdir(parents=True, exist_ok=True)
                stack.enter_context(held(locks / f"{part.stem}.lock"))
            for place in _places(folder):
                shutil.rmtree(place)
    except filelock.Timeout as error:
        raise UserError(f"'{cache.name}' is being downloaded. Stop that first.") from error
    except OSError as error:
        raise UserError(
            f"{error.filename}: cannot be removed ({error.strerror}). Close the programs that use it."
        ) from error
    shutil.rmtree(locks, ignore_errors=True)


def _places(folder: Path) -> Iterator[Path]:
    """Folders of a download: its files, and the tables that `datasets` made from them."""
    yield folder
    if folder.name.startswith("datasets--"):
        from datasets import config
        from datasets.naming import camelcase_to_snakecase

        *owner, name = folder.name.removeprefix("datasets--").split("--", 1)
        tables = Path(config.HF_DATASETS_CACHE) / "___".join([*owner, camelcase_to_snakecase(name)])
        if tables.is_dir():
            yield tables


def _size(folder: Path) -> int:
    """Bytes of its files; a link counts nothing, and what another process removes meanwhile."""
    found = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            found += path.lstat().st_size if path.is_file() and not path.is_symlink() else 0
    return found
