"""What is special about a run, in one line."""

from __future__ import annotations

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


def _changed(before: Recipe, after: Recipe) -> dict[str, tuple[Any, Any]]:
    old, new = (
        {(table, key): value for table, content in recipe.model_dump(mode="json", exclude={"version", "run"}).items()
         for key, value in content.items()} for recipe in (before, after)
    )  # fmt: skip
    places = [place for place in {**old, **new} if old.get(place) != new.get(place)]
    return {".".join(place): (old.get(place, "–"), new.get(place, "–")) for place in places}
