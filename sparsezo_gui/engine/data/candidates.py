"""The candidates of a choice, and the labels that mean them."""

from __future__ import annotations

from collections.abc import Sequence

from sparsezo_gui.answers import Candidate, Task
from sparsezo_gui.engine.data import labels
from sparsezo_gui.engine.data.splits import Rows
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.recipe import DataTable

MOST_ANSWERS = 100  # more distinct labels than this are not answers but texts or numbers


def candidates_of(kind: Task, table: DataTable, rows: dict[str, Rows], column: str) -> tuple[Candidate, ...]:
    """The fixed candidates: from the recipe, from the task, or the distinct labels of the training rows in ``column``,
    sorted. None if the task has none, or each row its own. Raises `UserError`."""
    if kind.kind != "choice" or kind.items:
        if table.answers:
            raise UserError(f"[data] answers: the task '{kind.name}' has no fixed answers; leave it empty.")
        return ()
    if kind.answers:
        return _reworded(kind, table) if table.answers else kind.answers
    spelled = [[word.strip()] for word in table.answers] or _labels_of(table, rows, column)
    words = [first for first, *_ in spelled]
    if len(set(filter(None, words))) != len(words) or len(words) < 2:
        raise UserError(f"[data] answers: a choice needs at least two different answers, not {words}.")
    numbers = any(word.isdigit() for word in words)
    return tuple(
        Candidate(text=group[0], labels=tuple(group) if numbers else (*group, str(index)))
        for index, group in enumerate(spelled)
    )


def _reworded(kind: Task, table: DataTable) -> tuple[Candidate, ...]:
    if len(table.answers) != len(kind.answers):
        usual = ", ".join(answer.text for answer in kind.answers)
        raise UserError(
            f"[data] answers: the task '{kind.name}' has {len(kind.answers)} ({usual}), not {len(table.answers)}."
        )
    return tuple(
        Candidate(text=text, labels=(*old.labels, text)) for text, old in zip(table.answers, kind.answers, strict=True)
    )


def _labels_of(table: DataTable, rows: dict[str, Rows], column: str) -> list[list[str]]:
    """The labels of the rows, each with all its spellings if these are to be merged."""
    found = labels.count(rows, column)
    words = labels.spellings(found) if table.merge_labels else [[word] for word in sorted(found)]
    if len(words) > MOST_ANSWERS:
        raise UserError(
            f"The column '{column}' has {len(words)} different values ('{words[0][0][:40]}', …): too many to "
            f"choose from. Name the label column with columns = {{ answer = \"…\" }}, or use the task 'pairs'."
        )
    if len(words) == 1:
        raise UserError(
            f"A choice needs at least two different answers, and all rows with a label in the column '{column}' "
            f"have '{words[0][0]}'. Add rows with other labels, or name the label column with "
            'columns = { answer = "…" }.'
        )
    return words


def by_label(answers: Sequence[Candidate]) -> tuple[dict[str, int], dict[str, int]]:
    """The index of the candidate by label as spelled, and by the key (see `labels.alike`) if only one has it."""
    exact = {label: index for index, answer in enumerate(answers) for label in answer.labels}
    meant: dict[str, set[int]] = {}
    for label, index in exact.items():
        meant.setdefault(labels.alike(label), set()).add(index)
    return exact, {key: found.pop() for key, found in meant.items() if len(found) == 1}
