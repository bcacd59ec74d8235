"""Rows that cannot become examples, reported together: how many, and the first of them in the file."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Sequence

from sparsezo_gui.engine.data.columns import Gap, UnknownLabel
from sparsezo_gui.engine.data.record import Record
from sparsezo_gui.errors import UserError

MOST, SECONDS = 1000, 20.0  # faults, and seconds since the first, after which the search for more stops
NAMED = 3  # rows or reasons named in a sentence
LEAVE_OUT = "leave them out: [data] leave_out_gaps = true (in the terminal: --set data.leave_out_gaps=true)"


class Gaps(UserError):
    """Rows with gaps, without other faults."""


class Faults:
    """Collects what is wrong with rows."""

    def __init__(self) -> None:
        self._found: list[tuple[Record, UserError]] = []
        self._end = math.inf

    @property
    def full(self) -> bool:
        """Whether the search for more should stop."""
        return len(self._found) >= MOST or time.monotonic() > self._end

    def add(self, row: Record, error: UserError) -> None:
        """Keeps the ``error`` of ``row``; an error that is not about the row is raised."""
        if row.place not in str(error):
            raise error
        if not self._found:
            self._end = time.monotonic() + SECONDS
        self._found.append((row, error))

    def check(self, rows: int) -> None:
        """Raises `UserError` for all faults found in ``rows`` rows."""
        if not self._found:
            return
        gaps = [(row, error) for row, error in self._found if isinstance(error, Gap)]
        others = [(row, error) for row, error in self._found if not isinstance(error, Gap)]
        if not others:
            raise Gaps(_of_gaps(gaps, self._count(len(gaps), rows)))
        of_gaps = [_of_gaps(gaps, f"{len(gaps):,} rows")] if gaps else []
        raise UserError(*_of_others(others, self._count(len(others), rows)), *of_gaps)

    def _count(self, found: int, rows: int) -> str:
        """Exact count if all rows were checked, else a lower bound."""
        return f"{found:,} of {rows:,} rows" if not self.full else f"At least {found:,} rows"


def places(rows: Iterable[Record]) -> str:
    """The first rows in file order: 'cats.csv, row 3 (line 4), row 6 (line 7) and row 9 (line 10)'."""
    first = sorted(rows, key=lambda row: (row.source, row.number))[:NAMED]
    named = [
        row.place if not index or row.source != first[index - 1].source else row.place.removeprefix(f"{row.source}, ")
        for index, row in enumerate(first)
    ]
    return " and ".join([", ".join(named[:-1]), named[-1]] if len(named) > 1 else named)


def reasons(found: Counter[str]) -> str:
    """'the column 'label' is empty', or several with their counts."""
    named = [f"{what} ({count:,})" for what, count in found.most_common(NAMED)]
    more = [f"{len(found) - NAMED} other reasons"] if len(found) > NAMED else []
    return ", ".join([*named, *more]) if len(found) > 1 else next(iter(found))


def _of_gaps(gaps: Sequence[tuple[Record, Gap]], count: str) -> str:
    if len(gaps) == 1:
        return f"{gaps[0][0].place}: {gaps[0][1].what}. Fill it in, or {LEAVE_OUT.replace('them', 'the row')}."
    what = reasons(Counter(error.what for _, error in gaps))
    rows = places(row for row, _ in gaps)
    return f"{count} have gaps: {what}. The first in the file: {rows}. Fill them in, or {LEAVE_OUT}."


def _of_others(others: Sequence[tuple[Record, UserError]], count: str) -> list[str]:
    if len(others) == 1:
        return list(others[0][1].args)
    faults = {str(error).removeprefix(f"{row.place}: ") for row, error in others}
    if len(faults) == 1:
        rows = places(row for row, _ in others)
        return [f"{count} cannot become examples: {faults.pop()} The first in the file: {rows}."]
    first = sorted(others, key=lambda found: (found[0].source, found[0].number))[:NAMED]
    labels = Counter(error.label for _, error in others if isinstance(error, UnknownLabel))
    errors = [f"{count} cannot become examples. The first in the file:", *(str(error) for _, error in first)]
    if labels:
        named = ", ".join(f"'{label}' ({number:,})" for label, number in labels.most_common(10))
        errors.append(f"{len(labels):,} labels are not among the answers: {named}{', …' if len(labels) > 10 else '.'}")
    return errors
