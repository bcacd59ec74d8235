"""One row of a data set, from any source."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Record:
    """One row: its values by column, and its origin. ``number`` counts rows from 1, ``line`` lines."""

    values: dict[str, Any]
    source: str
    number: int
    line: int = 0

    @property
    def place(self) -> str:
        """For messages: 'cats.csv, row 3 (line 4)'."""
        line = f" (line {self.line})" if self.line not in (0, self.number) else ""
        return f"{self.source}, row {self.number}{line}"


Part = Callable[[], Iterator[Record]]
"""Reads the rows of one part of a source, such as its training file, from the beginning."""


@dataclass(frozen=True, slots=True)
class Binary:
    """Placeholder for a cell of bytes that are not text, such as an image; only their number is kept."""

    size: int

    def __str__(self) -> str:
        return f"[{self.size:,} bytes, not text]"


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
