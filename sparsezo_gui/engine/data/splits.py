"""The rows of the three splits.

Missing splits are split off the training rows, without overlap: rows are ordered by a hash (never by global random
state), so the same file always gives the same splits; a seed gives others. Memory is bounded by what the recipe asks
for, not by the size of the file: only the rows with the smallest hashes are kept while the file is streamed, and only
one of equal rows if duplicates are to be removed.

Rows that the recipe leaves out are taken away at the end, so that no other row moves to another split: one left out
after a look at the results must not bring a row of the test into training.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sparsezo_gui.engine.data import columns
from sparsezo_gui.engine.data.background import Clock, in_background
from sparsezo_gui.engine.data.keys import LeftOut, by_content, by_index, hashed, seeded
from sparsezo_gui.engine.data.record import Part, Record, explode
from sparsezo_gui.engine.data.sources import find
from sparsezo_gui.engine.data.spill import IN_MEMORY, SpillList, Subset
from sparsezo_gui.engine.data.tasks import task
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.events import Progress
from sparsezo_gui.recipe.recipe import SPLITS, DataTable
from sparsezo_gui.work import finish

TRAIN_SHARE = 0.7  # of a source with fewer rows than requested
ALL_REPEAT = (
    "All training examples are also in the test or validation split, where they stay. Add others, or set [data] "
    "duplicates = 'keep'."
)


@dataclass(frozen=True, slots=True)
class Rows(Sequence[Record]):
    """Rows of one split, in the order of their hashes. ``total`` counts the rows of its file; ``own`` says that
    validation or test rows have their own file; ``note`` is a sentence for the user. ``repeats`` counts the duplicates
    that were removed, and ``left_out`` has the rows that were left out, of all splits."""

    records: Sequence[Record] = ()
    total: int = 0
    own: bool = False
    note: str = ""
    repeats: int = 0
    left_out: LeftOut = field(default_factory=LeftOut)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: Any) -> Any:
        return self.records[index]

    def check(self) -> None:
        """Raises `UserError` if the recipe's choice left no row."""
        if not self.records and self.left_out.count:
            raise UserError(
                "All training rows are left out. Put some back on the Data page (in the terminal: --set "
                "data.leave_out=[])."
            )
        if not self.records and self.repeats:
            raise UserError(ALL_REPEAT)


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
    reader = _Reader(table)
    for split in ("test", "validation"):
        if split in parts and split != pool and wanted[split]:
            groups, total = yield from reader.own(parts[split], wanted[split])
            rows = yield from reader.rows(groups, wanted[split], total)
            if rows and not columns.labelled(table, rows):
                notes[split] = (
                    f"The {split} rows of {table.source} have no labels; others are taken from the training rows."
                )
            else:
                found[split] = replace(rows, own=True)
                reader.taken.update(groups.contents)
    missing = {split: 0 if split in found else wanted[split] for split in SPLITS}
    groups, total = yield from reader.pool(parts[pool], sum(missing.values()), missing["train"])
    start = 0
    for split, count in zip(SPLITS, shares(len(groups), *missing.values()), strict=True):
        if split not in found:
            part = groups[start : start + count]
            found[split] = yield from reader.rows(part, wanted[split], total, notes.get(split, ""))
            start += count
    train = replace(found["train"], repeats=found["train"].repeats + reader.skipped)
    return {**{split: found[split] for split in SPLITS}, "train": train}


class _Reader:
    """Reads the rows of ``table``. If duplicates are to be removed, ``taken`` has the contents of rows that stay in
    another split, and ``skipped`` counts those equal to them."""

    def __init__(self, table: DataTable) -> None:
        self._paths, self._seed, self._unique = task(table.task).explode, table.split_seed, table.duplicates == "remove"
        self._left_out = LeftOut(table.leave_out, self._paths)
        self.taken, self.skipped = set[int](), 0

    def own(self, part: Part, limit: int) -> Found:
        """Rows of a split that has its own file."""
        return smallest(self._left_out.watched(part), limit, by_index, self._fresh if self._unique else None)

    def pool(self, part: Part, limit: int, train: int) -> Found:
        """Rows for training and for the splits that have no file; the seed matters only if there are any."""
        if limit <= train:
            return self.own(part, limit)
        return smallest(self._left_out.watched(part), limit, self._ordered, self._fresh if self._unique else None)

    def _fresh(self, record: Record) -> int | None:
        content = by_content(0, record)
        if content not in self.taken:
            return content
        self.skipped += 1
        return None

    def _ordered(self, index: int, record: Record) -> int:
        return seeded(by_content(index, record), self._seed)

    def rows(self, groups: Groups, limit: int, total: int, note: str = "") -> Generator[Progress, None, Rows]:
        """Rows of these groups, at most ``limit``, with nested lists expanded as the task says, and without those that
        are left out."""
        store, waiting = groups.store, Progress("Reading data", total, 0, "rows")
        places = yield from in_background(lambda: [place for group in groups.places for place in group], waiting)
        if self._paths:
            store, clock = SpillList(), Clock()
            for place in places:
                for row in explode(groups.store[place], self._paths):
                    store.append(row)
                if clock.due():
                    yield Progress("Reading data", len(store), 0, "rows")
            places = list(range(len(store)))
        if len(places) > limit or self._paths:
            order = yield from in_background(
                lambda: sorted(range(len(places)), key=lambda index: hashed(str(index)))[:limit], waiting
            )
            places = [places[index] for index in order]
        if self._left_out.first:
            places = yield from in_background(
                lambda: [place for place in places if store[place] not in self._left_out], waiting
            )
        records = Subset(store, places)
        held = tuple(records) if len(records) <= IN_MEMORY else records
        return Rows(held, total, note=note, repeats=sum(groups.repeats), left_out=self._left_out)


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


@dataclass(frozen=True)
class Groups(Sequence[list[Record]]):
    """Rows grouped by equal keys, read on access. If only one of equal rows was kept, ``contents`` has the content of
    each group, and ``repeats`` counts the rows that are not there."""

    store: Sequence[Record]
    places: Sequence[list[int]]
    contents: Sequence[int] = ()
    repeats: Sequence[int] = ()

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Groups(self.store, self.places[index], self.contents[index], self.repeats[index])
        return [self.store[place] for place in self.places[index]]


Found = Generator[Progress, None, tuple[Groups, int]]


def smallest(
    part: Part, limit: int, key: Callable[[int, Record], int], content: Callable[[Record], int | None] | None = None
) -> Found:
    """Rows with the ``limit`` smallest keys, grouped by key, in key order; and the total number of rows. With
    ``content``, only one of the rows that have the same is kept, at their smallest key, and none if it is None."""
    kept, count, clock = _Smallest(limit), 0, Clock()
    for count, record in enumerate(part(), 1):
        if content is None:
            kept.add(key(count, record), record)
        elif (known := content(record)) is not None:
            kept.add_once(key(count, record), known, record)
        if clock.due():
            yield Progress("Reading data", count, 0, "rows")
    return (yield from in_background(kept.groups, Progress("Reading data", count, 0, "rows"))), count


class _Smallest:
    """The rows with the ``limit`` smallest keys among those added."""

    def __init__(self, limit: int) -> None:
        self._store: SpillList[Record] = SpillList()
        self._limit, self._places = limit, dict[int, list[int]]()
        self._heap: list[int] = []  # keys, negated; those of rows that moved to a smaller one are still there
        self._keys, self._contents, self._repeats = dict[int, int](), dict[int, int](), Counter[int]()

    def add(self, key: int, record: Record) -> bool:
        """Adds a row, and says whether it is among the smallest."""
        if key not in self._places and not self._admit(key):
            return False
        self._places[key].append(len(self._store))
        self._store.append(record)
        return True

    def add_once(self, key: int, content: int, record: Record) -> None:
        """Adds a row; one with the same ``content`` that is there is only moved to the smaller key."""
        old = self._keys.get(content)
        if old is not None:
            self._repeats[content] += 1
            if key >= old or key in self._places:  # of two contents with one key, which never happens, one is kept
                return
            self._places[key] = self._places.pop(old)
            del self._contents[old]
            heapq.heappush(self._heap, -key)
        elif key in self._places or not self.add(key, record):
            return
        self._keys[content], self._contents[key] = key, content

    def _admit(self, key: int) -> bool:
        while self._heap and -self._heap[0] not in self._places:
            heapq.heappop(self._heap)
        if len(self._places) >= self._limit:
            if not self._heap or key > -self._heap[0]:
                return False
            largest = -heapq.heappop(self._heap)
            del self._places[largest]
            if largest in self._contents:
                content = self._contents.pop(largest)
                del self._keys[content], self._repeats[content]
        heapq.heappush(self._heap, -key)
        self._places[key] = []
        return True

    def groups(self) -> Groups:
        """The rows in the order of their keys."""
        keys = sorted(self._places)
        contents = [self._contents[key] for key in keys] if self._contents else []
        return Groups(
            self._store, [self._places[key] for key in keys], contents, [self._repeats[each] for each in contents]
        )
