"""Which learning rate suits when a part of the method changes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from sparsezo_gui.recipe.registry import ESTIMATORS, MASKS, UPDATES

if TYPE_CHECKING:
    from sparsezo_gui.recipe.recipe import Recipe


def in_weights(update: type[Any]) -> bool:
    """Whether an update's rate is in units of weights, and so the same for models whose slopes differ."""
    return update.model_fields["learning_rate"].json_schema_extra["unit"] == "weight"


def times(mask: type[Any], update: type[Any]) -> float:
    """By how much the rate of ``update`` is larger on ``mask`` than on the sensitive weights.

    Where the rate is per unit of slope, weights that take larger steps have smaller slopes as well: the square.
    """
    factor = getattr(mask, "rate_factor", 1.0)
    return factor if in_weights(update) else factor**2


def _longer(recipe: Recipe, estimator: Any, update: type[Any]) -> float:
    """By how much the rate is larger than for a single direction."""
    return math.sqrt(max(1, estimator.averaged(recipe.loop.batch_size))) if update.shortens else 1.0


def suited(recipe: Recipe, table: str, rule: str) -> float:
    """The rate once ``rule`` takes the place of the one in ``table`` (mask, estimator or update) of ``recipe``.

    It goes with the mask, and with the number of directions where their mean is taken as it is: it is shorter than one
    of them by the root of their number. An update whose rate means something else begins with its own default.
    """
    mask, update, rate = type(recipe.mask), type(recipe.update), recipe.update.learning_rate
    new_mask = MASKS[rule] if table == "mask" else mask
    new_update = UPDATES[rule] if table == "update" else update
    new_estimator = ESTIMATORS[rule]() if table == "estimator" else recipe.estimator
    if new_update is update or (in_weights(update) and in_weights(new_update)):
        rate /= times(mask, update) * _longer(recipe, recipe.estimator, update)
    else:
        rate = new_update.model_fields["learning_rate"].default
    rate *= times(new_mask, new_update) * _longer(recipe, new_estimator, new_update)
    highest = next(bound.le for bound in new_update.model_fields["learning_rate"].metadata if hasattr(bound, "le"))
    return min(float(f"{rate:.2g}"), highest)
