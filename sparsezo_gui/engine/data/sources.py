"""From the source a recipe names to the rows of its three splits.

Missing splits are split off the training rows, without overlap: rows are ordered by a hash (never by global random
state), so the same file always gives the same splits. Memory is bounded by what the recipe asks for, not by the size of
the file: only the rows with the smallest hashes are kept while the file is streamed.
"""

from __future__ import annotations

import heapq
import json
import math
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import huggingface_hub

from sparsezo_gui import resources
from sparsezo_gui.engine.data import columns, parquet, readers
from sparsezo_gui.engine.data.record import Record
from sparsezo_gui.engine.data.spill import IN_MEMORY, SpillList, Subset
from sparsezo_gui.engine.data.tasks import task
from sparsezo_gui.engine.files import refuse_links
from sparsezo_gui.engine.hub.download import remove_damaged
from sparsezo_gui.engine.hub.refusals import HUB_ERRORS, refusal
from sparsezo_gui.engine.hub.token import token
from sparsezo_gui.errors import UserError, did_you_mean
from sparsezo_gui.formats import data_format, supported
from sparsezo_gui.recipe.events import Progress
from sparsezo_gui.recipe.recipe import DataTable
from sparsezo_gui.redaction import redacted
from sparsezo_gui.untrusted import reason

SPLITS = ("train", "validation", "test")
PROGRESS_EVERY = 0.1  # seconds
TRAIN_SHARE = 0.7  # of a source with fewer rows than requested
_PREFIXES = {"train": ("train",), "validation": ("val", "dev"), "test": ("test",)}
_SAVED = ("dataset_dict.json", "state.json")
_HUB = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")
Part = Callable[[], Iterator[Record]]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Rows(Sequence[Record]):
    """Rows of one split, in the order of their hashes. ``total`` counts the rows of its file; ``own`` says that
    validation or test rows have their own file; ``note`` is a sentence for the user."""

    records: Sequence[Record] = ()
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
    """Runs a generator to its end and returns its result."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: T = end.value
            return result


def read_rows(table: DataTable) -> Generator[Progress, None, dict[str, Rows]]:
    """`load_rows`, yielding progress."""
    parts = yield from in_background(lambda: find(table.source), Progress("Reading data"))
    wanted = {"train": table.train, "validation": table.validation, "test": table.test}
    pool = next(name for name in ("train", "", "validation", "test") if name in parts)
    found: dict[str, Rows] = {}
    notes: dict[str, str] = {}
    for split in ("validation", "test"):
        if split in parts and split != pool and wanted[split]:
            groups, total = yield from smallest(parts[split], wanted[split], _index_key)
            rows = yield from _rows(groups, table, wanted[split], total)
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
            part = groups[start : start + count]
            found[split] = yield from _rows(part, table, wanted[split], total, notes.get(split, ""))
            start += count
    return {split: found[split] for split in SPLITS}


def shares(count: int, train: int, validation: int, test: int) -> tuple[int, int, int]:
    """How many of ``count`` rows each split gets: as many as requested if there are enough; else 70 % for training and
    the rest in proportion."""
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
    except Exception as error:  # the libraries below raise some twenty classes; each means that it cannot be loaded
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


def _hub_part(name: str, split: str, rows: Any) -> Part:
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
        return refusal("data set", name, found, "use a local file")
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


class Groups(Sequence[list[Record]]):
    """Rows grouped by equal keys, read on access."""

    def __init__(self, store: Sequence[Record], places: list[list[int]]) -> None:
        self.store, self.places = store, places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Groups(self.store, self.places[index])
        return [self.store[place] for place in self.places[index]]


def smallest(
    part: Part, limit: int, key: Callable[[int, Record], int]
) -> Generator[Progress, None, tuple[Groups, int]]:
    """Rows with the ``limit`` smallest keys, grouped by key, in key order; and the total number of rows."""
    store: SpillList[Record] = SpillList()
    groups: dict[int, list[int]] = {}
    heap: list[int] = []
    count, clock = 0, Clock()
    for count, record in enumerate(part(), 1):
        hashed = key(count, record)
        if hashed not in groups and len(heap) < limit:
            heapq.heappush(heap, -hashed)
            groups[hashed] = []
        elif hashed not in groups and heap and hashed < -heap[0]:
            del groups[-heapq.heapreplace(heap, -hashed)]
            groups[hashed] = []
        if hashed in groups:
            groups[hashed].append(len(store))
            store.append(record)
        if clock.due():
            yield Progress("Reading data", count, 0, "rows")
    all_read = Progress("Reading data", count, 0, "rows")
    places = yield from in_background(lambda: [groups[hashed] for hashed in sorted(groups)], all_read)
    return Groups(store, places), count


class Clock:
    """Says when to report progress: at once, and then ten times a second."""

    def __init__(self) -> None:
        self._last = -math.inf

    def due(self) -> bool:
        """Whether progress is due."""
        now = time.monotonic()
        due = now - self._last > PROGRESS_EVERY
        self._last = now if due else self._last
        return due


def in_background(call: Callable[[], T], waiting: Progress) -> Generator[Progress, None, T]:
    """The result of ``call``; yields ``waiting`` while it runs in a thread. Closing the generator does not wait for the
    thread."""
    done: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()

    def work() -> None:
        try:
            done.put((call(), None))
        except BaseException as error:
            done.put((None, error))

    threading.Thread(target=work, daemon=True).start()
    while True:
        try:
            value, error = done.get(timeout=PROGRESS_EVERY)
        except Empty:
            yield waiting
            continue
        if error is not None:
            raise error
        return value  # type: ignore[return-value]


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def _index_key(index: int, record: Record) -> int:
    return _hash(str(index))


def content_key(index: int, record: Record) -> int:
    """Equal rows get equal keys and so the same split: a memorised row never appears in a test."""
    return _hash(json.dumps(record.values, sort_keys=True, default=str))


def _rows(groups: Groups, table: DataTable, limit: int, total: int, note: str = "") -> Generator[Progress, None, Rows]:
    """Rows of these groups, at most ``limit``, with nested lists expanded as the task says."""
    paths = task(table.task).explode
    store, waiting = groups.store, Progress("Reading data", total, 0, "rows")
    places = yield from in_background(lambda: [place for group in groups.places for place in group], waiting)
    if paths:
        store, clock = SpillList(), Clock()
        for place in places:
            for row in explode(groups.store[place], paths):
                store.append(row)
            if clock.due():
                yield Progress("Reading data", len(store), 0, "rows")
        places = list(range(len(store)))
    if len(places) > limit or paths:
        order = yield from in_background(
            lambda: sorted(range(len(places)), key=lambda index: _hash(str(index)))[:limit], waiting
        )
        places = [places[index] for index in order]
    records = Subset(store, places)
    return Rows(tuple(records) if len(records) <= IN_MEMORY else records, total, note=note)


def explode(record: Record, paths: Sequence[str]) -> list[Record]:
    """One row for each element of the lists at ``paths`` (outer before inner), with the element replacing the list."""
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
