"""The functions of the metrics in `sparsezo_gui.recipe.metrics`: of choices, of generated text as in the evaluation of
SQuAD (arXiv 1606.05250, section 4.2), and of the loss."""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    """Lower case, without punctuation, articles, surplus spaces and reasoning."""
    return " ".join(_ARTICLES.sub(" ", without_reasoning(text).lower().translate(_PUNCTUATION)).split())


def without_reasoning(text: str) -> str:
    """The text after the last reasoning block in ``text``."""
    return text.rpartition("</think>")[2]


def exact_match(answer: str, references: Sequence[str]) -> float:
    """1.0 when the answer equals a reference after normalisation."""
    return float(any(normalised(answer) == normalised(reference) for reference in references))


def f1(answer: str, references: Sequence[str]) -> float:
    """Best harmonic mean of word precision and recall over the references, 0 … 1."""
    return max(
        (_f1(normalised(answer).split(), normalised(reference).split()) for reference in references), default=0.0
    )


def _f1(answer: list[str], reference: list[str]) -> float:
    if not answer or not reference:
        return float(answer == reference)
    common = (Counter(answer) & Counter(reference)).total()
    return 2 * common / (len(answer) + len(reference))


def accuracy(predicted: Sequence[int], labels: Sequence[int]) -> float:
    """Share of correct choices."""
    return sum(choice == label for choice, label in zip(predicted, labels, strict=True)) / len(labels)


def macro_f1(predicted: Sequence[int], labels: Sequence[int]) -> float:
    """Mean F1 over the classes that occur, 0 … 1."""
    classes = sorted(set(labels) | set(predicted))
    pairs = list(zip(predicted, labels, strict=True))
    scores = []
    for each in classes:
        hits = sum(p == each == y for p, y in pairs)
        scores.append(2 * hits / (sum(p == each for p, _ in pairs) + sum(y == each for _, y in pairs)))
    return sum(scores) / len(scores) if scores else 0.0


def perplexity(loss: float) -> float:
    """e to the mean loss in nats; finite for any finite loss."""
    return math.exp(min(loss, 700.0))
