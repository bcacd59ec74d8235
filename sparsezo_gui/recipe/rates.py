"""Which learning rate fits when a part of the method changes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sparsezo_gui.recipe.parts import MaskRule, Update
from sparsezo_gui.recipe.variants import shown

if TYPE_CHECKING:
    from sparsezo_gui.recipe.recipe import Recipe


def in_weights(update: type[Update]) -> bool:
    """Whether an update's rate is in units of weights, and so does not depend on the size of the gradients."""
    return shown(update.model_fields["learning_rate"]).unit == "weight"


def highest(update: type[Update]) -> float:
    """The largest rate that an update accepts."""
    return next(float(bound.le) for bound in update.model_fields["learning_rate"].metadata if hasattr(bound, "le"))


def times(mask: type[MaskRule], update: type[Update]) -> float:
    """Rate of ``update`` on ``mask``, relative to its rate on the sensitive weights.

    If the rate multiplies the gradient, the factor is squared: weights that allow larger steps also have smaller
    gradients. Factors below one, of masks of all weights, apply only to rates in units of weights; for other rates the
    default is MeZO's own.
    """
    factor = mask.rate_factor
    return factor if in_weights(update) else max(factor, 1.0) ** 2


def suited(before: Recipe, after: Recipe) -> float:
    """The rate for ``after``, which differs from ``before`` in some rules, given that the rate of ``before`` fits.

    An update whose rate has another meaning gets its `usual` one.
    """
    if not _alike(before, after):
        return usual(after)
    return _times(before.update.learning_rate, _factor(after) / _factor(before), type(after.update))


def usual(recipe: Recipe) -> float:
    """The rate for ``recipe``, if nothing else is known: its update's default, times what the other rules change.

    It depends on the mask, and, for an update that uses the plain mean of n directions, on n: that mean is √n times
    shorter than one direction.
    """
    update = type(recipe.update)
    return _times(float(update.model_fields["learning_rate"].default), _factor(recipe), update)


def _times(rate: float, factor: float, update: type[Update]) -> float:
    return min(rate if factor == 1.0 else float(f"{rate * factor:.2g}"), highest(update))


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
