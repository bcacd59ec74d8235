"""Advice on the choice of method: what else would fit, and which limits the papers report."""

from __future__ import annotations

from typing import Any

from sparsezo_gui.gui.words import count, size
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe.registry import SPACES

MOST = 3
OTHERS = {"full": "Full fine-tuning", "qlora": "QLoRA", "lora": "LoRA"}  # the first that fits is named
BLIND = ("random", "large-magnitude", "small-magnitude")  # rules that use no gradient
SPARSE = 0.01  # density up to which the choice of weights matters most
DENSE = 0.2  # density at which Sparse MeZO starts to work, with an unquantised model
FEW = 1000  # tuned values; measured: 300 are too few for the bundled model


def advice(estimate: Any, recipe: Recipe, parameters: int = 0) -> list[str]:
    """At most three sentences for ``recipe``; none without a memory ``estimate``.

    ``parameters`` is the model's parameter count, or 0 if unknown.
    """
    if estimate is None:
        return []
    density = 1.0 if _everything(recipe) else getattr(recipe.mask, "density", None)
    told = [_memory(estimate)]
    if density is not None:
        told += [_dense(estimate, recipe, density), _few(density * parameters), _blind(recipe, density)]
    return [sentence for sentence in told if sentence][:MOST]


def _memory(estimate: Any) -> str:
    needs, available = estimate.others, estimate.available
    fits = next((name for name in OTHERS if needs.get(name, available + 1) <= available), "")
    if not fits:
        if estimate.total > available or not needs:
            return ""
        least = min(needs, key=needs.__getitem__)
        return (
            f"Only this method fits: it needs {size(estimate.total)} of {size(available)}. Of the others, "
            f"{OTHERS.get(least, least)} needs the least: {size(needs[least])}."
        )
    if estimate.total > available:
        return f"{OTHERS[fits]} would fit in memory ({size(needs[fits])} of {size(available)}); this method does not."
    saved = needs[fits] - estimate.total
    gain = f"uses {size(saved)} less memory, and" if saved > 0 else "saves no memory here, but"
    return (
        f"{OTHERS[fits]} would also fit in memory ({size(needs[fits])} of {size(available)}) and usually needs far "
        f"fewer steps. SparseZO {gain} you can export its run at any step."
    )


def _everything(recipe: Recipe) -> bool:
    """Whether the weights are tuned in place, rather than a few values beside them."""
    return SPACES[recipe.mask.space].in_place


def _dense(estimate: Any, recipe: Recipe, density: float) -> str:
    if density < DENSE:
        return ""
    if _everything(recipe):
        return (
            f"Tuning every weight only suits small models: all are stored in {recipe.model.bits} bits, because "
            "quantised weights cannot be updated."
        )
    values = next((part.bytes for part in estimate.parts if part.name == "Tuned values"), 0)
    taken = f" and take {size(values)} of the {size(estimate.total)}" if values else ""
    bits = f"; storing the frozen weights in {recipe.model.bits} bits does not change that" if taken else ""
    kept = f"tuned values are stored in 32 bits{taken}{bits if recipe.model.bits < 16 else ''}"
    return f"Tuning {100 * density:.3g} % of the weights only suits small models: {kept}."


def _few(tuned: float) -> str:
    if not 0 < tuned < FEW:
        return ""
    return (
        f"At most {count(tuned)} weights are tuned. In the bundled model, 300 learned far less than 3\u2009000; a "
        "higher density may help."
    )


def _blind(recipe: Recipe, density: float) -> str:
    if recipe.mask.rule not in BLIND or density > SPARSE:
        return ""
    found = "Of the mask rules compared in arXiv 2406.02913, only the sensitive one stays accurate at 0.1 % density."
    rate = " With SGD, a mask like this needs 25 to 1\u2009000 times the learning rate of the sensitive one."
    return found + (rate if recipe.update.rule == "sgd" else "")
