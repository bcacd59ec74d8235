"""Which parts of a method work together. Other combinations are refused with the reason and the nearest fix."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sparsezo_gui import resources
from sparsezo_gui.recipe.registry import SPACES

if TYPE_CHECKING:
    from sparsezo_gui.recipe.recipe import Recipe


MOST_IN_POOL = 4096  # examples to choose a core set from; all pairwise distances are kept in memory


def refusal(recipe: Recipe) -> str:
    """Why the parts of ``recipe`` do not work together, in sentences; empty if they do."""
    estimator, update = recipe.estimator, recipe.update
    if reason := SPACES[recipe.mask.space].refusal(recipe):
        return reason
    if update.forward_passes and estimator.exact:
        return (
            f"[update] rule = '{update.rule}' tries each step along random directions before taking it, and "
            f"[estimator] rule = '{estimator.rule}' computes part of the step by backpropagation. Set [update] rule = "
            "'sgd', or [estimator] rule = 'two-sided'."
        )
    if estimator.backwards and recipe.model.compute == "int8":
        return (
            f"[estimator] rule = '{estimator.rule}' uses backpropagation, and [model] compute = 'int8' rounds "
            "activations, which has no gradient. Set [model] compute = 'auto', or [estimator] rule = 'two-sided'."
        )
    if estimator.backwards and recipe.objective.counts:
        return (
            f"[estimator] rule = '{estimator.rule}' uses backpropagation, and [objective] rule = "
            f"'{recipe.objective.rule}' has no gradient. Set [estimator] rule = 'two-sided', or [objective] rule = "
            "'likelihood'."
        )
    return recipe.objective.refusal(recipe.data.task) or _written(recipe) or _chosen(recipe) or _private(recipe)


def _written(recipe: Recipe) -> str:
    if not recipe.objective.writes:
        return ""
    for table, rule, why in (
        ("estimator", "two-sided" if recipe.estimator.per_example else "", "draws one direction per example"),
        ("selection", "shuffled" if recipe.selection.rule != "shuffled" else "", "evaluates many more examples"),
        ("privacy", "none" if recipe.privacy.private else "", "needs a separate loss for each example"),
    ):
        if rule:
            return (
                f"[{table}] rule = '{getattr(recipe, table).rule}' {why}, and [objective] rule = "
                f"'{recipe.objective.rule}' generates answers for the whole batch at once. Set [{table}] rule = "
                f"'{rule}', or [objective] rule = 'likelihood'."
            )
    return ""


def _chosen(recipe: Recipe) -> str:
    candidates = recipe.selection.candidates(recipe.loop.batch_size)
    if not candidates:
        return ""
    if candidates > MOST_IN_POOL:
        return (
            f"[selection] rule = '{recipe.selection.rule}' makes a pool of {candidates:,} examples, but at most "
            f"{MOST_IN_POOL:,} can be compared in pairs. Set a smaller [selection] pool or [loop] batch_size."
        )
    return ""


def _private(recipe: Recipe) -> str:
    if not recipe.privacy.private:
        return ""
    rule = f"[privacy] rule = '{recipe.privacy.rule}'"
    if recipe.estimator.rule not in ("two-sided", "auto"):
        return (
            f"{rule} adds noise to the projected gradient of each example, and [estimator] rule = "
            f"'{recipe.estimator.rule}' measures something else. Set [estimator] rule = 'two-sided', or [privacy] rule "
            "= 'none'."
        )
    if recipe.update.recorded:
        return (
            f"{rule} protects what the estimator measures, and [update] rule = '{recipe.update.rule}' measures "
            "additional losses. Set [update] rule = 'scalar-normalised', or [privacy] rule = 'none'."
        )
    if recipe.selection.rule != "shuffled":
        return (
            f"{rule} draws its batches at random, and [selection] rule = '{recipe.selection.rule}' chooses them by "
            "their content. Set [selection] rule = 'shuffled', or [privacy] rule = 'none'."
        )
    if recipe.update.find_rate:
        return (
            f"{rule} protects the training examples, and [update] find_rate = true compares learning rates on them. "
            "Give a learning_rate that was found on similar examples, and set find_rate = false."
        )
    mask, data = recipe.mask, recipe.data
    texts = set(mask.names) - resources.BUNDLED_TEXT.keys()
    if mask.reads_task or any(_one_in_the_other(data.source, text) for text in texts):
        several = "texts" in type(mask).model_fields
        general = mask.model_copy(update={"texts": ("general",)} if several else {"text": "general"})
        key = "texts = ['general']" if several else "text = 'general'"
        remedy = "rule = 'sensitive'" if general.reads_task else key
        return (
            f"{rule} protects the training examples, and this [mask] chooses weights from them. Set [mask] "
            f"{remedy}, or [privacy] rule = 'none'."
        )
    return recipe.privacy.refusal(data)


def _one_in_the_other(one: str, other: str) -> bool:
    """Whether two paths, however they are written, are the same, or one contains the other."""
    try:
        first, second = Path(one).expanduser().resolve(), Path(other).expanduser().resolve()
    except (OSError, ValueError, RuntimeError):  # too long, a null byte in it, a loop of links: not a readable file
        return one == other
    return first.is_relative_to(second) or second.is_relative_to(first)
