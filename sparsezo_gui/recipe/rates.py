"""Which learning rate fits when a part of the method changes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparsezo_gui.recipe.recipe import Recipe


def in_weights(update: type[Any]) -> bool:
    """Whether an update's rate is in units of weights, and so does not depend on the size of the gradients."""
    return update.model_fields["learning_rate"].json_schema_extra["unit"] == "weight"


def highest(update: type[Any]) -> float:
    """The largest rate that an update accepts."""
    return next(bound.le for bound in update.model_fields["learning_rate"].metadata if hasattr(bound, "le"))


def times(mask: type[Any], update: type[Any]) -> float:
    """Rate of ``update`` on ``mask``, relative to its rate on the sensitive weights.

    If the rate multiplies the gradient, the factor is squared: weights that allow larger steps also have smaller
    gradients. Factors below one, of masks of all weights, apply only to rates in units of weights; for other rates the
    default is MeZO's own.
    """
    factor = getattr(mask, "rate_factor", 1.0)
    return factor if in_weights(update) else max(factor, 1.0) ** 2


def suited(before: Recipe, after: Recipe) -> float:
    """The rate for ``after``, which differs from ``before`` in some rules, given that the rate of ``before`` fits.

    It depends on the mask, and, for an update that uses the plain mean of n directions, on n: that mean is √n times
    shorter than one direction. An update whose rate has another meaning starts from its own default.
    """
    update = type(after.update)
    rate, factor = before.update.learning_rate, _factor(after) / _factor(before)
    if not _alike(before, after):
        rate, factor = update.model_fields["learning_rate"].default, _factor(after)
    if factor != 1.0:
        rate = float(f"{rate * factor:.2g}")
    return min(rate, highest(update))


def _alike(before: Recipe, after: Recipe) -> bool:
    """Whether their rates have the same meaning."""
    old, new = type(before.update), type(after.update)
    return old is new or (in_weights(old) and in_weights(new))


def _factor(recipe: Recipe) -> float:
    """The rate relative to that on the sensitive weights along a single direction."""
    found = times(type(recipe.mask), type(recipe.update))
    if recipe.update.averages:
        found *= math.sqrt(max(1, recipe.estimator.averaged(recipe.loop.batch_size)))
    return found
