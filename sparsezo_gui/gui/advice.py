"""Advice on the choice of method: what else would fit, and which limits the papers report."""

from __future__ import annotations

from sparsezo_gui.answers import MemoryEstimate
from sparsezo_gui.gui.formatting import count, size
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe.registry import SPACES

MAX_SENTENCES = 3
OTHERS = {"full": "Full fine-tuning", "qlora": "QLoRA", "lora": "LoRA"}  # the first that fits is named
GRADIENT_FREE = ("random", "large-magnitude", "small-magnitude")  # rules that use no gradient
SPARSE = 0.01  # density up to which the choice of weights matters most
DENSE = 0.2  # density at which Sparse MeZO starts to work, with an unquantised model
TOO_FEW = 1000  # tuned values; measured: 300 are too few for the bundled model


def advice(estimate: MemoryEstimate | None, recipe: Recipe, parameters: int = 0) -> list[str]:
    """At most three sentences for ``recipe``; none without a memory ``estimate``.

    ``parameters`` is the model's parameter count, or 0 if unknown.
    """
    if estimate is None:
        return []
    density = 1.0 if _tunes_every_weight(recipe) else getattr(recipe.mask, "density", None)
    sentences = [_memory(estimate)]
    if density is not None:
        sentences += [_dense(estimate, recipe, density), _few(density * parameters), _gradient_free(recipe, density)]
    return [sentence for sentence in sentences if sentence][:MAX_SENTENCES]


def _memory(estimate: MemoryEstimate) -> str:
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
    values = next((part.bytes for part in estimate.parts if part.name == "Tuned values"), 0)
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
