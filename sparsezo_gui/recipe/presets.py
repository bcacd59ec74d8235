"""Presets by goal, as plain data: what each sets in the recipe. Everything else stays as it is.

All find their learning rate, and start looking at the one that follows from the rules and from the rate that suits the
model (see `sparsezo_gui.recipe.rates`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sparsezo_gui.recipe.recipe import Recipe

SENSITIVE = {"rule": "sensitive", "density": 0.001, "blocks": "all"}
DENSE = {"bits": 16, "compute": "auto"}  # 4-bit and 8-bit weights cannot be updated in place
TWO_SIDED = {"rule": "two-sided", "directions": 1}
NORMALISED = {"rule": "scalar-normalised", "find_rate": True, "schedule": "linear", "decay": 0.0}
EXACT = {"rule": "adam", "find_rate": True, "schedule": "linear", "decay": 0.0}


@dataclass(frozen=True)
class Preset:
    """A name, its goal in a sentence, and settings by table."""

    title: str
    goal: str
    settings: dict[str, dict[str, Any]]


PRESETS = (
    Preset(
        "Sensitive 0.1\u00a0%", "The default: tunes the few weights that matter most.",
        {"mask": SENSITIVE, "estimator": TWO_SIDED, "update": NORMALISED},
    ),
    Preset(
        "Exact gradients", "Backprop, one block at a time: learns most per step, in somewhat more memory.",
        {"mask": {"rule": "sensitive", "blocks": "all"}, "estimator": {"rule": "first-order"}, "update": EXACT},
    ),
    Preset(
        "Exact, last half", "Backprop into LoRA adapters of the last half of the blocks; the others run only once.",
        {"mask": {"rule": "lora", "rank": 8, "blocks": "half"}, "estimator": {"rule": "first-order"},
         "update": EXACT},
    ),
    Preset(
        "Gradient subspace", "Forward passes along a few directions, found first from gradients of your examples.",
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
    """The preset whose settings the recipe has."""
    tables = recipe.model_dump(mode="json")
    for preset in PRESETS:
        if all(tables[table].items() >= values.items() for table, values in preset.settings.items()):
            return preset
    return None
