"""The simplest rival of tuning: logistic regression on what the untuned model makes of a prompt."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sparsezo_gui.engine import frozen
from sparsezo_gui.engine.bench.judged import packed
from sparsezo_gui.engine.data.encode import Encoded, Row
from sparsezo_gui.engine.forward import running
from sparsezo_gui.engine.frozen import FrozenModel
from sparsezo_gui.engine.layers.head import split_pass
from sparsezo_gui.engine.objective import pack_of, packs_of
from sparsezo_gui.engine.session.loading import load_data
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe.events import Event, Progress
from sparsezo_gui.recipe.recipe import SPLITS

PENALTIES = tuple(10.0**power for power in range(-4, 3))  # of the squared weights, tried on validation examples
ITERATIONS = 200


def linear_probe(recipe: Recipe) -> Generator[Event, None, dict[str, Any]]:
    """Trains on the recipe's training examples, chooses the penalty on the validation examples, and tests."""
    model = yield from frozen.load(recipe.model)
    data = yield from load_data(recipe, model)
    started = time.perf_counter()
    states = {}
    for split in SPLITS:
        yield Progress(f"Hidden states of {split}")
        states[split] = hidden_states(model, getattr(data, split).encoded)
    mean, deviation = states["train"].mean(dim=0), states["train"].std(dim=0).clamp(min=1e-6)
    train, validation, test = ((each - mean) / deviation for each in states.values())
    classes = len(data.answers)
    labels = torch.tensor([each.label for each in data.train.encoded])
    fitted = [fit(train, labels, classes, penalty) for penalty in PENALTIES]
    chances = [_hits(validation, weights, data.validation.encoded) for weights in fitted]
    best = max(range(len(fitted)), key=lambda index: sum(chances[index]))
    hits = _hits(test, fitted[best], data.test.encoded)
    return {
        "final": sum(hits) / len(hits), "scores": packed(hits), "penalty": PENALTIES[best],
        "tuned": fitted[best].numel(),
        "validation": sum(chances[best]) / len(chances[best]), "seconds": round(time.perf_counter() - started, 1),
        "passes": -(-len(labels) // recipe.loop.batch_size), "curve": [], "rate": 0.0,
    }  # fmt: skip


@torch.no_grad()
def hidden_states(model: FrozenModel, examples: Sequence[Encoded]) -> Tensor:
    """(examples, hidden) fp64: the last hidden state, as the head gets it, at the last token of each prompt."""
    asked = [replace(each, rows=(Row(each.prompt, (len(each.prompt) - 1,), (0,), (0,)),), choices=0)
             for each in examples]  # fmt: skip
    found: list[Tensor] = []
    for part in packs_of(asked, model.pack_rows, 1):
        pack, owners = pack_of(model, part)
        with running(model, pack, 1) as (inputs, places):
            hidden, _ = split_pass(model.module, model.body, **inputs)
            ordered = places(hidden)[0, pack.inverse].double().cpu()
        order = torch.tensor([number for number, _ in owners]).argsort()
        found.append(ordered[order])
    return torch.cat(found)


def fit(states: Tensor, labels: Tensor, classes: int, penalty: float) -> Tensor:
    """Weights and bias (hidden + 1, classes) with the least mean cross-entropy + penalty/2 · ‖weights‖²."""
    inputs = F.pad(states, (0, 1), value=1.0)
    weights = torch.zeros(inputs.shape[1], classes, dtype=states.dtype, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weights], max_iter=ITERATIONS, tolerance_grad=1e-8, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def loss() -> float:
        solver.zero_grad()
        found = F.cross_entropy(inputs @ weights, labels) + penalty / 2 * weights[:-1].square().sum()
        found.backward()
        return found.item()

    solver.step(loss)
    return weights.detach()


def _hits(states: Tensor, weights: Tensor, examples: Sequence[Encoded]) -> list[float]:
    chosen = (F.pad(states, (0, 1), value=1.0) @ weights).argmax(dim=1).tolist()
    return [float(choice in (each.label, *each.accepted)) for choice, each in zip(chosen, examples, strict=True)]
