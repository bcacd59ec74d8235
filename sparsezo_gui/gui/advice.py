"""Advice on the choice of method: the way to tune that is recommended here, and which limits the papers report."""

from __future__ import annotations

from sparsezo_gui.answers import MemoryEstimate, Plan
from sparsezo_gui.gui.formatting import count, size
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe.registry import SPACES
from sparsezo_gui.recipe.ways import AUTO, uses

MAX_SENTENCES = 3
GRADIENT_FREE = ("random", "large-magnitude", "small-magnitude")  # rules that use no gradient
SPARSE = 0.01  # density up to which the choice of weights matters most
DENSE = 0.2  # density at which Sparse MeZO starts to work, with an unquantised model
TOO_FEW = 1000  # tuned values; measured: 300 are too few for the bundled model


def advice(estimate: MemoryEstimate | None, recipe: Recipe, parameters: int = 0, plan: Plan | None = None) -> list[str]:
    """At most three sentences for ``recipe``; none without a memory ``estimate``.

    ``parameters`` is the model's parameter count, or 0 if unknown; ``plan`` has the ways to tune here, if known.
    """
    if estimate is None:
        return []
    density = 1.0 if _tunes_every_weight(recipe) else getattr(recipe.mask, "density", None)
    sentences = [_choice(estimate, recipe, plan)]
    if density is not None:
        sentences += [_dense(estimate, recipe, density), _few(density * parameters), _gradient_free(recipe, density)]
    return [sentence for sentence in sentences if sentence][:MAX_SENTENCES]


def _choice(estimate: MemoryEstimate, recipe: Recipe, plan: Plan | None) -> str:
    """What was chosen, or what to choose instead of what does not fit; else the ways' own card recommends one."""
    if recipe.estimator.rule == AUTO:
        return estimate.chosen
    if plan is None or plan.best is None or estimate.verdict != "too large" or uses(recipe, plan.best.tables):
        return ""
    return f"This does not fit in memory. Recommended: {plan.why}"


def _tunes_every_weight(recipe: Recipe) -> bool:
    """Whether the weights are tuned in place, rather than a few values beside them."""
    in_place: bool = SPACES[recipe.mask.space].in_place
    return in_place


def _dense(estimate: MemoryEstimate, recipe: Recipe, density: float) -> str:
    if density < DENSE:
        return ""
    if _tunes_every_weight(recipe):
        return (
            f"Tuning every weight only suits small models: all are stored in {recipe.model.bits} bits, because "
            "quantised weights cannot be updated."
        )
    values = estimate.part("Tuned values")
    taken = f" and take {size(values)} of the {size(estimate.total)}" if values else ""
    bits = f"; storing the frozen weights in {recipe.model.bits} bits does not change that" if taken else ""
    kept = f"tuned values are stored in 32 bits{taken}{bits if recipe.model.bits < 16 else ''}"
    return f"Tuning {100 * density:.3g} % of the weights only suits small models: {kept}."


def _few(tuned: float) -> str:
    if not 0 < tuned < TOO_FEW:
        return ""
    return (
        f"At most {count(tuned)} weights are tuned. In the bundled model, 300 learned far less than 3\u2009000; a "
        "higher density may help."
    )


def _gradient_free(recipe: Recipe, density: float) -> str:
    if recipe.mask.rule not in GRADIENT_FREE or density > SPARSE:
        return ""
    found = "Of the mask rules compared in arXiv 2406.02913, only the sensitive one stays accurate at 0.1 % density."
    rate = " With SGD, a mask like this needs 25 to 1\u2009000 times the learning rate of the sensitive one."
    return found + (rate if recipe.update.rule == "sgd" else "")
