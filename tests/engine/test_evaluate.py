"""Metrics against known answers, and evaluation against the plain model."""

from __future__ import annotations

import math

import pytest
import torch

from sparsezo_gui.engine import generate, metrics
from sparsezo_gui.engine.data.ask import Asked
from sparsezo_gui.engine.data.encode import Encoded, Row, prompt_tokens
from sparsezo_gui.engine.evaluate import evaluate
from sparsezo_gui.engine.generate import stream, written
from tests.engine import plain as reference
from tests.engine.conftest import finish
from tests.models import FAMILIES


@pytest.mark.parametrize(
    ("answer", "references", "exact", "f1"),
    [
        ("The Eiffel Tower!", ["eiffel tower"], 1.0, 1.0),
        ("in the big city", ["big city"], 0.0, 0.8),
        ("blue", ["red", "dark blue"], 0.0, 2 / 3),
        ("", ["x"], 0.0, 0.0),
        ("the", ["a"], 1.0, 1.0),
        ("cat cat", ["cat"], 0.0, 2 / 3),
    ],
)
def test_answer_scores(answer, references, exact, f1):
    assert metrics.exact_match(answer, references) == exact
    assert metrics.f1(answer, references) == pytest.approx(f1)


def test_macro_f1_is_the_mean_over_classes():
    # Class 0: precision 2/3, recall 1; class 1: precision 1, recall 1/2.
    assert metrics.macro_f1([0, 0, 0, 1], [0, 0, 1, 1]) == pytest.approx((0.8 + 2 / 3) / 2)
    assert metrics.macro_f1([0, 1, 2], [0, 1, 2]) == 1.0


def choice(tokens, candidates, label, accepted=()):
    places = (len(tokens) - 1,) * len(candidates)
    row = Row(tuple(tokens), places, tuple(candidates), tuple(range(len(candidates))))
    return Encoded((row,), len(candidates), label, tuple(tokens), (), 0, accepted)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_accuracy_and_loss_equal_the_plain_models(frozen_tiny, family):
    model = frozen_tiny(family, 4)
    examples = [choice([5, 9, 20 + i], [30, 40, 50], i % 3) for i in range(40)]
    found = finish(evaluate(model, examples, "test")).metrics
    plain = reference.plain_model(model)
    with torch.no_grad():
        logits = torch.stack([plain(torch.tensor([[5, 9, 20 + i]])).logits[0, -1, [30, 40, 50]] for i in range(40)])
    labels = torch.tensor([i % 3 for i in range(40)])
    assert found["accuracy"] == float((logits.argmax(1) == labels).float().mean().double().round(decimals=6))
    assert found["loss"] == pytest.approx(float(torch.nn.functional.cross_entropy(logits, labels)), rel=1e-5)
    assert found["examples"] == 40


def test_any_accepted_answer_counts(frozen_tiny):
    model = frozen_tiny("llama", 4)
    one = choice([5, 9, 20], [30, 40, 50], 0)
    best = int(finish(evaluate(model, [one], "test")).metrics["accuracy"])  # 1 when 0 is the model's choice
    every = choice([5, 9, 20], [30, 40, 50], 0, (1, 2))
    assert finish(evaluate(model, [every], "test")).metrics["accuracy"] == 1.0
    assert best in (0, 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_text_equals_plain_generate(frozen_tiny, family):
    model = frozen_tiny(family, 4)
    plain = reference.plain_model(model)
    ids = torch.tensor([[0, 7, 19, 88, 45, 23]])
    expected = plain.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)[0, 6:]
    found = list(stream(model, ids, 12))
    assert found == expected.tolist()[: len(found)]
    assert len(found) == 12 or expected[len(found)] == model.tokenizer.eos_token_id


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_written_together_are_those_written_alone(frozen_tiny, family, monkeypatch):
    model = frozen_tiny(family, 4)
    draw = torch.Generator().manual_seed(3)
    lengths = (9, 3, 20, 3, 1, 14, 41)
    prompts = [torch.randint(3, 288, (length,), generator=draw).tolist() for length in lengths]
    alone = {index: [list(stream(model, torch.tensor([prompt]), 8))] for index, prompt in enumerate(prompts)}
    sizes, original = [], type(model.module).generate
    monkeypatch.setattr(type(model.module), "generate",
                        lambda self, input_ids, **rest: sizes.append(len(input_ids)) or
                        original(self, input_ids=input_ids, **rest))  # fmt: skip
    assert dict(generate.complete(model, prompts, 8)) == alone
    assert sizes == [7]
    monkeypatch.setattr(generate, "CACHE_BYTES", 80 * 2 * 2 * model.anatomy.kv_heads * 16 * 4)  # 80 tokens
    assert dict(generate.complete(model, prompts, 8)) == alone
    assert sizes[1:] == [4, 2, 1]  # up to 9 + 8, 20 + 8 and 41 + 8 tokens each


def test_streamed_pieces_join_to_the_whole_text(frozen_tiny):
    model = frozen_tiny("llama", 4)
    tokens = list(stream(model, model.tokenizer("the cat", return_tensors="pt").input_ids, 30))
    whole = model.tokenizer.decode(tokens, skip_special_tokens=True)
    assert "".join(written(model, Asked(prompt_tokens("the cat", model.tokenizer)), 30)) == whole


def test_perplexity_and_generated_answers_of_completions(frozen_tiny):
    model = frozen_tiny("llama", 4)
    prompt = (0, 7, 19, 88)
    answer = list(stream(model, torch.tensor([prompt]), 3))
    text = model.tokenizer.decode(answer, skip_special_tokens=True).strip().split("\n")[0]
    row = Row((*prompt, *answer[:-1]), (3, 4, 5)[: len(answer)], tuple(answer), (0,) * len(answer))
    found = finish(evaluate(model, [Encoded((row,), 0, 0, prompt, (text + " and more",), 0)], "test")).metrics
    assert found["perplexity"] == pytest.approx(math.exp(found["loss"]))
    assert 0 <= found["exact_match"] <= found["f1"] <= 1
