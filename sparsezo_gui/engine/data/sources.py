"""From the source a recipe names to its files, or its data set on the Hub, by split."""

from __future__ import annotations

import os
import re
from pathlib import Path

from sparsezo_gui import resources
from sparsezo_gui.engine.data import readers
from sparsezo_gui.engine.data.record import Part
from sparsezo_gui.engine.files import refuse_links
from sparsezo_gui.errors import UserError, did_you_mean
from sparsezo_gui.formats import data_format, supported

_PREFIXES = {"train": ("train",), "validation": ("val", "dev"), "test": ("test",)}
_SAVED = ("dataset_dict.json", "state.json")
_HUB = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")


def find(source: str, stream: bool = False) -> dict[str, Part]:
    """The parts of a source by split; '' for a source without splits. Raises `UserError` if there is no such source.

    With ``stream`` a Hub data set is streamed and not kept: for the beginning of a huge one."""
    if source in resources.BUNDLED_DATA:
        return _folder(resources.BUNDLED_DATA[source], None)
    path = Path(os.path.expanduser(source))
    try:
        if path.is_dir():
            return _folder(path, path)
        if path.is_file():
            return {"": lambda: readers.read(path)}
    except OSError as error:
        raise UserError(f"{source}: cannot be opened ({error.strerror}).") from error
    if _HUB.fullmatch(source) and data_format(path) is None:
        name, _, configuration = source.partition(":")
        return _hub(name, configuration, stream)
    raise UserError(
        f"There is no data file or folder '{source}', and no bundled data set of that name. "
        f"{did_you_mean(source, resources.BUNDLED_DATA)} A data set on the Hub is written owner/name or "
        f"owner/name:configuration."
    )


def split_of(name: str) -> str:
    """The split that a file's or Hub split's name begins with, or ''."""
    return next((split for split, heads in _PREFIXES.items() if name.lower().startswith(heads)), "")


def _folder(folder: Path, top: Path | None) -> dict[str, Part]:
    """Parts by file name; the files must not be outside ``top`` (None: they may)."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and data_format(path)]
    if any(path.name in _SAVED for path in files):
        raise UserError(
            f"The folder '{folder}' was written by `save_to_disk` of datasets, in a format only that library reads. "
            "Write a Parquet file for each split, with load_from_disk(…)['train'].to_parquet('train.parquet')."
        )
    if not files and (folder / "data").is_dir():  # the usual layout on the Hub
        return _folder(folder / "data", top)
    if not files:
        raise UserError(f"The folder '{folder}' has no data files ({supported()}).")
    if top is not None:
        refuse_links(top, files)
    named = {split: [path for path in files if split_of(path.name) == split] for split in _PREFIXES}
    if not any(named.values()):
        named = {"": files}
    return {split: _files(paths) for split, paths in named.items() if paths}


def _files(paths: list[Path]) -> Part:
    return lambda: (record for path in paths for record in readers.read(path))


def _hub(name: str, configuration: str, stream: bool) -> dict[str, Part]:
    from sparsezo_gui.engine.data import hub_data

    loaded = hub_data.load(name, configuration, stream)
    splits: dict[str, str] = {}
    for split in loaded:
        splits.setdefault(split_of(split), split)
    if len(splits) > 1:
        splits.pop("", None)
    return {split: hub_data.part(name, key, loaded[key]) for split, key in splits.items()}
