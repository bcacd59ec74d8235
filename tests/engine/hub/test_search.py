"""Verdicts on what a search of the Hub found."""

from __future__ import annotations

import json

import pytest

from sparsezo_gui.answers import Found
from sparsezo_gui.engine.search import judge
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe.tables import changed

LARGE = json.dumps({
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8192, "intermediate_size": 28672,
    "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 128256,
}).encode()  # fmt: skip


def bits(number):
    return changed(Recipe(), {"model": {"bits": number}})


def test_a_verdict_is_that_of_the_recipe_and_not_the_one_before(monkeypatch):
    monkeypatch.setattr("sparsezo_gui.engine.device.memory_free", lambda _: 100 * 2**30)
    before = Found("meta/large", fit="tight", config=LARGE), Found("a/gated", gated=True)
    (small, gated), (large, _) = judge(before, bits(4)), judge(before, bits(32))
    assert (small.fit, large.fit, gated) == ("fits", "too large", before[1])


@pytest.mark.parametrize("config", [b"{", b'{"model_type": "bert"}'])
def test_what_cannot_be_tuned_says_why_and_has_no_verdict(config):
    (found,) = judge([Found("x/y", fit="fits", config=config)], Recipe())
    assert found.problem and not found.fit
    assert judge([found], Recipe()) == [found]
