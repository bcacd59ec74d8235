"""Presets by goal, as plain data: what each sets in the recipe. Everything else stays as it is.

The learning rate goes with the rules (see `sparsezo_gui.recipe.rates`), from the one that suits the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sparsezo_gui.recipe.recipe import Recipe

SENSITIVE = {"rule": "sensitive", "density": 0.001}
DENSE = {"bits": 16, "compute": "auto"}  # weights in fewer bits cannot be moved
TWO_SIDED = {"rule": "two-sided", "directions": 1}
NORMALISED = {"rule": "scalar-normalised", "schedule": "constant"}


@dataclass(frozen=True)
class Preset:
    """A name, its goal in a sentence, and settings by table."""

    title: str
    goal: str
    settings: dict[str, dict[str, Any]]


PRESETS = (
    Preset(
        "Sensitive 0.1\u00a0%", "The usual choice: tunes the few weights that matter most.",
        {"mask": SENSITIVE, "estimator": TWO_SIDED, "update": NORMALISED},
    ),
    Preset(
        "Careful", "Four directions a step and a falling rate: slower, steadier.",
        {"mask": SENSITIVE, "estimator": {**TWO_SIDED, "directions": 4},
         "update": {**NORMALISED, "schedule": "cosine"}},
    ),
    Preset(
        "Fast and rough", "Along the main directions of each layer's inputs, at a falling rate: learns soonest.",
        {"mask": {"rule": "activation-subspace", "rank": 1}, "estimator": TWO_SIDED,
         "update": {**NORMALISED, "schedule": "linear"}},
    ),
    Preset(
        "A direction per example", "As many directions as examples for the price of one: less noise in each step.",
        {"mask": SENSITIVE, "estimator": {"rule": "grzo"}, "update": NORMALISED},
    ),
    Preset(
        "Last block exactly", "Back-propagates through the last block, feels its way in the others; some more memory.",
        {"mask": SENSITIVE, "estimator": {"rule": "elastic", "blocks": 1}, "update": NORMALISED},
    ),
    Preset(
        "Random control", "As many weights, drawn blindly: shows what sensitivity is worth.",
        {"mask": {**SENSITIVE, "rule": "random"}, "estimator": TWO_SIDED, "update": NORMALISED},
    ),
    Preset(
        "Sparse MeZO", "Tunes the small weights of every block, as they are at each step; 16 bits.",
        {"model": DENSE, "mask": {"rule": "small-magnitude-dynamic", "smallest": 0.2}, "estimator": TWO_SIDED,
         "update": {**NORMALISED, "decay": 0.0}},
    ),
    Preset(
        "MeZO (all)", "Tunes every weight of the blocks: the baseline that all others are compared with; 16 bits.",
        {"model": DENSE, "mask": {"rule": "all"}, "estimator": TWO_SIDED, "update": {**NORMALISED, "decay": 0.0}},
    ),
)  # fmt: skip


def matching(recipe: Recipe) -> Preset | None:
    """The preset whose settings the recipe has."""
    tables = recipe.model_dump(mode="json")
    for preset in PRESETS:
        if all(tables[table].items() >= values.items() for table, values in preset.settings.items()):
            return preset
    return None
