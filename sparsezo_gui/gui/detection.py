"""Guesses from the columns of a data set what it is for: the task, and the column of each of its parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparsezo_gui.answers import Task

MOST_LABELS = 20  # different values on a page of rows that still are labels
LONGEST_LABEL = 40  # characters


@dataclass(frozen=True)
class Guess:
    """A task by name, and the column of each part that is known."""

    task: str
    columns: dict[str, str]


ORDER = ("chat", "preference", "squad", "pairs", "choice", "text")
"""Tasks that are looked for, those with the most telling columns first."""
NEEDED = {"chat": ("messages",), "preference": ("chosen", "rejected"), "squad": ("context", "question", "answer"),
          "pairs": ("prompt", "answer"), "choice": ("text", "answer"), "text": ("text",)}  # fmt: skip
ALSO = {("squad", "context"): ("passage",), ("choice", "text"): ("title", "body", "message", "comment"),
        ("pairs", "prompt"): ("instructions", "query")}  # fmt: skip
"""Names of columns that only a guess takes for a part."""


def guessed(columns: Sequence[str], rows: Sequence[Sequence[str]], tasks: Sequence[Task]) -> Guess | None:
    """What the data seem to be for, from the names of their ``columns`` and the first ``rows``; None if nothing fits.
    Columns that have few short values are labels, and those with others are written answers."""
    known = {task.name: task for task in tasks}
    for name in ORDER:
        found = _columns(known[name], columns) if name in known else {}
        if not all(part in found for part in NEEDED[name]):
            continue
        labels = name in ("choice", "pairs") and _are_labels(columns, rows, found["answer"])
        if (name == "pairs" and labels) or (name == "choice" and not labels):
            continue
        return Guess(name, {part: found[part] for part in NEEDED[name]})
    return None


def _columns(task: Task, columns: Sequence[str]) -> dict[str, str]:
    """The column of each part of the task, each used once."""
    by_name = {column.lower(): column for column in reversed(columns)}
    found: dict[str, str] = {}
    for part in NEEDED[task.name]:
        names = (*task.columns[part], *ALSO.get((task.name, part), ()))
        column = next((by_name[each] for each in names if each in by_name and by_name[each] not in found.values()), "")
        if column:
            found[part] = column
    return found


def _are_labels(columns: Sequence[str], rows: Sequence[Sequence[str]], column: str) -> bool:
    """Whether a column has few, short values, at least one of them twice."""
    place = list(columns).index(column)
    values = [row[place] for row in rows if row[place].strip()]
    few = len(set(values)) <= min(MOST_LABELS, max(len(values) // 2, 1))
    return bool(values) and few and max(map(len, values)) <= LONGEST_LABEL
