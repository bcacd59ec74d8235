"""Data sets on the Hub, loaded with `datasets`."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub

from sparsezo_gui.engine.data import parquet
from sparsezo_gui.engine.data.record import Part, Record
from sparsezo_gui.engine.hub.download import remove_damaged
from sparsezo_gui.engine.hub.refusals import HUB_ERRORS, refusal
from sparsezo_gui.engine.hub.token import token
from sparsezo_gui.errors import UserError
from sparsezo_gui.redaction import redacted
from sparsezo_gui.untrusted import reason


def quiet_datasets() -> Any:
    """The library `datasets`, which then prints nothing."""
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    huggingface_hub.logging.set_verbosity_error()
    return datasets


def load(name: str, configuration: str = "", stream: bool = False, revision: str | None = None) -> Mapping[str, Any]:
    """The splits of a data set by the names they have there; with ``stream``, they are not kept. Raises `UserError`."""
    datasets = quiet_datasets()
    began = time.time() - 1  # file systems round times
    try:
        loaded: Mapping[str, Any] = datasets.load_dataset(
            name, configuration or None, streaming=stream, token=token(), revision=revision
        )
    except Exception as error:  # the libraries below raise some twenty classes; each means that it cannot be loaded
        _refuse_damaged(name, began, {})
        raise hub_error(name, error) from error
    _refuse_damaged(name, began, loaded)
    return loaded


def _refuse_damaged(name: str, began: float, loaded: Mapping[str, Any]) -> None:
    """Raises `UserError` if a downloaded file of the data set is damaged, and removes it and what was made from it."""
    if not remove_damaged(name, began):
        return
    for rows in loaded.values():
        for file in getattr(rows, "cache_files", ()):
            shutil.rmtree(Path(file["filename"]).parent, ignore_errors=True)
    raise UserError(
        f"The download of the data set '{name}' is damaged: a checksum does not match. It was removed; start again. If "
        "that does not help, something such as a proxy or a virus scanner changes downloads."
    )


def part(name: str, split: str, rows: Any) -> Part:
    """The ``rows`` of one split of the data set ``name``."""
    from datasets import ClassLabel

    for key, feature in (rows.features or {}).items():  # images and audio stay bytes, not text
        if getattr(feature, "decode", False):
            rows = rows.cast_column(key, replace(feature, decode=False))
    classes = {key: feature.names for key, feature in (rows.features or {}).items() if isinstance(feature, ClassLabel)}

    def records() -> Iterator[Record]:
        try:
            for number, values in enumerate(parquet.named(map(parquet.plain, rows), classes), 1):
                yield Record(values, f"{name} {split}", number)
        except Exception as error:  # a streamed data set: errors of the network and of its files
            raise hub_error(name, error) from error

    return records


def hub_error(name: str, error: Exception) -> UserError:
    """The error message for what `datasets` raises if it cannot load a data set from the Hub."""
    if "Not enough disk space" in str(error):  # `datasets` checks for space before it downloads
        return UserError(
            f"The data set '{name}' does not fit on the disk ({reason(error)}). Free some space, or set HF_HOME to a "
            "folder on another disk."
        )
    found = _asked(name, error)
    if isinstance(found, HUB_ERRORS) and not isinstance(found, FileNotFoundError):  # the data set lacks a file
        return refusal("data set", name, found, "use a local file", kept=False)
    said = " ".join(str(error).split()) or type(error).__name__
    return UserError(
        f"The data set '{name}' could not be loaded from the Hub: {redacted(said)} Check its name and configuration "
        f"(owner/name:configuration); data sets that need their own code are not supported."
    )


def _asked(name: str, error: Exception) -> Exception:
    """The Hub's answer when asked for the data set directly: the errors of `datasets` do not say why."""
    if isinstance(error, ConnectionError) or huggingface_hub.is_offline_mode():
        return error
    try:
        huggingface_hub.HfApi().auth_check(name, repo_type="dataset", token=token())
    except HUB_ERRORS as found:
        return found
    return error
