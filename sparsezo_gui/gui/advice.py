"""Honest words about the choice of method: what else would fit, and where the papers found limits."""

from __future__ import annotations

from typing import Any

from sparsezo_gui.gui.words import count, size
from sparsezo_gui.recipe import Recipe

MOST = 3
OTHERS = {"full": "Full fine-tuning", "qlora": "QLoRA", "lora": "LoRA"}  # the first that fits is told
BLIND = ("random", "large-magnitude", "small-magnitude")  # rules that look at no gradient
SPARSE = 0.01  # density up to which the choice of weights decides
DENSE = 0.2  # density from which on Sparse MeZO works, without a 4-bit base
FEW = 1000  # tuned values; 300 of the bundled model were measured to be too few


def advice(estimate: Any, recipe: Recipe, parameters: int = 0) -> list[str]:
    """At most three sentences for ``recipe``, none without an ``estimate`` of its memory.

    ``parameters`` of the model, or 0 where they are not known.
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
            f"This is the method that fits: of {size(available)}, it takes {size(estimate.total)}; of the others, "
            f"{OTHERS.get(least, least)} takes least and would need {size(needs[least])}."
        )
    if estimate.total > available:
        return f"{OTHERS[fits]} would fit into this memory ({size(needs[fits])} of {size(available)}); this does not."
    saved = needs[fits] - estimate.total
    gain = f"{size(saved)} less memory, and" if saved > 0 else "not memory here, but"
    return (
        f"{OTHERS[fits]} would fit into this memory too ({size(needs[fits])} of {size(available)}) and usually needs "
        f"far fewer steps. SparseZO's gain is {gain} a run that can be exported at any of its steps."
    )


def _everything(recipe: Recipe) -> bool:
    """Whether the weights are tuned where they are, rather than a few values beside them."""
    return recipe.mask.space == "dense"


def _dense(estimate: Any, recipe: Recipe, density: float) -> str:
    if density < DENSE:
        return ""
    if _everything(recipe):
        return (
            f"Tuning every weight suits small models only: all are held in {recipe.model.bits} bits, since weights in "
            "fewer cannot be moved."
        )
    values = next((part.bytes for part in estimate.parts if part.name == "Tuned values"), 0)
    taken = f", which take {size(values)} of the {size(estimate.total)}" if values else ""
    bits = f"; holding the frozen weights in {recipe.model.bits} bits does not change that" if taken else ""
    kept = f"tuned values are kept in 32 bits{taken}{bits if recipe.model.bits < 16 else ''}"
    return f"Tuning {100 * density:.3g} % of the weights suits small models only: {kept}."


def _few(tuned: float) -> str:
    if not 0 < tuned < FEW:
        return ""
    return (
        f"At most {count(tuned)} weights are tuned. In the bundled model, 300 learned far less of its task than "
        "3\u2009000 did; a higher density may help."
    )


def _blind(recipe: Recipe, density: float) -> str:
    if recipe.mask.rule not in BLIND or density > SPARSE:
        return ""
    found = "Of the mask rules compared in arXiv 2406.02913, only the sensitive one stays accurate down to 0.1 %."
    rate = " With SGD, a mask like this takes a rate 25 to 1\u2009000 times that of a sensitive one."
    return found + (rate if recipe.update.rule == "sgd" else "")
