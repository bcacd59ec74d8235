"""Downloads a data set from the Hub ahead of its use: resumed when interrupted, checked, and ready offline."""

from __future__ import annotations

import re
from collections.abc import Generator
from pathlib import PurePosixPath
from typing import Any

import huggingface_hub

from sparsezo_gui.answers import Downloaded
from sparsezo_gui.engine.data.background import in_background
from sparsezo_gui.engine.data.hub_data import hub_error, load, quiet_datasets
from sparsezo_gui.engine.hub.download import HubFile, Snapshot, check_download_room, fetch_all, hub_file
from sparsezo_gui.engine.hub.refusals import HUB_ERRORS, refusal
from sparsezo_gui.engine.hub.token import token
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.events import Progress

_LOOKING = Progress("Looking for the data set")


def download(source: str, revision: str = "main") -> Generator[Progress, None, Downloaded]:
    """Downloads what is missing of the data set ``source`` (owner/name or owner/name:configuration), and prepares it as
    `datasets` does, which then loads it offline. Closing the generator cancels, but keeps downloaded parts.

    Raises `UserError`.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+(:[\w.-]+)?", source):
        raise UserError(f"'{source}' is no data set on the Hub. Write owner/name or owner/name:configuration.")
    name, _, configuration = source.partition(":")
    try:
        snapshot, files = yield from in_background(lambda: _listing(name, configuration, revision), _LOOKING)
    except UserError:
        raise
    except Exception as error:  # as when it is loaded
        raise hub_error(name, error) from error
    try:
        missing, total = sum(map(snapshot.missing, files)), sum(file.size for file in files)
        check_download_room(snapshot, missing)
        yield from fetch_all(snapshot, files, 0, total)
        snapshot.note(revision)
    except HUB_ERRORS as error:
        raise refusal("data set", name, error, "use a local file") from error
    preparing = Progress("Preparing the data set")
    yield from in_background(lambda: load(name, configuration, revision=snapshot.commit), preparing)
    return Downloaded(source, snapshot.commit, str(snapshot.folder), total, missing)


def _listing(name: str, configuration: str, revision: str) -> tuple[Snapshot, list[HubFile]]:
    """The commit, and the files that `datasets` reads of it."""
    api, sent = huggingface_hub.HfApi(), token()
    info = api.dataset_info(name, revision=revision, files_metadata=True, token=sent)
    builder = quiet_datasets().load_dataset_builder(name, configuration or None, revision=info.sha, token=sent)
    wanted = {"README.md", *(_within(name, address) for part in _addresses(builder) for address in part)}
    files = [hub_file(each) for each in info.siblings or () if each.rfilename in wanted and _is_inside(each.rfilename)]
    return Snapshot(name, info.sha or "", sent, "dataset"), files


def _addresses(builder: Any) -> list[list[str]]:
    """The files of each split, such as hf://datasets/owner/name@commit/data/train.parquet."""
    return list((builder.config.data_files or {}).values())


def _within(name: str, address: str) -> str:
    return re.sub(rf"^hf://datasets/{re.escape(name)}(@[^/]+)?/", "", address)


def _is_inside(name: str) -> bool:
    """Whether a file of that name stays in its folder, on every system."""
    return not (PurePosixPath(name).is_absolute() or ".." in name.split("/") or re.search(r"[\\:]", name))
