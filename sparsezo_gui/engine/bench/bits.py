"""How quantisation changes a base model before tuning: one model in several number formats, on a task and on text.

All use the same weights, one after the other in one process, and the same examples, so only the format of the frozen
weights differs. Bits per weight include the scales.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from bitsandbytes.functional import int8_vectorwise_quant, quantize_4bit
from torch import Tensor

from sparsezo_gui.engine import frozen
from sparsezo_gui.engine.bench.timing import medians
from sparsezo_gui.engine.data import load_task, passages
from sparsezo_gui.engine.data.encode import Encoded, Row
from sparsezo_gui.engine.frozen import FrozenModel
from sparsezo_gui.engine.layers.quantise import nf4
from sparsezo_gui.engine.layers.weights import DenseWeight, FrozenWeight, Int8Weight, NF4Weight
from sparsezo_gui.engine.masks.rule import Search
from sparsezo_gui.engine.objective import measure
from sparsezo_gui.engine.spaces.values import tuned_values
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import Recipe, with_settings
from sparsezo_gui.recipe.events import Event, Notice, Progress

SEQUENCES, TOKENS = 32, 256  # of plain text
BATCH = 32  # examples per batch
WHOLE, EIGHT = "16 bits", "8 bits"


def theirs(block: int = 64, kind: str = "nf4") -> Callable[[Tensor], FrozenWeight]:
    """How bitsandbytes quantises to 4 bits."""
    return lambda weight: NF4Weight.of(*quantize_4bit(weight.float(), blocksize=block, quant_type=kind))


def int8(weight: Tensor) -> Int8Weight:
    """int8 with the largest weight of each row as its scale, as in LLM.int8()."""
    codes, scales, _ = int8_vectorwise_quant(weight.half())
    return Int8Weight(codes, scales)


WAYS: dict[str, Callable[[Tensor], FrozenWeight]] = {
    WHOLE: lambda weight: DenseWeight(weight if weight.dtype.itemsize == 2 else weight.to(torch.bfloat16)),
    EIGHT: int8,
    "NF4, 64": theirs(),
    "NF4, 32": theirs(32),
    "NF4, 128": theirs(128),
    "FP4, 64": theirs(kind="fp4"),
    "NF4, 32 in 16": nf4,
}
"""Number formats for a weight (out, in), by name: how many weights share a scale, which has 32 bits, or 16 ("in 16").
"""


def bits(
    recipe: Recipe, text: str = "general", ways: Sequence[str] = tuple(WAYS), densities: Sequence[str] = (),
    sequences: int = SEQUENCES, repeats: int = 7,
) -> Generator[Event, None, list[dict[str, Any]]]:  # fmt: skip
    """A row for the recipe's model in each of ``ways``, the number formats; and for the last one with the ``densities``
    of weights, chosen by the recipe's mask rule, in full precision like tuned values.

    ``loss`` (nats) and accuracy are on the validation examples, ``perplexity`` on ``sequences`` of ``text``. ``cost``
    is the loss minus that in 16 bits, mean over examples ± standard error, and ``text_cost`` the same per sequence of
    text. ``bits`` are per weight, and ``time`` is that of dequantisation, relative to the first 4-bit format. Raises
    `UserError`.
    """
    model = yield from frozen.load(with_settings(recipe, ["model.bits=4", "model.compute=auto"]).model)
    if model.source.prequantised:
        raise UserError(
            f"{model.source.id}: its weights are already quantised, so there is nothing to compare with. Choose a "
            "16-bit model."
        )
    task = (yield from load_task(recipe.data, model.tokenizer)).validation.encoded
    if not task:
        raise UserError("There are no validation examples to compare on. Set [data] validation above 0.")
    scorer, rows = _Scorer(model, task, _read(model, text, sequences)), list[dict[str, Any]]()
    seconds = yield from _seconds(model, [*ways], repeats)
    base = next((seconds[way] for way in ways if way not in (WHOLE, EIGHT)), math.nan)

    def added(row: dict[str, Any]) -> Notice:
        rows.append(row)
        return Notice(", ".join(f"{column} {value}" for column, value in row.items()))

    size = 0.0
    for way in dict.fromkeys([WHOLE, *ways]):
        size = _hold(model, WAYS[way])
        row = yield from scorer.row(way, size, nullcontext())
        yield added(row | {"time": round(seconds[way] / base, 2) if way in seconds else ""})
    for density in densities:
        rule = with_settings(recipe, [f"mask.density={density}"]).mask
        tuned = tuned_values(model, (yield from rule.find(model, Search(recipe.loop.seed, recipe.data))))
        kept = 64 * tuned.values.numel() / model.spec.eligible  # an fp32 value and its int32 index
        row = yield from scorer.row(f"{ways[-1]}, {density} whole", size + kept, tuned.base())
        yield added(row | {"time": ""})
    return rows


def _hold(model: FrozenModel, way: Callable[[Tensor], FrozenWeight]) -> float:
    """Stores every frozen weight of ``model`` in that format; returns the bits per weight."""
    total = 0
    for name, layer in model.layers.items():
        layer.hold(way(model.original(name).to(model.device)))
        total += layer.frozen.nbytes
    return 8 * total / model.spec.eligible


def _seconds(model: FrozenModel, ways: Sequence[str], repeats: int) -> Generator[Progress, None, dict[str, float]]:
    """Median seconds that each format takes to dequantise the largest weight of the model."""
    name = max(model.layers, key=lambda name: math.prod(model.layers[name].frozen.shape))
    weight = model.original(name).to(model.device)
    stores = {way: WAYS[way](weight) for way in ways}
    work = {way: (lambda frozen=frozen: frozen.dense(model.dtype)) for way, frozen in stores.items()}
    return (yield from medians(work, model.device, repeats, "Dequantising weights"))


def _read(model: FrozenModel, text: str, sequences: int) -> list[Encoded]:
    found = passages(text, model.tokenizer, sequences, TOKENS)
    return [
        Encoded((Row(each.tokens[:-1], each.places, each.tokens[1:], (0,) * len(each.places)),), 0, 0, (), (), 0)
        for each in found
    ]


class _Scorer:
    """Evaluates ``model`` on the examples of a ``task`` and on ``text``, relative to its first evaluation."""

    def __init__(self, model: FrozenModel, task: Sequence[Encoded], text: Sequence[Encoded]) -> None:
        self.model, self.task, self.text = model, task, text
        self.first: tuple[Tensor, Tensor] | None = None

    def row(
        self, way: str, size: float, within: AbstractContextManager[None]
    ) -> Generator[Progress, None, dict[str, Any]]:
        """A row of `bits`, measured inside the context ``within``."""
        with within:
            task, hits = yield from self._losses(self.task, f"{way}: task")
            text, _ = yield from self._losses(self.text, f"{way}: text")
        self.first = self.first or (task, text)
        return {
            "held": way, "bits": round(size, 3),
            "loss": round(task.mean().item(), 3), "cost": _spread(task - self.first[0]),
            "accuracy": round(100 * statistics.mean(hits), 1) if hits else "",
            "perplexity": round(text.mean().exp().item(), 2), "text_cost": _spread(text - self.first[1]),
        }  # fmt: skip

    def _losses(self, examples: Sequence[Encoded], stage: str) -> Generator[Progress, None, tuple[Tensor, list[bool]]]:
        """The loss of each example in nats, (n,), and, for choices, whether its answer is correct."""
        losses, hits = [], []
        for first in range(0, len(examples), BATCH):
            yield Progress(stage, first, len(examples), "examples")
            part = examples[first : first + BATCH]
            with torch.no_grad():
                found = measure(self.model, part)
            losses.append((found.sums[0] / found.weights).cpu())
            hits += [int(scores[0].argmax()) == each.label for scores, each in zip(found.scores, part, strict=False)]
        return torch.cat(losses), hits


def _spread(values: Tensor) -> str:
    error = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{values.mean().item():+.3f} ± {error:.3f}"
