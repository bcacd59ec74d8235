"""Presets by goal, as plain data. Each sets the whole method: mask, estimator and update.

All find their learning rate, and start looking at the one that follows from the rules and from the rate that suits the
model (see `sparsezo_gui.recipe.rates`).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sparsezo_gui import resources
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.recipe import Recipe
from sparsezo_gui.recipe.registry import MASKS
from sparsezo_gui.recipe.tables import build

METHOD = ("mask", "estimator", "update")

SENSITIVE = {"rule": "sensitive", "density": 0.001, "blocks": "all"}
DENSE = {"bits": 16, "compute": "auto"}  # 4-bit and 8-bit weights cannot be updated in place
TWO_SIDED = {"rule": "two-sided", "directions": 1}
NORMALISED = {"rule": "scalar-normalised", "find_rate": True, "schedule": "linear", "decay": 0.0}
EXACT = {"rule": "adam", "find_rate": True, "schedule": "linear", "decay": 0.0}


@dataclass(frozen=True)
class Preset:
    """A name, its goal in a sentence, and the settings by table that are not defaults."""

    title: str
    goal: str
    settings: dict[str, dict[str, Any]]

    def recipe(self, recipe: Recipe, **model: Any) -> Recipe:
        """``recipe`` with this method, and with settings of its ``model``: what the preset does not name gets its
        default, so that nothing of an earlier method stays. A general text is that of the bundled data, if the recipe
        uses them. Raises `UserError`."""
        whole = recipe.model_dump(mode="json")
        made: dict[str, dict[str, Any]] = {table: dict(self.settings[table]) for table in METHOD}
        text = MASKS[made["mask"]["rule"]].model_fields.get("text")
        if text and text.default == "general" and recipe.data.source in resources.BUNDLED_TEXT:
            made["mask"]["text"] = recipe.data.source
        if recipe.privacy.private:  # a search for the rate would reveal its training examples
            made["update"]["find_rate"] = False
        made["model"] = {**whole["model"], **model, **self.settings.get("model", {})}
        return build({**whole, **made})


PRESETS = (
    Preset(
        "Sensitive 0.1\u00a0%", "The default of a recipe file: tunes the few weights that matter most.",
        {"mask": SENSITIVE, "estimator": TWO_SIDED, "update": NORMALISED},
    ),
    Preset(
        "Exact gradients", "Backprop, one block at a time: learns most per step, in somewhat more memory.",
        {"mask": {"rule": "sensitive", "density": 0, "blocks": "all"}, "estimator": {"rule": "first-order"},
         "update": EXACT},
    ),
    Preset(
        "Exact, last half", "Backprop into LoRA adapters of the last half of the blocks; the others run only once.",
        {"mask": {"rule": "lora", "rank": 8, "blocks": "half"}, "estimator": {"rule": "first-order"},
         "update": EXACT},
    ),
    Preset(
        "Gradient subspace", "Forward passes along a few directions, found now and then from gradients of examples.",
        {"mask": {"rule": "gradient-subspace", "density": 0, "blocks": "half"}, "estimator": TWO_SIDED,
         "update": NORMALISED},
    ),
    Preset(
        "Careful", "Four directions per step: slower and steadier.",
        {"mask": SENSITIVE, "estimator": {**TWO_SIDED, "directions": 4}, "update": NORMALISED},
    ),
    Preset(
        "Fast and rough", "Tunes along the main directions of each layer's inputs: learns fastest.",
        {"mask": {"rule": "activation-subspace", "rank": 1, "blocks": "all"}, "estimator": TWO_SIDED,
         "update": NORMALISED},
    ),
    Preset(
        "A direction per example", "One direction per example at the cost of a single one: less noise in each step.",
        {"mask": SENSITIVE, "estimator": {"rule": "grzo"}, "update": NORMALISED},
    ),
    Preset(
        "Last block exactly", "Backprop in the last block, zeroth-order in the others; needs somewhat more memory.",
        {"mask": SENSITIVE, "estimator": {"rule": "elastic", "blocks": 1}, "update": NORMALISED},
    ),
    Preset(
        "Random control", "The same number of random weights: shows how much choosing sensitive ones helps.",
        {"mask": {**SENSITIVE, "rule": "random"}, "estimator": TWO_SIDED, "update": NORMALISED},
    ),
    Preset(
        "Sparse MeZO", "Tunes the smallest weights of every block, chosen anew at each step; needs 16 bits.",
        {"model": DENSE, "mask": {"rule": "small-magnitude-dynamic", "smallest": 0.2, "blocks": "all"},
         "estimator": TWO_SIDED, "update": NORMALISED},
    ),
    Preset(
        "MeZO (all)", "Tunes every weight of the blocks: the baseline for all other methods; needs 16 bits.",
        {"model": DENSE, "mask": {"rule": "all", "blocks": "all"}, "estimator": TWO_SIDED, "update": NORMALISED},
    ),
)  # fmt: skip


def matching(recipe: Recipe) -> Preset | None:
    """The preset whose method the recipe has."""
    for preset in PRESETS:
        rules = {table: preset.settings[table]["rule"] for table in METHOD}
        if any(getattr(recipe, table).rule != rule for table, rule in rules.items()):
            continue  # at once, since lists of many runs ask for each
        with suppress(UserError):  # the rest of the recipe does not allow it
            if preset.recipe(recipe) == recipe:
                return preset
    return None


def preset(title: str) -> Preset:
    """The preset called ``title``."""
    return next(each for each in PRESETS if each.title == title)
