"""How good a model is on test examples, one by one, so that two models can be compared in pairs."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from sparsezo_gui.engine.data.encode import Encoded
from sparsezo_gui.engine.data.tasks import task
from sparsezo_gui.engine.data.tokenise import text_of
from sparsezo_gui.engine.evaluate import evaluate
from sparsezo_gui.engine.frozen import FrozenModel
from sparsezo_gui.engine.generate import complete
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe.events import Progress

SAMPLES, SAMPLE_TOKENS, PROMPT_TOKENS = 3, 64, 100


def judged(
    model: FrozenModel, examples: Sequence[Encoded], recipe: Recipe
) -> Generator[Progress, None, dict[str, Any]]:
    """The task's metric (``final``), the ``loss``, and the ``scores`` of all test ``examples``: of a choice 1 or 0, of
    a written answer its metric, else the loss. Without choices, also what the model writes to the first ones
    (``samples``)."""
    metric = task(recipe.data.task).metric
    found = yield from evaluate(model, examples, "test")
    name = next((each for each in (metric, "accuracy") if each in found.scores), "loss")
    samples = [] if examples[0].choices else list(_written(model, examples[:SAMPLES]))
    return {
        "final": found.metrics[metric], "loss": found.metrics["loss"], "scores": packed(found.scores[name]),
        **({"samples": samples} if samples else {}),
    }  # fmt: skip


def packed(scores: Sequence[float]) -> str | list[float]:
    """A string of 0 and 1 if there is nothing else in ``scores``."""
    if all(each in (0.0, 1.0) for each in scores):
        return "".join(str(int(each)) for each in scores)
    return [round(each, 5) for each in scores]


def unpacked(scores: str | Sequence[float]) -> list[float]:
    """The numbers in what `packed` made."""
    return [float(each) for each in scores]


def _written(model: FrozenModel, examples: Sequence[Encoded]) -> Generator[dict[str, str], None, None]:
    asked = [each for each in examples if each.prompt]
    if not asked:
        return
    for index, (tokens,) in complete(model, [each.prompt for each in asked], SAMPLE_TOKENS):
        expected = asked[index].references[0] if asked[index].references else ""
        prompt = text_of(asked[index].prompt[-PROMPT_TOKENS:], model.tokenizer)
        yield {"prompt": prompt, "expected": expected, "answer": text_of(tokens, model.tokenizer)}
