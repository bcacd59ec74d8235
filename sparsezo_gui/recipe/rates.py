"""Which learning rate suits when a part of the method changes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparsezo_gui.recipe.recipe import Recipe


def in_weights(update: type[Any]) -> bool:
    """Whether an update's rate is in units of weights, and so the same for models whose slopes differ."""
    return update.model_fields["learning_rate"].json_schema_extra["unit"] == "weight"


def highest(update: type[Any]) -> float:
    """The largest rate that an update takes."""
    return next(bound.le for bound in update.model_fields["learning_rate"].metadata if hasattr(bound, "le"))


def times(mask: type[Any], update: type[Any]) -> float:
    """By how much the rate of ``update`` is larger on ``mask`` than on the sensitive weights.

    Where the rate is per unit of slope, weights that take larger steps have smaller slopes as well: the square. A
    factor below one, of masks that hold all weights, is for rates in weights alone; others are MeZO's own by default.
    """
    factor = getattr(mask, "rate_factor", 1.0)
    return factor if in_weights(update) else max(factor, 1.0) ** 2


def suited(before: Recipe, after: Recipe) -> float:
    """The rate of ``after``, in which some rules are others than in ``before``, where a rate is known to suit.

    It goes with the mask, and with the number of directions where their mean is taken as it is: it is shorter than one
    of them by the root of their number. An update whose rate means something else begins with its own default.
    """
    update = type(after.update)
    rate, factor = before.update.learning_rate, _factor(after) / _factor(before)
    if not _alike(before, after):
        rate, factor = update.model_fields["learning_rate"].default, _factor(after)
    if factor != 1.0:
        rate = float(f"{rate * factor:.2g}")
    return min(rate, highest(update))


def _alike(before: Recipe, after: Recipe) -> bool:
    """Whether their rates mean the same."""
    old, new = type(before.update), type(after.update)
    return old is new or (in_weights(old) and in_weights(new))


def _factor(recipe: Recipe) -> float:
    """By how much the rate is larger than on the sensitive weights along a single direction."""
    found = times(type(recipe.mask), type(recipe.update))
    if recipe.update.shortens:
        found *= math.sqrt(max(1, recipe.estimator.averaged(recipe.loop.batch_size)))
    return found
