"""What follows from another model or other data: the name of the run, and the text that its mask is found on."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

from sparsezo_gui import resources
from sparsezo_gui.formats import COMPRESSED, data_suffixes
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe.paths import RUN

LONGEST = 30  # of each part of a name


def followed(before: Recipe, after: Recipe, own: str) -> dict[str, dict[str, Any]]:
    """Settings of ``after``, by table, that only suited the model or the data of ``before``; ``own`` is the name of the
    recipe's file."""
    found: dict[str, dict[str, Any]] = {}
    if (before.model.id, before.data.source) == (after.model.id, after.data.source):
        return found
    if after.run.name in {own, *resources.recipes()}:
        found["run"] = {"name": ""}
    source, field = before.data.source, type(after.mask).model_fields.get("text")
    if field and source in resources.BUNDLED_TEXT and source != after.data.source and after.mask.text == source:  # type: ignore[attr-defined]
        found["mask"] = {"text": field.default}
    return found


def named(recipe: Recipe) -> Recipe:
    """The recipe with a name for its run: its own, or model, data and day."""
    if recipe.run.name:
        return recipe
    parts = (short(recipe.model.id)[:LONGEST], short(recipe.data.source)[:LONGEST], date.today().isoformat())
    return recipe.model_copy(update={"run": recipe.run.model_copy(update={"name": "-".join(parts)})})


def short(place: str) -> str:
    """The last part of a path, a Hub id or a run's name, without the suffix of a file."""
    name = Path(place.removeprefix("ollama:").removeprefix(RUN)).name
    for suffix in (*COMPRESSED, *data_suffixes(), ".gguf", ".safetensors"):
        name = name.removesuffix(suffix)
    return name or place
