"""How good the model is on a split, under the values that its layers hold."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence

from sparsezo_gui.engine import metrics
from sparsezo_gui.engine.data.encode import Encoded
from sparsezo_gui.engine.generate import complete
from sparsezo_gui.engine.models.frozen import FrozenModel
from sparsezo_gui.engine.objective import measure
from sparsezo_gui.recipe.events import Progress

BATCH = 32
ROOM = 8  # tokens more than the longest reference, so that a longer answer shows as wrong


def evaluate(
    model: FrozenModel, examples: Sequence[Encoded], split: str
) -> Generator[Progress, None, dict[str, float]]:
    """Metrics of ``examples``: loss (nats) and perplexity; accuracy and macro F1 of choices; exact match and F1 of
    generated answers where the task has references."""
    stage = f"Evaluating on {split}"
    loss = weight = 0.0
    predicted: list[int] = []
    for first in range(0, len(examples), BATCH):
        yield Progress(stage, first, len(examples), "examples")
        measured = measure(model, examples[first : first + BATCH])
        loss += measured.sums.sum().item()
        weight += measured.weights.sum().item()
        predicted += [int(scores[0].argmax()) for scores in measured.scores]
    found = {"examples": float(len(examples)), "loss": loss / weight}
    if predicted:
        # Where several answers are right, any of them counts, and is its own class for F1.
        labels = [
            choice if choice in example.accepted else example.label
            for choice, example in zip(predicted, examples, strict=True)
        ]
        hits = sum(choice == label for choice, label in zip(predicted, labels, strict=True))
        return {**found, "accuracy": hits / len(labels), "f1": metrics.macro_f1(predicted, labels)}
    found["perplexity"] = math.exp(min(found["loss"], 700.0))
    if all(example.references for example in examples):
        found |= yield from _generated(model, examples, stage)
    return found


def _generated(
    model: FrozenModel, examples: Sequence[Encoded], stage: str
) -> Generator[Progress, None, dict[str, float]]:
    longest = max(len(row.targets) for example in examples for row in example.rows)
    matches = overlaps = 0.0
    written = complete(model, [example.prompt for example in examples], longest + ROOM)
    for done, (index, tokens) in enumerate(written):
        yield Progress(f"{stage}: writing answers", done, len(examples), "examples")
        example = examples[index]
        # An answer ends at its line, as in MeZO's protocol.
        answer = model.tokenizer.decode(tokens, skip_special_tokens=True).strip().split("\n", 1)[0]
        matches += metrics.exact_match(answer, example.references)
        overlaps += metrics.f1(answer, example.references)
    return {"exact_match": matches / len(examples), "f1": overlaps / len(examples)}
