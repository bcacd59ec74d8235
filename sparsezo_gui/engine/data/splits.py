"""The rows of the three splits.

Missing splits are split off the training rows, without overlap: rows are ordered by a hash (never by global random
state), so the same file always gives the same splits. Memory is bounded by what the recipe asks for, not by the size of
the file: only the rows with the smallest hashes are kept while the file is streamed.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

from sparsezo_gui.engine.data import columns
from sparsezo_gui.engine.data.background import Clock, in_background
from sparsezo_gui.engine.data.record import Part, Record
from sparsezo_gui.engine.data.sources import find
from sparsezo_gui.engine.data.spill import IN_MEMORY, SpillList, Subset
from sparsezo_gui.engine.data.tasks import task
from sparsezo_gui.recipe.events import Progress
from sparsezo_gui.recipe.recipe import SPLITS, DataTable
from sparsezo_gui.work import finish

TRAIN_SHARE = 0.7  # of a source with fewer rows than requested


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
