"""What `sparsezo_gui.engine.bench.quality` compares: methods as settings of a recipe, and first-order LoRA.

Methods that are not named after an update take scalar-normalised steps, all with a decaying rate, so that only what the
name says differs. The search for the best rate starts from the rates here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Sequence
from typing import Any

import torch
from torch import Tensor

from sparsezo_gui.engine import frozen
from sparsezo_gui.engine.bench.references import ALPHA, RANK, load_plain
from sparsezo_gui.engine.data.encode import Encoded
from sparsezo_gui.engine.session.loading import load_data
from sparsezo_gui.engine.zo import generator
from sparsezo_gui.engine.zo.batches import shuffled_batch
from sparsezo_gui.errors import UserError, did_you_mean
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe.events import Event, Progress
from sparsezo_gui.recipe.registry import MASKS

_SENSITIVE = ("mask.rule=sensitive", "update.learning_rate=4e-3")
_DENSE = ("model.bits=32", "update.learning_rate=2e-3")
_WITHOUT_GRADIENT = ("update.learning_rate=1.6e-2",)


def _estimated_by(estimator: str) -> tuple[str, ...]:
    return (*_SENSITIVE, f"estimator.rule={estimator}")


METHODS: dict[str, tuple[str, ...]] = {
    "sensitive": _SENSITIVE,
    "sensitive-answers": (*_SENSITIVE, "mask.text=answers"),
    "sensitive-16": (*_SENSITIVE, "model.bits=16"),
    "random": ("mask.rule=random", *_WITHOUT_GRADIENT),
    "large-magnitude": ("mask.rule=large-magnitude", *_WITHOUT_GRADIENT),
    "small-magnitude": ("mask.rule=small-magnitude", *_WITHOUT_GRADIENT),
    "weight-activation": ("mask.rule=weight-activation", *_WITHOUT_GRADIENT),
    "rows": ("mask.rule=rows", *_WITHOUT_GRADIENT),
    "outlier-channels": ("mask.rule=outlier-channels", "mask.threshold=50", *_WITHOUT_GRADIENT),
    "multi-task": ("mask.rule=multi-task", "update.learning_rate=4e-3"),
    "subspace": ("mask.rule=subspace", *_WITHOUT_GRADIENT),
    "activation-subspace": ("mask.rule=activation-subspace", *_WITHOUT_GRADIENT),
    "mezo": ("mask.rule=all", *_DENSE),
    "sparse-mezo": ("mask.rule=small-magnitude-dynamic", *_DENSE),
    "lezo": ("mask.rule=random-layers", *_DENSE),
    "four-directions": (*_SENSITIVE, "estimator.directions=4"),
    **{
        rule: _estimated_by(rule)
        for rule in ("fzoo", "grzo", "hizoo", "conmezo", "bszo", "curvzo", "loren", "elastic", "forward-gradient")
    },
    "addax": (*_estimated_by("addax"), "estimator.short=36"),
    "first-order": (*_estimated_by("first-order"), "update.rule=adam", "update.learning_rate=1e-3"),
    **{
        update: ("mask.rule=sensitive", f"update.rule={update}", f"update.learning_rate={rate}")
        for update, rate in (("sgd", 1e-3), ("sign", 4e-3), ("momentum", 1e-4), ("adam", 1e-3), ("conservative", 1e-3))
    },
    "coreset": (*_SENSITIVE, "selection.rule=coreset"),
}
LORA, UNTUNED = "lora", "untuned"
COMMON = ("update.rule=scalar-normalised", "update.schedule=linear")
LORA_RATE = 1e-3


def settings(name: str) -> tuple[str, ...]:
    """Settings of the method ``name``, such as 'sensitive' or, with a density, 'random@0.01'. Raises `UserError`."""
    if name in (UNTUNED, LORA):
        return ()
    method, _, density = name.partition("@")
    if method not in METHODS:
        raise UserError(f"Unknown method '{method}'. {did_you_mean(method, METHODS)}")
    if density and not _has_density(method):
        raise UserError(f"'{name}': the mask of '{method}' has no density. Use '{method}'.")
    return (*COMMON, *METHODS[method], *((f"mask.density={density}",) if density else ()))


def _has_density(method: str) -> bool:
    rule = next(text.removeprefix("mask.rule=") for text in METHODS[method] if text.startswith("mask.rule="))
    return "density" in MASKS[rule].model_fields


def named(methods: Sequence[str], densities: Sequence[str]) -> list[str]:
    """The names of ``methods`` at each of ``densities``, or alone if they have no density. Raises `UserError`."""
    found = []
    for name in methods:
        at_each = densities and settings(name) and _has_density(name.partition("@")[0])
        found += [f"{name}@{density}" for density in densities] if at_each else [name]
    return found


def lora(recipe: Recipe, steps: int, factor: float) -> Generator[Event, None, dict[str, Any]]:
    """First-order LoRA (arXiv 2106.09685) with peft and AdamW on the same base model, examples, order and loss."""
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    base = yield from frozen.load(recipe.model)
    data = yield from load_data(recipe, base)
    source, device, bits = base.source, base.device, recipe.model.bits
    del base
    model = load_plain(source.folder, device, torch.float32, 4 if bits == 4 else 16, trained=True, code=source.code)
    if bits == 4:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted: Any = get_peft_model(model, config)
    adapters = [each for name, each in adapted.named_parameters() if "lora_A" in name]
    for number, each in enumerate(adapters):  # the same distribution as in peft, but from our seed
        drawn = generator.normal(recipe.loop.seed, 0, number, each.numel(), device, stream=generator.Stream.ADAPTERS)
        each.data.copy_(drawn.view_as(each) / math.sqrt(3 * each.shape[1]))
    optimiser = torch.optim.AdamW([each for each in adapted.parameters() if each.requires_grad], lr=factor * LORA_RATE)
    examples, loop, curve, seconds = data.train.encoded, recipe.loop, [], 0.0
    for step in range(1, steps + 1):
        started = time.perf_counter()
        for group in optimiser.param_groups:
            group["lr"] = factor * LORA_RATE * (1 - (step - 1) / steps)
        batch = shuffled_batch(loop, step, examples)
        _loss(adapted, batch).backward()
        optimiser.step()
        optimiser.zero_grad()
        seconds += time.perf_counter() - started
        if step % loop.evaluate_every == 0 or step == steps:
            yield Progress("LoRA", step, steps, "steps")
            curve.append((3 * step, _accuracy(adapted, data.validation.encoded)))
    with torch.no_grad():
        validation = _loss(adapted, data.validation.encoded[:200]).item()
    return {
        "curve": curve, "validation_loss": validation, "steps": steps,
        "final": _accuracy(adapted, data.test.encoded), "tuned": adapted.get_nb_trainable_parameters()[0],
        "rate": factor * LORA_RATE, "seconds": round(seconds, 1),
    }  # fmt: skip


def _scores(model: Any, batch: Sequence[Encoded]) -> list[Tensor]:
    """Mean log-probability of each candidate of each example, from padded rows."""
    rows = [row for example in batch for row in example.rows]
    longest = max(len(row.tokens) for row in rows)
    tokens = torch.tensor([[*row.tokens, *[0] * (longest - len(row.tokens))] for row in rows], device=model.device)
    lengths = torch.tensor([len(row.tokens) for row in rows], device=model.device)
    mask = (torch.arange(longest, device=model.device) < lengths[:, None]).long()
    found = model(input_ids=tokens, attention_mask=mask, use_cache=False).logits.float().log_softmax(-1)
    scores, first = [], 0
    for example in batch:
        sums: list[list[Tensor]] = [[] for _ in range(example.choices)]
        for number, row in enumerate(example.rows, first):
            for place, target, choice in zip(row.positions, row.targets, row.choices, strict=True):
                sums[choice].append(found[number, place, target])
        first += len(example.rows)
        scores.append(torch.stack([torch.stack(each).mean() for each in sums]))
    return scores


def _loss(model: Any, batch: Sequence[Encoded]) -> Tensor:
    pairs = zip(_scores(model, batch), batch, strict=True)
    return torch.stack([-scores.log_softmax(0)[example.label] for scores, example in pairs]).mean()


@torch.no_grad()
def _accuracy(model: Any, examples: Sequence[Encoded]) -> float:
    hits = 0
    for first in range(0, len(examples), 32):
        batch = examples[first : first + 32]
        chosen = [int(scores.argmax()) for scores in _scores(model, batch)]
        hits += sum(choice in {each.label, *each.accepted} for choice, each in zip(chosen, batch, strict=True))
    return hits / len(examples)
