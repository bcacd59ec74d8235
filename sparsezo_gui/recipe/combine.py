"""Which parts of a method go together. What does not is refused with the reason, and the nearest that works."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sparsezo_gui.recipe.recipe import Recipe


def refusal(recipe: Recipe) -> str:
    """Why the parts of ``recipe`` do not go together, in sentences; empty where they do."""
    mask, estimator, update, bits = recipe.mask, recipe.estimator, recipe.update, recipe.model.bits
    space = getattr(mask, "space", "entries")
    if space == "dense":
        if bits < 16:
            return (
                f"[mask] rule = '{mask.rule}' tunes every weight, and weights in {bits} bits cannot be moved. Set "
                "[model] bits = 32 or 16, or [mask] rule = 'sensitive', which tunes a few on frozen ones."
            )
        if not estimator.plain or estimator.own or estimator.exact:
            return (
                f"[estimator] rule = '{estimator.rule}' needs vectors as long as what is tuned, and [mask] rule = "
                f"'{mask.rule}' tunes every weight. Set [estimator] rule = 'two-sided', or [mask] rule = 'sensitive'."
            )
        if update.long or update.decay:
            what = "decay" if update.decay else f"rule = '{update.rule}'"
            return (
                f"[update] {what} needs a copy of what is tuned, and [mask] rule = '{mask.rule}' tunes every weight. "
                "Set [update] rule = 'scalar-normalised' and decay = 0, or [mask] rule = 'sensitive'."
            )
    if update.sides and estimator.exact:
        return (
            f"[update] rule = '{update.rule}' tries a step along the directions before it is taken, and [estimator] "
            f"rule = '{estimator.rule}' finds a part of the step without them. Set [update] rule = 'sgd', or "
            "[estimator] rule = 'two-sided'."
        )
    if space != "entries" and estimator.own:
        return (
            f"[estimator] rule = '{estimator.rule}' gives every example a direction of its own, which is cheap for a "
            f"few entries only, and [mask] rule = '{mask.rule}' tunes others. Set [estimator] rule = 'two-sided', "
            "or [mask] rule = 'sensitive'."
        )
    return ""
