"""Evaluates a model on a split, with the tuned values that its layers currently use."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparsezo_gui.engine.data.encode import Encoded
from sparsezo_gui.engine.data.tokenise import text_of
from sparsezo_gui.engine.frozen import FrozenModel
from sparsezo_gui.engine.generate import answers
from sparsezo_gui.engine.objective import measure
from sparsezo_gui.engine.objectives import Objective
from sparsezo_gui.engine.objectives.likelihood import Likelihood
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.events import Progress
from sparsezo_gui.recipe.metrics import functions

BATCH = 32
SHOWN = 5  # best and worst examples
PROMPT_TOKENS = 100  # of an example shown, at most
ANSWER_CHARACTERS = 1000  # of the expected and the generated answer, at most


@dataclass(frozen=True)
class Evaluated:
    """Metrics of a split, its best and worst examples and those with another answer than before (see
    `sparsezo_gui.recipe.events.Examples`).

    ``scores`` has the values of each example, in order: its mean loss, and of the metrics that are means over examples.
    ``answers`` has what the model chose or wrote for each; empty if the task has neither.
    """

    metrics: dict[str, float]
    best: list[dict[str, Any]]
    worst: list[dict[str, Any]]
    changed: list[dict[str, Any]]
    scores: dict[str, list[float]]
    answers: list[str]


def evaluate(
    model: FrozenModel, examples: Sequence[Encoded], split: str, objective: Objective | None = None,
    base: Tensor | None = None, before: Sequence[str] = (), together: int = BATCH,
) -> Generator[Progress, None, Evaluated]:  # fmt: skip
    """Evaluates ``examples`` of ``split``, so many ``together``, by ``objective`` (None: the likelihood). ``base``
    (examples,) is what the objective compares against, ``before`` the earlier answers to compare with, if any. Raises
    `UserError` without examples.

    Metrics (see `sparsezo_gui.recipe.metrics`) are the objective's loss (nats for a likelihood); then its own metrics,
    or else those of choices, or without choices those of the loss, and of generated answers if there are references.
    """
    if not examples:
        raise UserError(f"There are no {split} examples to evaluate on. Set [data] {split} to more than 0.")
    stage = f"Evaluating on {split}"
    sums: list[float] = []
    weights: list[float] = []
    predicted: list[int] = []
    objective, own = objective or Likelihood(), dict[str, float]()
    for first in range(0, len(examples), together):
        yield Progress(stage, first, len(examples), "examples")
        part = examples[first : first + together]
        compared = None if base is None else base[first : first + together]
        with torch.no_grad():
            measured = measure(model, part)
        for name, value in objective.metrics(measured, part, compared).items():
            own[name] = own.get(name, 0.0) + value * len(part) / len(examples)
        losses = objective.losses_of(measured, part, compared)
        sums += losses.sums[0].tolist()
        weights += losses.weights.tolist()
        predicted += [int(scores[0].argmax()) for scores in measured.scores]
    found = {"examples": float(len(examples)), "loss": math.fsum(sums) / math.fsum(weights)}
    means = [total / weight for total, weight in zip(sums, weights, strict=True)]
    scores = {"loss": means}
    written = [""] * len(examples)
    if predicted:
        found |= own or _choices(examples, predicted)
        scores["accuracy"] = [
            float(choice in (each.label, *each.accepted)) for choice, each in zip(predicted, examples, strict=True)
        ]
        written = [_candidate(model, *pair) for pair in zip(examples, predicted, strict=True)]
    else:
        found |= {name: function(found["loss"]) for name, function in functions("loss").items()}
        if all(example.references for example in examples):
            scores |= yield from _generated(model, examples, stage, written)
            found |= {name: math.fsum(each) / len(each) for name, each in scores.items() if name != "loss"}
    order = sorted((index for index, loss in enumerate(means) if math.isfinite(loss)), key=means.__getitem__)
    best, worst = (
        [_shown(model, examples[index], index, means[index], written[index]) for index in part]
        for part in (order[:SHOWN], order[::-1][:SHOWN])
    )
    changed = [
        _shown(model, examples[index], index, means[index], written[index]) | {"before": earlier[:ANSWER_CHARACTERS]}
        for index, earlier in enumerate(before) if earlier != written[index]
    ]  # fmt: skip
    right = [each for each in changed if each["answer"] == each["expected"]]
    wrong = [each for each in changed if each not in right]  # first: they are why one looks
    return Evaluated(found, best, worst, wrong[:SHOWN] + right[:SHOWN], scores, written)


def _choices(examples: Sequence[Encoded], predicted: Sequence[int]) -> dict[str, float]:
    # If several answers are correct, each counts, and is its own class for F1.
    labels = [
        choice if choice in example.accepted else example.label
        for choice, example in zip(predicted, examples, strict=True)
    ]
    return {name: function(predicted, labels) for name, function in functions("choices").items()}


def _shown(model: FrozenModel, example: Encoded, index: int, loss: float, answer: str) -> dict[str, Any]:
    """An example for display: the end of its prompt, the expected answer, and the model's answer."""
    prompt = text_of(example.prompt[-PROMPT_TOKENS:], model.tokenizer)
    expected = example.references[0] if example.references else _candidate(model, example, example.label)
    expected, answer = expected[:ANSWER_CHARACTERS], answer[:ANSWER_CHARACTERS]
    return {"number": index + 1, "loss": round(loss, 4), "prompt": prompt, "expected": expected, "answer": answer}


def _candidate(model: FrozenModel, example: Encoded, choice: int) -> str:
    """The text of a candidate answer, or of the trained tokens if there are no candidates."""
    tokens = [
        target
        for row in example.rows
        for target, owner in zip(row.targets, row.choices, strict=True)
        if owner == choice
    ]
    return text_of(tokens[:PROMPT_TOKENS], model.tokenizer).strip()


def _generated(
    model: FrozenModel, examples: Sequence[Encoded], stage: str, written: list[str]
) -> Generator[Progress, None, dict[str, list[float]]]:
    """Metrics of each generated answer; the answers are stored in ``written``."""
    scores = functions("written")
    found = {name: [0.0] * len(examples) for name in scores}
    for done, (index, (answer,)) in enumerate(answers(model, examples)):
        yield Progress(f"{stage}: generating answers", done, len(examples), "examples")
        written[index], references = answer, examples[index].references
        for name, score in scores.items():
            found[name][index] = score(answer, references)
    return found
