"""How good the model is on a split, under the values that its layers hold."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sparsezo_gui.engine import metrics
from sparsezo_gui.engine.data.encode import Encoded
from sparsezo_gui.engine.generate import complete
from sparsezo_gui.engine.models.frozen import FrozenModel
from sparsezo_gui.engine.objective import measure
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.events import Progress

BATCH = 32
SHOWN = 5  # best and worst examples
PROMPT_TOKENS = 100  # of an example that are shown at most
ROOM = 8  # tokens more than the longest reference, so that a longer answer shows as wrong


@dataclass(frozen=True)
class Judged:
    """Metrics of a split, and its best and worst examples (see `sparsezo_gui.recipe.events.Examples`)."""

    metrics: dict[str, float]
    best: list[dict[str, Any]]
    worst: list[dict[str, Any]]


def evaluate(model: FrozenModel, examples: Sequence[Encoded], split: str) -> Generator[Progress, None, Judged]:
    """Metrics of ``examples``: loss (nats) and perplexity; accuracy and macro F1 of choices; exact match and F1 of
    generated answers where the task has references."""
    if not examples:
        raise UserError(f"There are no {split} examples to evaluate on. Set [data] {split} to more than 0.")
    stage = f"Evaluating on {split}"
    sums: list[float] = []
    weights: list[float] = []
    predicted: list[int] = []
    for first in range(0, len(examples), BATCH):
        yield Progress(stage, first, len(examples), "examples")
        with torch.no_grad():
            measured = measure(model, examples[first : first + BATCH])
        sums += measured.sums[0].tolist()
        weights += measured.weights.tolist()
        predicted += [int(scores[0].argmax()) for scores in measured.scores]
    found = {"examples": float(len(examples)), "loss": math.fsum(sums) / math.fsum(weights)}
    answers = [""] * len(examples)
    if predicted:
        found |= _choices(examples, predicted)
        answers = [_candidate(model, *pair) for pair in zip(examples, predicted, strict=True)]
    else:
        found["perplexity"] = math.exp(min(found["loss"], 700.0))
        if all(example.references for example in examples):
            found |= yield from _generated(model, examples, stage, answers)
    losses = [total / weight for total, weight in zip(sums, weights, strict=True)]
    order = sorted((index for index, loss in enumerate(losses) if math.isfinite(loss)), key=losses.__getitem__)
    best, worst = (
        [_shown(model, examples[index], index, losses[index], answers[index]) for index in part]
        for part in (order[:SHOWN], order[::-1][:SHOWN])
    )
    return Judged(found, best, worst)


def _choices(examples: Sequence[Encoded], predicted: Sequence[int]) -> dict[str, float]:
    # Where several answers are right, any of them counts, and is its own class for F1.
    labels = [
        choice if choice in example.accepted else example.label
        for choice, example in zip(predicted, examples, strict=True)
    ]
    hits = sum(choice == label for choice, label in zip(predicted, labels, strict=True))
    return {"accuracy": hits / len(labels), "f1": metrics.macro_f1(predicted, labels)}


def _shown(model: FrozenModel, example: Encoded, index: int, loss: float, answer: str) -> dict[str, Any]:
    """An example for people: the end of its prompt, what was expected, and what the model answers."""
    prompt = model.tokenizer.decode(example.prompt[-PROMPT_TOKENS:], skip_special_tokens=True)
    expected = example.references[0] if example.references else _candidate(model, example, example.label)
    return {"number": index + 1, "loss": round(loss, 4), "prompt": prompt, "expected": expected, "answer": answer}


def _candidate(model: FrozenModel, example: Encoded, choice: int) -> str:
    """The text of a candidate answer, or of what is learned where there are none."""
    tokens = [
        target
        for row in example.rows
        for target, owner in zip(row.targets, row.choices, strict=True)
        if owner == choice
    ]
    return model.tokenizer.decode(tokens[:PROMPT_TOKENS], skip_special_tokens=True).strip()


def _generated(
    model: FrozenModel, examples: Sequence[Encoded], stage: str, answers: list[str]
) -> Generator[Progress, None, dict[str, float]]:
    """Metrics of what the model writes, which goes into ``answers``."""
    longest = max(len(row.targets) for example in examples for row in example.rows)
    matches = overlaps = 0.0
    written = complete(model, [example.prompt for example in examples], longest + ROOM)
    for done, (index, tokens) in enumerate(written):
        yield Progress(f"{stage}: writing answers", done, len(examples), "examples")
        example = examples[index]
        # An answer ends at its line, as in MeZO's protocol.
        answer = answers[index] = model.tokenizer.decode(tokens, skip_special_tokens=True).strip().split("\n", 1)[0]
        matches += metrics.exact_match(answer, example.references)
        overlaps += metrics.f1(answer, example.references)
    return {"exact_match": matches / len(examples), "f1": overlaps / len(examples)}
