"""What is special about a run, in one line, and how runs differ, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparsezo_gui.answers import RunSummary
from sparsezo_gui.errors import UserError
from sparsezo_gui.gui import formatting
from sparsezo_gui.recipe import Recipe, load


def differences(run: RunSummary) -> str:
    """How a branch's recipe differs from its parent's, or the main settings of a run without a parent."""
    try:
        recipe = load(Path(run.path) / "recipe.toml")
        if not run.parent:
            steps = f"{formatting.count(recipe.loop.steps)} steps of {recipe.loop.batch_size} examples"
            return f"{type(recipe.mask).title}, {type(recipe.update).title} {recipe.update.learning_rate:g}, {steps}"
        before = load(Path(run.parent) / "recipe.toml")
    except UserError as error:
        return str(error)
    changed = [f"{key} {old} → {new}" for key, (old, new) in _changed(before, recipe).items()]
    return "Changed: " + (", ".join(changed) or "nothing")


def table(folders: Sequence[Path]) -> dict[str, list[str]]:
    """The settings in which the recipes in some run folders differ, each with its value in every run."""
    values: list[dict[tuple[str, str], Any]] = []
    for folder in folders:
        try:
            values.append(_values(load(folder / "recipe.toml")))
        except UserError:  # told where the run itself is shown
            values.append({})
    places = dict.fromkeys(place for each in values for place in each)
    rows = {".".join(place): [each.get(place, "–") for each in values] for place in places}
    return {name: list(map(str, row)) for name, row in rows.items() if any(value != row[0] for value in row)}


def _values(recipe: Recipe) -> dict[tuple[str, str], Any]:
    whole = recipe.model_dump(mode="json", exclude={"version", "run"})
    found = {(table, key): value for table, content in whole.items() for key, value in content.items()}
    return {**found, ("data", "leave_out"): _LeftOut(recipe.data.leave_out)}


class _LeftOut(tuple[str, ...]):
    """The names of rows, of which people are told how many there are."""

    def __str__(self) -> str:
        return "1 row" if len(self) == 1 else f"{len(self):,} rows"


def _changed(before: Recipe, after: Recipe) -> dict[str, tuple[Any, Any]]:
    old, new = _values(before), _values(after)
    places = [place for place in {**old, **new} if old.get(place) != new.get(place)]
    return {".".join(place): (old.get(place, "–"), new.get(place, "–")) for place in places}
