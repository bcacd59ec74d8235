"""What follows from another model or other data: the name of the run, the text that its mask is found on, and, after
the starter, the method."""

from __future__ import annotations

from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

from sparsezo_gui import resources
from sparsezo_gui.errors import UserError
from sparsezo_gui.formats import COMPRESSED, data_suffixes
from sparsezo_gui.recipe import Recipe, build, load
from sparsezo_gui.recipe.paths import RUN
from sparsezo_gui.recipe.presets import preset
from sparsezo_gui.recipe.tables import changed
from sparsezo_gui.recipe.ways import AUTO, STEPS

LONGEST = 30  # of each part of a name
USUAL = {
    "Gradient subspace": {"steps": STEPS["forward-subspace"], "evaluate_every": STEPS["forward-subspace"] // 5},
    "Sensitive 0.1\u00a0%": {"steps": STEPS["forward"], "evaluate_every": STEPS["forward"] // 10},  # private runs
}
"""Presets with steps for a model of which nothing is known: forward passes that learn in the least time."""


def following(before: Recipe, after: Recipe, own: str) -> Recipe:
    """``after`` without the settings that only suited the model or the data of ``before``; ``own`` is the name of the
    recipe's file."""
    if (before.model.id, before.data.source) == (after.model.id, after.data.source):
        return after
    found: dict[str, dict[str, Any]] = {}
    if after.run.name in {own, *resources.recipes()}:
        found["run"] = {"name": ""}
    source, field = before.data.source, type(after.mask).model_fields.get("text")
    if field and source in resources.BUNDLED_TEXT and source != after.data.source and after.mask.text == source:  # type: ignore[attr-defined]
        found["mask"] = {"text": field.default}
    made = changed(after, found) if found else after
    if before.model.id == after.model.id or (bundled := _bundled(after)) is None:
        return made
    return usual(made, after.loop == bundled.loop)


def usual(recipe: Recipe, with_steps: bool) -> Recipe:
    """``recipe`` with the method for a model of which nothing is known, and with its steps if wanted: the first of
    `USUAL` that goes with its other parts, or the user's own default 'auto'."""
    if recipe.estimator.rule == AUTO:
        whole = recipe.model_dump(mode="json", exclude={"mask", "update"})
        return build({**whole, "estimator": {"rule": AUTO}})
    for title, loop in USUAL.items():
        with suppress(UserError):
            return changed(preset(title).recipe(recipe), {"loop": loop if with_steps else {}})
    return recipe


def _bundled(recipe: Recipe) -> Recipe | None:
    """The bundled recipe, suited to its own small model, whose method ``recipe`` still has, but for the mask's text."""

    def method(each: Recipe) -> tuple[object, ...]:
        return each.mask.model_dump(exclude={"text"}), each.update

    def same(other: Recipe) -> bool:
        return method(recipe) == method(other) and recipe.estimator.rule in (AUTO, other.estimator.rule)

    return next(filter(same, map(load, resources.recipes())), None)


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
