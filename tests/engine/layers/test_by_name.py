"""A model whose own code passes by name what others pass first: the same numbers, to the bit."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.models.llama.modeling_llama import LlamaForCausalLM, LlamaMLP, LlamaModel

from sparsezo_gui.engine import frozen
from sparsezo_gui.engine.export.adapter import PREFIX, Adapter
from sparsezo_gui.engine.gradient import gradient
from sparsezo_gui.engine.layers.linear import FrozenLinear
from sparsezo_gui.engine.masks.random import Random
from sparsezo_gui.engine.objective import measure
from sparsezo_gui.engine.objectives.likelihood import Likelihood
from sparsezo_gui.engine.prefix import Prefix
from sparsezo_gui.engine.spaces.sparse import SparseValues
from sparsezo_gui.recipe.registry import MASKS
from tests.engine.conftest import finish
from tests.engine.test_correctness import SEARCH, batch
from tests.models import module


class Body(LlamaModel):
    def forward(self, input_ids=None, attention_mask=None, position_ids=None, use_cache=None, **_):
        hidden = self.embed_tokens(input=input_ids)
        if position_ids is None:
            position_ids = torch.arange(hidden.shape[1])[None]
        mask = create_causal_mask(
            config=self.config, inputs_embeds=hidden, attention_mask=attention_mask, past_key_values=None,
            position_ids=position_ids,
        )  # fmt: skip
        embedded = self.rotary_emb(hidden, position_ids=position_ids)
        for block in self.layers:
            hidden = block(
                attention_mask=mask, position_embeddings=embedded, position_ids=position_ids, hidden_states=hidden
            )
        return BaseModelOutputWithPast(last_hidden_state=self.norm(hidden_states=hidden))


class MLP(LlamaMLP):
    def forward(self, x):
        return self.down_proj(input=self.act_fn(self.gate_proj(input=x)) * self.up_proj(input=x))


class Whole(LlamaForCausalLM):
    def forward(self, input_ids=None, logits_to_keep=0, **inputs):
        hidden = self.model(input_ids=input_ids, **inputs).last_hidden_state
        return CausalLMOutputWithPast(logits=self.lm_head(input=hidden))


def by_name(plain):
    """``plain`` with code that passes by name."""
    plain.__class__, plain.model.__class__ = Whole, Body
    for block in plain.model.layers:
        block.mlp.__class__ = MLP
    return plain


@pytest.fixture
def pair(frozen_tiny, tmp_path, monkeypatch):
    """``pair(streamed, blocks)``: two copies of a model, the second of which passes by name."""
    monkeypatch.setenv("SPARSEZO_HOME", str(tmp_path))

    def made(streamed=False, blocks=0):
        for change in (lambda plain: plain, by_name):
            first = frozen_tiny("llama", 32)
            plain = change(copy.deepcopy(first.module))
            layers = {name: plain.get_submodule(name.removesuffix(".weight")) for name in first.layers}
            model = dataclasses.replace(first, module=plain, layers=layers)
            if blocks:
                model.spec = model.source.spec.last(blocks)
                model.prefix = Prefix(model)
            if streamed:
                frozen.stream(model)
            yield model

    return lambda *which: list(made(*which))


def found(model):
    """Losses of two points, the loss and its gradient."""
    tuned = SparseValues(model, finish(Random(density=0.05).find(model, SEARCH)))
    with tuned.applied(tuned.values + torch.tensor([[0.01], [-0.01]])):
        losses = measure(model, batch(), 2).loss
    with tuned.applied():
        slope, loss = gradient(model, tuned, Likelihood(), batch())
    assert slope.count_nonzero() > len(slope) // 2
    return losses, slope, torch.tensor(loss)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("blocks", [0, 1])
def test_losses_and_gradients_have_the_same_bits(pair, streamed, blocks):
    first, second = map(found, pair(streamed, blocks))
    assert all(map(torch.equal, first, second))


@pytest.mark.parametrize("rule", ["sensitive", "weight-activation", "activation-subspace"])
def test_the_same_masks_are_found(pair, rule):
    settings = {"rule": rule, "sequences": 2, "tokens": 32, "density": 0.01}
    mask = MASKS.build({key: value for key, value in settings.items() if key in MASKS[rule].model_fields})
    first, second = (finish(mask.find(model, SEARCH)) for model in pair())
    assert first.hash == second.hash


def test_an_adapter_reads_an_input_that_is_passed_by_name():
    plain, layer = by_name(module("llama")), "model.layers.0.mlp.down_proj"
    into, out = plain.get_submodule(layer).in_features, plain.get_submodule(layer).out_features
    parts = {"lora_A": torch.randn(2, into), "lora_B": torch.randn(out, 2)}
    adapter = Adapter(
        {"peft_type": "LORA", "target_modules": [layer], "alpha_pattern": {}, "lora_alpha": 2},
        {f"{PREFIX}{layer}.{name}.weight": tensor for name, tensor in parts.items()},
    )
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        adapter.attach(plain)
        attached = plain(input_ids=ids).logits
        other = module("llama")
        other.get_submodule(layer).weight += parts["lora_B"] @ parts["lora_A"]
        torch.testing.assert_close(attached, other(input_ids=ids).logits, rtol=1e-4, atol=1e-4)


def test_a_frozen_layer_takes_its_input_by_any_name(frozen_tiny):
    layer = next(iter(frozen_tiny("llama", 32).layers.values()))
    assert isinstance(layer, FrozenLinear)
    x = torch.randn(1, 3, layer.frozen.shape[1])
    assert torch.equal(layer(x), layer(input=x)) and torch.equal(layer(x), layer(x=x))
