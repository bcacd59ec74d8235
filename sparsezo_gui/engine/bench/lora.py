"""The usual alternative to tuning with forward passes: first-order LoRA with peft and AdamW."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any

import torch

from sparsezo_gui.engine import device as devices
from sparsezo_gui.engine import frozen
from sparsezo_gui.engine.bench.judged import judged
from sparsezo_gui.engine.bench.references import ALPHA, RANK, load_plain
from sparsezo_gui.engine.data.encode import Encoded
from sparsezo_gui.engine.data.tasks import task
from sparsezo_gui.engine.evaluate import evaluate
from sparsezo_gui.engine.forward import BACKWARD_ROWS, log_probabilities
from sparsezo_gui.engine.frozen import FrozenModel
from sparsezo_gui.engine.objective import gathered, pack_of, packs_of, weight_of
from sparsezo_gui.engine.session.loading import load_data
from sparsezo_gui.engine.zo import generator
from sparsezo_gui.engine.zo.batches import shuffled_batch
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe.events import Event, Progress

RATE = 1e-3
COST = 3  # forward passes a step


def lora(recipe: Recipe, factor: float) -> Generator[Event, None, dict[str, Any]]:
    """LoRA (arXiv 2106.09685) on all linear layers of the same base model, with the recipe's examples, order, loss and
    number of steps, at ``factor`` times the usual rate, which falls linearly to zero."""
    base = yield from frozen.load(recipe.model)
    data = yield from load_data(recipe, base)
    model, adapted = _adapted(base, recipe)
    del base
    devices.give_back_freed()
    before = yield from judged(model, data.test.encoded, recipe)
    metric, loop, seconds, curve = task(recipe.data.task).metric, recipe.loop, 0.0, []
    optimiser = torch.optim.AdamW([each for each in adapted.parameters() if each.requires_grad], lr=factor * RATE)
    with devices.watched(model.device) as peak:
        peak.start()
        for step in range(1, loop.steps + 1):
            started = time.perf_counter()
            for group in optimiser.param_groups:
                group["lr"] = factor * RATE * (1 - (step - 1) / loop.steps)
            _backward(model, shuffled_batch(loop, step, data.train.encoded))
            optimiser.step()
            optimiser.zero_grad()
            seconds += time.perf_counter() - started
            yield Progress("LoRA", step, loop.steps, "steps")
            if step % loop.evaluate_every == 0 or step == loop.steps:
                found = (yield from evaluate(model, data.validation.encoded, "validation")).metrics
                curve.append((COST * step, found[metric], round(seconds, 1), found["loss"], step))
    after = yield from judged(model, data.test.encoded, recipe)
    return {
        **after, **{f"base_{key}": value for key, value in before.items()},
        "curve": curve, "validation_loss": curve[-1][3], "steps": loop.steps, "passes": COST * loop.steps,
        "tuned": adapted.get_nb_trainable_parameters()[0], "rate": factor * RATE, "seconds": round(seconds, 1),
        "peak_memory_mib": peak.bytes >> 20,
    }  # fmt: skip


def _adapted(base: FrozenModel, recipe: Recipe) -> tuple[FrozenModel, Any]:
    """The model of plain transformers and bitsandbytes with adapters in its layers, as the program evaluates models;
    and peft's own object."""
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    bits = recipe.model.bits
    plain: Any = load_plain(
        base.source.folder, base.device, torch.float32, 4 if bits == 4 else 16, trained=True, code=base.source.code
    )
    if bits == 4:
        plain = prepare_model_for_kbit_training(plain, use_gradient_checkpointing=False)
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted: Any = get_peft_model(plain, config)
    adapters = [each for name, each in adapted.named_parameters() if "lora_A" in name]
    for number, each in enumerate(adapters):  # the same distribution as in peft, but from our seed
        drawn = generator.normal(
            recipe.loop.seed, 0, number, each.numel(), base.device, stream=generator.Stream.ADAPTERS
        )
        each.data.copy_(drawn.view_as(each) / math.sqrt(3 * each.shape[1]))
    module = adapted.get_base_model()
    module.generation_config = base.module.generation_config  # its stop tokens are a list
    return replace(base, module=module, layers={}), adapted


def _backward(model: FrozenModel, batch: Sequence[Encoded]) -> None:
    """Adds the gradient of the mean loss of ``batch``, of as many tokens at a time as our exact gradients take."""
    weight = sum(map(weight_of, batch))
    for part in packs_of(batch, BACKWARD_ROWS[model.device.type], 1):
        pack, pairs = pack_of(model, part)
        (gathered(part, log_probabilities(model, pack, 1), pairs).sums.sum() / weight).backward()
