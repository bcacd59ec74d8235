"""Hashes of rows: where a row stands among the others, and by which name a recipe leaves it out.

A recipe names a row by a hash of its content. A number would need a fingerprint of the file beside it, and would name
nothing once a row is added or the file is saved by another program. The hash still names the row when the file is
sorted, gets more rows, is cut into several, or is written in another format with the same values. Only a change of the
row itself brings it back: it is another row then, to be looked at again, and a notice says so. Equal rows have the same
name, and are left out together.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b

from sparsezo_gui.engine.data.record import Part, Record, explode
from sparsezo_gui.recipe.events import Notice


def hashed(text: str, seed: int = 0) -> int:
    """64 bits that only ``text`` and ``seed`` decide; the seed 0 is no seed."""
    salt = seed.to_bytes(8, "little")
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, salt=salt).digest(), "big")


def by_index(index: int, record: Record) -> int:
    """A key that depends on the row's number alone."""
    return hashed(str(index))


def by_content(index: int, record: Record) -> int:
    """Equal rows get equal keys and so the same split: a memorised row never appears in a test."""
    return hashed(json.dumps(record.values, sort_keys=True, default=str))


def seeded(key: int, seed: int) -> int:
    """``key`` as `DataTable.split_seed` orders it; the seed 0 leaves it as it is."""
    return hashed(f"{key:016x}", seed) if seed else key


def name_of(row: Record) -> str:
    """The name of a row in `DataTable.leave_out`."""
    return f"{by_content(0, row):016x}"


class LeftOut:
    """The rows that a recipe leaves out by their ``names``, as far as they were read. Those made of nested lists at
    ``paths`` have names of their own. ``count`` counts them, and ``first`` holds one for each name."""

    def __init__(self, names: Iterable[str] = (), paths: Sequence[str] = ()) -> None:
        self.names, self._paths = frozenset(names), paths
        self.count, self.first = 0, dict[str, Record]()

    def __contains__(self, row: Record) -> bool:
        return bool(self.names) and name_of(row) in self.names

    def watched(self, part: Part) -> Part:
        """``part``, whose rows are compared with the names as they are read."""
        return (lambda: self._watch(part)) if self.names else part

    def _watch(self, part: Part) -> Iterator[Record]:
        for record in part():
            for row in explode(record, self._paths):
                if (name := name_of(row)) in self.names:
                    self.count += 1
                    self.first.setdefault(name, row)
            yield record

    @property
    def said(self) -> str:
        """How many rows were left out, in a sentence; '' if none was."""
        return "1 row was left out." if self.count == 1 else f"{self.count:,} rows were left out." if self.count else ""

    def notices(self) -> Iterator[Notice]:
        """How many rows were left out, and how many names no row has."""
        if self.said:
            yield Notice(self.said)
        lost = len(self.names) - len(self.first)
        if lost == 1:
            yield Notice(
                "1 of the rows to leave out is not in the data: it was removed, or changed and is used again.",
                "warning",
            )
        elif lost:
            yield Notice(
                f"{lost:,} of the rows to leave out are not in the data: they were removed, or changed and are used "
                "again.", "warning",
            )  # fmt: skip
