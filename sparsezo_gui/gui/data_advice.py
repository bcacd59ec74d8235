"""What the Data page says about a data set, and the button that does something about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sparsezo_gui.answers import DataPreview, Task
from sparsezo_gui.gui.detection import NEEDED, guessed
from sparsezo_gui.recipe.recipe import DataTable

FIXES: dict[str, tuple[str, Any]] = {
    "leave_out_gaps": ("Skip these rows", True), "merge_labels": ("Merge these labels", True),
    "duplicates": ("Remove duplicates", "remove"),
}  # fmt: skip
"""By setting: the button that makes it, and the value."""


@dataclass(frozen=True)
class Advice:
    """A text, empty if nothing is to be said; its ``button`` makes the settings ``sets``."""

    text: str = ""
    level: str = "info"
    button: str = ""
    sets: dict[str, Any] = field(default_factory=dict)


def about(preview: DataPreview, data: DataTable, tasks: Sequence[Task]) -> Advice:
    """Another task that the columns suggest, else columns for parts without one, else notices."""
    if other := _task(preview, data, tasks):
        return other
    if preview.suggestion:
        said = f"Some prompt fields have no column yet. Suggested: {_listed(preview.suggestion)}."
        return Advice(said, button="Use suggestion", sets={"columns": {**data.columns, **preview.suggestion}})
    return _notices(preview)


def _listed(columns: dict[str, str]) -> str:
    return " and ".join(f"column '{name}' as {part}" for part, name in columns.items())


def _task(preview: DataPreview, data: DataTable, tasks: Sequence[Task]) -> Advice | None:
    """Another task, if the columns do not have the parts of this one."""
    if data.columns or all(part in preview.columns_of for part in NEEDED.get(data.task, ())):
        return None
    guess = guessed(preview.columns, preview.rows, tasks)
    if guess is None or guess.task == data.task:
        return None
    title = next(task.title for task in tasks if task.name == guess.task)
    said = f"These columns look like '{title}': {_listed(guess.columns)}."
    sets = {"task": guess.task, "columns": guess.columns, "template": "", "answers": []}
    return Advice(said, button="Use this task", sets=sets)


def _notices(preview: DataPreview) -> Advice:
    """An unusable tokenizer, missing values, and the notices of a run, with a button that fixes the problem."""
    sentences = ["Some rows are incomplete; see below."] if preview.problem and preview.offer else []
    sentences += [notice.text for notice in preview.notices]
    if preview.tokenizer_problem:
        why = preview.tokenizer_problem.split("\n")[0]  # the Model page shows all of it
        sentences.insert(0, f"Tokens cannot be shown. {why}")
    warns = preview.problem or preview.tokenizer_problem or any(n.level == "warning" for n in preview.notices)
    mark = "• " if len(sentences) > 1 else ""
    text = "\n".join(f"{mark}{each}" for each in sentences)
    button, value = FIXES.get(preview.offer, ("", None))
    return Advice(text, "warning" if warns else "info", button, {preview.offer: value} if button else {})
