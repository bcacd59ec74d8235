"""Which column plays which part of a task, and the values in it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from sparsezo_gui.answers import Task
from sparsezo_gui.engine.data.record import Binary, Record
from sparsezo_gui.engine.data.tasks import task
from sparsezo_gui.errors import UserError, did_you_mean
from sparsezo_gui.recipe.recipe import DataTable

LATER = frozenset(("system", "history", "tools"))
"""Optional parts that no task had at first: the record of a run's task leaves them out."""
_MISSING = object()
_SEEN = re.compile(r"[^\s\u200b-\u200d\u2060\ufeff]")  # visible: neither space nor zero-width character
_LOOKED_AT = 100  # rows searched for columns; JSON rows may have different ones


class Gap(UserError):
    """A row lacks something its example needs, such as a label: ``what`` says what. Such rows can be left out."""

    def __init__(self, place: str, what: str) -> None:
        super().__init__(f"{place}: {what}. Fill it in, or leave such rows out: [data] leave_out_gaps = true.")
        self.what = what


class UnknownLabel(UserError):
    """A row's ``label`` is not among the answers."""

    def __init__(self, place: str, label: str, column: str, known: Sequence[str]) -> None:
        super().__init__(
            f"{place}: the label '{label}' in the column '{column}' is not among the answers: {', '.join(known)}. "
            "Correct the row, or list all answers in [data] answers."
        )
        self.label = label


def names(rows: Iterable[Record]) -> tuple[str, ...]:
    """Columns of the first rows, in order; those of nested objects also as 'outer.inner'."""
    found: dict[str, None] = {}
    for row in islice(rows, _LOOKED_AT):
        _collect(row.values, "", found)
    return tuple(found)


def _collect(values: dict[str, Any], prefix: str, found: dict[str, None]) -> None:
    for name, value in values.items():
        found.setdefault(prefix + name)
        if isinstance(value, dict) and prefix.count(".") < 4:
            _collect(value, f"{prefix}{name}.", found)


def get(values: dict[str, Any], path: str, default: Any = None) -> Any:
    """The value at a column's name, or at a path with dots into objects."""
    if path in values:
        return values[path]
    head, dot, tail = path.partition(".")
    inner = values.get(head, _MISSING)
    return get(inner, tail, default) if dot and isinstance(inner, dict) else default


def resolve(
    kind: Task,
    table: DataTable,
    there: Sequence[str],
    needed: Iterable[str],
    optional: Iterable[str] = (),
    where: str = "",
) -> dict[str, str]:
    """Column of each part. A part in neither list is included if the table names it.

    Raises `UserError` if a required part has no column, or the table names a column that does not exist.
    """
    chosen: dict[str, str] = {}
    for part, column in table.columns.items():
        if column not in there:
            raise UserError(
                f"[data] columns: there is no column '{column}' (for '{part}') in {where}. {choices(column, there)}"
            )
        chosen[part] = column
    for part in needed:
        if part not in chosen:
            alternatives = kind.columns.get(part, (part,))
            found = named(alternatives, there)
            if found is None:
                raise UserError(
                    f"{where}: there is no column for '{part}' (looked for {', '.join(alternatives)}). "
                    f'{choices(part, there)} Say which one it is with columns = {{ {part} = "…" }}.'
                )
            chosen[part] = found
    for part in optional:
        found = next((name for name in kind.columns.get(part, (part,)) if name in there), None)
        if found is not None and found not in chosen.values():
            chosen.setdefault(part, found)
    return chosen


def named(names: Iterable[str], there: Sequence[str]) -> str | None:
    """The first of the ``names`` that is a column, or else the first that is one when case is ignored."""
    names, folded = tuple(names), {column.casefold(): column for column in reversed(there)}
    exact = next((name for name in names if name in there), None)
    return exact or next((folded[name] for name in names if name in folded), None)


def choices(word: str, there: Sequence[str]) -> str:
    """Lists the existing columns, with the nearest one to ``word``."""
    guess = did_you_mean(word, there)
    listed = f"Columns: {', '.join(there)}."
    return f"{listed} {guess}" if guess.startswith("Did") else listed


def word(value: Any) -> str:
    """A label as a word: 1.0 and 1 as '1', True as 'true', text without surrounding spaces."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Binary):
        raise UserError("the answer is binary data, such as an image. Use a text column.")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def empty(value: Any) -> bool:
    """Whether a cell is empty. An empty list is not: it means no answers."""
    return value is None or (isinstance(value, str) and not _SEEN.search(value)) or value != value


def labelled(table: DataTable, rows: Sequence[Record]) -> bool:
    """Whether at least one row has a label, if the task needs one. Published test sets mostly have none (or −1)."""
    kind = task(table.task)
    if "answer" not in kind.columns:
        return True
    there = names(rows)
    paths = [table.columns["answer"]] if "answer" in table.columns else kind.columns["answer"]
    column = named(paths, there)
    return column is not None and any(
        not empty(value := get(row.values, column)) and word(value) != "-1" for row in rows
    )
