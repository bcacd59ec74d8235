"""From the source a recipe names to the rows of its three splits.

What is missing is cut from the training rows, without overlap: rows are put in the order of a hash (never of the
global random state), so the same file always gives the same splits. Memory is bounded by what the recipe asks for, not
by the size of the file: only the rows of the smallest hashes are kept while the file streams by.
"""

from __future__ import annotations

import heapq
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

import huggingface_hub

from sparsezo_gui import resources
from sparsezo_gui.engine.data import columns, parquet, readers
from sparsezo_gui.engine.data.record import Record
from sparsezo_gui.engine.data.tasks import task
from sparsezo_gui.engine.files import refuse_links
from sparsezo_gui.engine.models.download import remove_damaged
from sparsezo_gui.engine.models.refusals import HUB_ERRORS, refusal
from sparsezo_gui.engine.models.token import token
from sparsezo_gui.errors import UserError, did_you_mean
from sparsezo_gui.masking import masked
from sparsezo_gui.recipe.events import Progress
from sparsezo_gui.recipe.recipe import DataTable

SPLITS = ("train", "validation", "test")
TOLD_EVERY = 0.1  # seconds
TRAIN_SHARE = 0.7  # of a source that is smaller than what is asked for
_PREFIXES = {"train": ("train",), "validation": ("val", "dev"), "test": ("test",)}
_HUB = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")
Part = Callable[[], Iterator[Record]]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Rows(Sequence[Record]):
    """Rows of one split, in the order of their hashes. ``total`` is how many its file holds; ``own`` says that
    validation or test rows have a file of their own; ``note`` is a sentence for the user."""

    records: tuple[Record, ...] = ()
    total: int = 0
    own: bool = False
    note: str = ""

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: Any) -> Any:
        return self.records[index]


def load_rows(table: DataTable) -> dict[str, Rows]:
    """Rows of 'train', 'validation' and 'test', at most as many as the table asks for. Raises `UserError`."""
    return finish(read_rows(table))


def finish(work: Generator[Any, None, T]) -> T:
    """Runs a generator to its end and gives what it returns."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


def read_rows(table: DataTable) -> Generator[Progress, None, dict[str, Rows]]:
    """`load_rows`, telling how far it is."""
    parts = find(table.source)
    wanted = {"train": table.train, "validation": table.validation, "test": table.test}
    pool = next(name for name in ("train", "", "validation", "test") if name in parts)
    found: dict[str, Rows] = {}
    notes: dict[str, str] = {}
    for split in ("validation", "test"):
        if split in parts and split != pool and wanted[split]:
            groups, total = yield from smallest(parts[split], wanted[split], _index_key)
            rows = _rows(groups, table, wanted[split], total)
            if rows and not columns.labelled(table, rows):
                notes[split] = (
                    f"The {split} rows of {table.source} have no labels; others are taken from the training rows."
                )
            else:
                found[split] = replace(rows, own=True)
    missing = {split: 0 if split in found else wanted[split] for split in SPLITS}
    shared = sum(missing.values()) > missing["train"]
    groups, total = yield from smallest(parts[pool], sum(missing.values()), content_key if shared else _index_key)
    start = 0
    for split, count in zip(SPLITS, shares(len(groups), *missing.values()), strict=True):
        if split not in found:
            found[split] = _rows(groups[start : start + count], table, wanted[split], total, notes.get(split, ""))
            start += count
    return {split: found[split] for split in SPLITS}


def shares(count: int, train: int, validation: int, test: int) -> tuple[int, int, int]:
    """How many of ``count`` rows each split gets: what it asks for where that is there; else 70 % train, the rest in
    proportion."""
    if train + validation + test <= count:
        return train, validation, test
    if not validation + test:
        return min(train, count), 0, 0
    train = min(train, max(1, int(count * TRAIN_SHARE)), count)
    rest = count - train
    first = min(validation, -(-rest * validation // (validation + test)))
    second = min(test, rest - first)
    return train, min(validation, rest - second), second


def find(source: str, stream: bool = False) -> dict[str, Part]:
    """The parts of a source by split; '' for one that has no splits. Raises `UserError` when there is no such source.

    With ``stream`` a Hub data set is read as it comes, without keeping it: for the beginning of a huge one."""
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
    if _HUB.fullmatch(source) and readers.kind(path) not in readers.READERS:
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
    """Parts by the names of the files, which must not lie outside of ``top`` (None: they may)."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and readers.kind(path) in readers.READERS]
    if not files and (folder / "data").is_dir():  # how data sets lie on the Hub
        return _folder(folder / "data", top)
    if not files:
        raise UserError(
            f"The folder '{folder}' holds no data file ({', '.join(readers.READERS)}, also packed as .gz or .xz)."
        )
    if top is not None:
        refuse_links(top, files)
    named = {split: [path for path in files if split_of(path.name) == split] for split in SPLITS}
    if not any(named.values()):
        named = {"": files}
    return {split: _files(paths) for split, paths in named.items() if paths}


def _files(paths: list[Path]) -> Part:
    return lambda: (record for path in paths for record in readers.read(path))


def _hub(name: str, configuration: str, stream: bool) -> dict[str, Part]:
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    huggingface_hub.logging.set_verbosity_error()
    began = time.time() - 1  # file systems round times
    try:
        loaded = datasets.load_dataset(name, configuration or None, streaming=stream, token=token())
    except Exception as error:  # the libraries below raise some twenty classes; each means: not to be had
        _refuse_damaged(name, began, {})
        raise hub_error(name, error) from error
    _refuse_damaged(name, began, loaded)
    splits: dict[str, str] = {}
    for split in loaded:
        splits.setdefault(split_of(split), split)
    if len(splits) > 1:
        splits.pop("", None)
    return {split: _hub_part(name, key, loaded[key]) for split, key in splits.items()}


def _refuse_damaged(name: str, began: float, loaded: Mapping[str, Any]) -> None:
    """Raises `UserError` where a file of the data set came damaged, and removes it and what was made of it."""
    if not remove_damaged(name, began):
        return
    for rows in loaded.values():
        for file in getattr(rows, "cache_files", ()):
            shutil.rmtree(Path(file["filename"]).parent, ignore_errors=True)
    raise UserError(
        f"The data set '{name}' came damaged from the Hub: a checksum is wrong. What came was removed; start again. If "
        "that does not help, something on the way, such as a proxy or a virus scanner, changes downloads."
    )


def _hub_part(name: str, split: str, rows: Any) -> Part:
    from datasets import ClassLabel

    classes = {key: feature.names for key, feature in (rows.features or {}).items() if isinstance(feature, ClassLabel)}

    def records() -> Iterator[Record]:
        try:
            for number, values in enumerate(parquet.named(rows, classes), 1):
                yield Record(values, f"{name} {split}", number)
        except Exception as error:  # a data set that is read as it comes: the network's errors, and those of its files
            raise hub_error(name, error) from error

    return records


def hub_error(name: str, error: Exception) -> UserError:
    """A sentence for what `datasets` raises when a data set cannot be had from the Hub."""
    found = _asked(name, error)
    if isinstance(found, HUB_ERRORS) and not isinstance(found, FileNotFoundError):  # a file that the data set lacks
        return refusal("data set", name, found, "give a file")
    reason = " ".join(str(error).split()) or type(error).__name__
    return UserError(
        f"The data set '{name}' could not be loaded from the Hub: {masked(reason)} Check its name and configuration "
        f"(owner/name:configuration); data sets that need their own code are not supported."
    )


def _asked(name: str, error: Exception) -> Exception:
    """What the Hub answers when it is asked for the data set itself: the errors of `datasets` do not say why."""
    if isinstance(error, ConnectionError) or huggingface_hub.is_offline_mode():
        return error
    try:
        huggingface_hub.HfApi().auth_check(name, repo_type="dataset", token=token())
    except HUB_ERRORS as found:
        return found
    return error


def smallest(part: Part, limit: int, key: Callable) -> Generator[Progress, None, tuple[list[list[Record]], int]]:
    """Rows of the ``limit`` smallest keys, grouped by key, in the order of the keys; and how many rows there are."""
    groups: dict[int, list[Record]] = {}
    heap: list[int] = []
    count, told = 0, time.monotonic()
    for count, record in enumerate(part(), 1):
        hashed = key(count, record)
        if hashed in groups:
            groups[hashed].append(record)
        elif len(heap) < limit:
            heapq.heappush(heap, -hashed)
            groups[hashed] = [record]
        elif heap and hashed < -heap[0]:
            del groups[-heapq.heapreplace(heap, -hashed)]
            groups[hashed] = [record]
        if time.monotonic() - told > TOLD_EVERY:
            yield Progress("Reading data", count, 0, "rows")
            told = time.monotonic()
    return [groups[hashed] for hashed in sorted(groups)], count


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def _index_key(index: int, record: Record) -> int:
    return _hash(str(index))


def content_key(index: int, record: Record) -> int:
    """Equal rows get equal keys and so the same split: a row learned by heart is never met again in a test."""
    return _hash(json.dumps(record.values, sort_keys=True, default=str))


def _rows(groups: list[list[Record]], table: DataTable, limit: int, total: int, note: str = "") -> Rows:
    """Rows of these groups, with nested lists unfolded as the task says, at most ``limit``."""
    paths = task(table.task).explode
    records = [row for group in groups for record in group for row in explode(record, paths)]
    if len(records) > limit or paths:
        order = sorted(range(len(records)), key=lambda index: _hash(str(index)))
        records = [records[index] for index in order[:limit]]
    return Rows(tuple(records), total, note=note)


def explode(record: Record, paths: Sequence[str]) -> list[Record]:
    """One row for each element of the lists at ``paths`` (outer before inner), the element in the list's place."""
    found = [record.values]
    for path in paths:
        found = [values for old in found for values in _unfold(old, path.split("."))]
    return [replace(record, values=values) for values in found]


def _unfold(values: dict[str, Any], path: list[str]) -> list[dict[str, Any]]:
    inner = values.get(path[0])
    if isinstance(inner, dict) and len(path) > 1:
        return [{**values, path[0]: element} for element in _unfold(inner, path[1:])]
    return (
        [{**values, path[0]: element} for element in inner] if isinstance(inner, list) and len(path) == 1 else [values]
    )
