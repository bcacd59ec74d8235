"""Memory of exact steps: near that of forward passes, whatever the batch, and of further blocks only their inputs."""

from __future__ import annotations

import pytest
import torch

from sparsezo_gui.engine import frozen
from sparsezo_gui.engine.masks.lora import Lora
from sparsezo_gui.engine.masks.random import Random
from sparsezo_gui.engine.memory import estimate
from sparsezo_gui.engine.session import Session
from sparsezo_gui.engine.spaces.values import tuned_values
from sparsezo_gui.recipe import build
from sparsezo_gui.recipe.recipe import ModelTable
from tests.engine.conftest import finish
from tests.engine.live import Live
from tests.engine.test_correctness import SEARCH, example
from tests.models import tiny

TOKENS, HIDDEN = 128, 64
PACK = 4 * TOKENS  # what goes backwards at once, on a CPU


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    """``deep(blocks)``: a model with so many."""
    made = {}

    def load(blocks):
        if blocks not in made:
            folder = tiny("llama", tmp_path_factory.mktemp("deep"), num_hidden_layers=blocks, std=0.05)
            made[blocks] = finish(frozen.load(ModelTable(id=str(folder), device="cpu")))
        return made[blocks]

    return load


def texts(count):
    draw = torch.Generator().manual_seed(0)
    for _ in range(count):
        tokens = torch.randint(3, 288, (TOKENS,), generator=draw).tolist()
        yield example(tokens, range(TOKENS - 1), tokens[1:])


RULES = {"entries": Random(density=0.001), "lora": Lora(rank=2)}


def peak(model, rule, estimator, count, **settings):
    """Bytes of a step on ``count`` texts, of which four are a pack, and of the values that it tunes."""
    chosen = build({"estimator": {"rule": estimator, **settings}, "loop": {"batch_size": count}})
    session = Session(chosen, model, tuned_values(model, finish(RULES[rule].find(model, SEARCH))))
    session.begin()
    session.estimate(list(texts(1)), session.directions())  # what is made once is there
    with Live() as live:
        found = session.estimate(list(texts(count)), session.directions())
        session.advance(session.directions(), found.recorded, 1e-3, found.exact)
    return live.peak, session.tuned.values.nbytes


@pytest.mark.parametrize("rule", ["entries", pytest.param("lora", marks=pytest.mark.slow)])
def test_exact_steps_take_little_more_than_forward_passes(deep, rule):
    deepest, inputs = deep(24), 4 * PACK * HIDDEN  # bytes that go into a block with a pack
    two_sided, _ = peak(deepest, rule, "two-sided", 4)
    exact, values = peak(deepest, rule, "first-order", 4)
    assert exact < 1.1 * two_sided + 24 * inputs + 2 * values < 2.3 * two_sided
    assert peak(deepest, rule, "first-order", 16) == (exact, values), "a pack at a time"
    shallow, fewer = peak(deep(6), rule, "first-order", 4)
    assert abs(exact - shallow - 18 * inputs) < 2 * (values - fewer), "of other blocks only what goes into them"
    suffix, _ = peak(deepest, rule, "elastic", 4, blocks=2)
    assert suffix < 1.1 * two_sided + 2 * inputs + 5 * values


@pytest.mark.parametrize("settings", [{"rule": "two-sided"}, {"rule": "addax", "short": 4}])
def test_passes_without_a_backward_pass_are_estimated_with_all_their_rows(deep, settings):
    """Those on long examples are of as many rows as if no other part of the step went backwards."""
    model, chosen = deep(6), build({"estimator": settings, "mask": RULES["entries"]})
    rest = {key: value for key, value in settings.items() if key != "rule"}
    live, _ = peak(model, "entries", settings["rule"], 16, **rest)
    found = estimate(chosen, model.spec, "cpu", TOKENS, PACK, scored_tokens=PACK, available=2**40, capacity=2**40)
    parts = {part.name: part.bytes for part in found.parts}
    assert live <= sum(parts[name] for name in ("Tuned values", "Activations", "Logits", "Workspace"))
