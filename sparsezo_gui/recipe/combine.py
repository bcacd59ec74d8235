"""Which parts of a method go together. What does not is refused with the reason, and the nearest that works."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sparsezo_gui import resources

if TYPE_CHECKING:
    from sparsezo_gui.recipe.recipe import Recipe


MOST_IN_POOL = 4096  # examples of which a core set is chosen; all their distances are held


def refusal(recipe: Recipe) -> str:
    """Why the parts of ``recipe`` do not go together, in sentences; empty where they do."""
    mask, estimator, update, bits = recipe.mask, recipe.estimator, recipe.update, recipe.model.bits
    space = mask.space
    if space == "dense":
        if bits < 16:
            return (
                f"[mask] rule = '{mask.rule}' tunes every weight, and weights in {bits} bits cannot be moved. Set "
                "[model] bits = 32 or 16, or [mask] rule = 'sensitive', which tunes a few on frozen ones."
            )
        if not estimator.plain or estimator.own or estimator.backwards:
            return (
                f"[estimator] rule = '{estimator.rule}' needs vectors as long as what is tuned, and [mask] rule = "
                f"'{mask.rule}' tunes every weight, with directions that are drawn piece by piece. Set "
                "[estimator] rule = 'two-sided', or [mask] rule = 'sensitive'."
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
    if estimator.tail and recipe.model.compute == "int8":
        return (
            f"[estimator] rule = '{estimator.rule}' passes its two sides one after the other, and [model] compute = "
            "'int8' would round each by itself, which buries their difference. Set [model] compute = 'auto', or "
            "[estimator] rule = 'two-sided'."
        )
    if estimator.backwards and recipe.objective.counts:
        return (
            f"[estimator] rule = '{estimator.rule}' back-propagates, and [objective] rule = '{recipe.objective.rule}' "
            "counts, which has no gradient. Set [estimator] rule = 'two-sided', or [objective] rule = 'likelihood'."
        )
    if mask.count > 1 and (estimator.exact or update.long or update.decay):
        if estimator.exact:
            part = f"[estimator] rule = '{estimator.rule}'"
        else:
            part = f"[update] rule = '{update.rule}'" if update.long else f"[update] decay = {update.decay:g}"
        return (
            f"[mask] rule = '{mask.rule}' goes on to another subspace every {mask.refresh} steps, and {part} would "
            "move those it left as well. Set [mask] refresh = 0 to keep to one, or [estimator] rule = 'two-sided' "
            "with [update] rule = 'scalar-normalised' and decay = 0."
        )
    if space != "entries" and estimator.own:
        return (
            f"[estimator] rule = '{estimator.rule}' gives every example a direction of its own, which is cheap for a "
            f"few entries only, and [mask] rule = '{mask.rule}' tunes others. Set [estimator] rule = 'two-sided', "
            "or [mask] rule = 'sensitive'."
        )
    return recipe.objective.refusal(recipe.data.task) or _written(recipe) or _chosen(recipe) or _private(recipe)


def _written(recipe: Recipe) -> str:
    if not recipe.objective.writes:
        return ""
    for table, rule, why in (
        ("estimator", "two-sided" if recipe.estimator.own else "", "gives every example a direction of its own"),
        ("selection", "shuffled" if recipe.selection.rule != "shuffled" else "", "measures many more examples"),
        ("privacy", "none" if recipe.privacy.private else "", "needs a loss of each example apart from all others"),
    ):
        if rule:
            return (
                f"[{table}] rule = '{getattr(recipe, table).rule}' {why}, and [objective] rule = "
                f"'{recipe.objective.rule}' lets the model write answers to a whole batch. Set [{table}] rule = "
                f"'{rule}', or [objective] rule = 'likelihood'."
            )
    return ""


def _chosen(recipe: Recipe) -> str:
    if recipe.selection.rule != "coreset":
        return ""
    if recipe.mask.space == "dense":
        return (
            f"[selection] rule = 'coreset' feels examples along vectors as long as what is tuned, and [mask] rule = "
            f"'{recipe.mask.rule}' tunes every weight. Set [selection] rule = 'shuffled', or [mask] rule = 'sensitive'."
        )
    size = recipe.selection.pool * recipe.loop.batch_size
    if size > MOST_IN_POOL:
        return (
            f"[selection] pool = {recipe.selection.pool} makes a pool of {size:,} examples, and all pairs of at most "
            f"{MOST_IN_POOL:,} can be compared. Set a smaller pool or [loop] batch_size."
        )
    return ""


def _private(recipe: Recipe) -> str:
    if not recipe.privacy.private:
        return ""
    rule = f"[privacy] rule = '{recipe.privacy.rule}'"
    if recipe.estimator.rule != "two-sided":
        return (
            f"{rule} hides the two-sided slopes of single examples, and [estimator] rule = '{recipe.estimator.rule}' "
            "measures something else. Set [estimator] rule = 'two-sided', or [privacy] rule = 'none'."
        )
    if recipe.update.scalars:
        return (
            f"{rule} hides what an estimator measures, and [update] rule = '{recipe.update.rule}' measures losses of "
            "its own. Set [update] rule = 'scalar-normalised', or [privacy] rule = 'none'."
        )
    if recipe.selection.rule != "shuffled":
        return (
            f"{rule} draws its batches blindly, and [selection] rule = '{recipe.selection.rule}' looks at the "
            "examples. Set [selection] rule = 'shuffled', or [privacy] rule = 'none'."
        )
    mask, data = recipe.mask, recipe.data
    texts = set(mask.names) - resources.BUNDLED_TEXT.keys()
    if mask.reads_task or any(_one_in_the_other(data.source, text) for text in texts):
        key = "texts = ['general']" if "texts" in type(mask).model_fields else "text = 'general'"
        return (
            f"{rule} hides the training examples, and this [mask] chooses weights by them. Set [mask] {key}, or "
            "[privacy] rule = 'none'."
        )
    return recipe.privacy.refusal(data)


def _one_in_the_other(one: str, other: str) -> bool:
    """Whether two paths are of one place, or one lies in the other, however they are written."""
    try:
        first, second = Path(one).expanduser().resolve(), Path(other).expanduser().resolve()
    except (OSError, ValueError, RuntimeError):  # too long, a zero in it, links in a circle: no file to be read
        return one == other
    return first.is_relative_to(second) or second.is_relative_to(first)
