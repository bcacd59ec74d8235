"""Counts and names of every family against the plain model and against hand counts; what cannot be handled."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import CONFIG_MAPPING
from transformers.pytorch_utils import Conv1D

from sparsezo_gui.engine.pretrained.spec import spec
from sparsezo_gui.errors import UserError
from tests.models import FAMILIES, VOCABULARY, module

TIED = {"qwen2", "qwen3", "gemma", "gemma2", "gemma3", "opt", "gpt2"}
BLOCKS = {"opt": "model.decoder.layers", "gpt2": "transformer.h", "neox": "gpt_neox.layers"}
# Weights of the linear layers of one block, by hand: hidden 64, feed-forward 128, 4 heads of 16, 2 of them for keys.
GATED = 64 * 64 + 2 * 64 * 32 + 64 * 64 + 3 * 64 * 128
PLAIN = 4 * 64 * 64 + 2 * 64 * 128
ELIGIBLE = {"phi": PLAIN, "opt": PLAIN, "neox": PLAIN, "gpt2": 4 * 64 * 64 + 2 * 64 * 256}


@pytest.mark.parametrize("family", FAMILIES)
def test_counts_are_those_of_the_plain_model(family):
    model = module(family)
    found = spec(model.config)
    tables = VOCABULARY * 64 + {"opt": 1026 * 64, "gpt2": 1024 * 64}.get(family, 0)
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert found.eligible == 2 * ELIGIBLE.get(family, GATED)
    assert found.embeddings == tables
    assert found.tied == (family in TIED)
    assert found.head == (0 if found.tied else VOCABULARY * 64 + (VOCABULARY if family == "phi" else 0))
    assert found.eligible + found.embeddings + found.head + found.other == found.parameters
    assert (found.hidden, found.layers, found.heads, found.head_dim) == (64, 2, 4, 16)
    assert found.vocabulary == VOCABULARY


@pytest.mark.parametrize("family", FAMILIES)
def test_names_lead_to_the_linear_layers_of_the_blocks(family):
    model = module(family)
    found = spec(model.config)
    assert found.blocks == BLOCKS.get(family, "model.layers")
    assert len(model.get_submodule(found.blocks)) == 2
    for name, shape in found.linears.items():
        layer = model.get_submodule(name.removesuffix(".weight"))
        assert isinstance(layer, Conv1D if name in found.transposed else nn.Linear)
        assert tuple(layer.weight.shape) == (shape[::-1] if name in found.transposed else shape)
    assert bool(found.transposed) == (family == "gpt2")
    for path in found.skip:
        assert isinstance(model.get_submodule(path), nn.Linear)
        assert not path.startswith(found.blocks)
    linear = {name for name, part in model.named_modules() if isinstance(part, nn.Linear | Conv1D)}
    assert linear == {name.removesuffix(".weight") for name in found.linears} | set(found.skip)
    assert found.aliases.keys() == ({"lm_head.weight"} if family in TIED else set())


def test_the_config_and_the_random_state_stay_as_they_were():
    config = CONFIG_MAPPING["llama"](**{key: value for key, value in FAMILIES["llama"].items() if key != "model_type"})
    before, state = config.to_dict(), torch.get_rng_state()
    spec(config)
    assert config.to_dict() == before
    assert torch.equal(torch.get_rng_state(), state)


def test_a_large_model_is_told_without_its_weights():
    found = spec(CONFIG_MAPPING["llama"]())  # the 7 B model of the Llama 2 paper
    assert found.parameters == 6_738_415_616
    assert found.eligible == 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    assert (found.intermediate, found.widest, found.largest) == (11008, 11008, 4096 * 11008)


@pytest.mark.parametrize("kind", ["gptj", "falcon", "bloom", "stablelm", "starcoder2", "olmo2", "cohere", "granite"])
def test_further_families(kind):
    assert spec(CONFIG_MAPPING[kind](bos_token_id=0, eos_token_id=1)).eligible > 0


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("t5", "encoder-decoder"),
        ("bart", "encoder-decoder"),
        ("bert", "both directions"),
        ("vit", "not a causal language model"),
        ("mamba", "recurrent or convolution"),
        ("rwkv", "recurrent or convolution"),
        ("mixtral", "mixture of experts"),
    ],
)
def test_what_cannot_be_handled_is_refused_with_the_reason(kind, reason):
    with pytest.raises(UserError, match=reason) as error:
        spec(CONFIG_MAPPING[kind]())
    assert f"'{kind}'" in str(error.value)


def test_a_config_that_no_model_can_be_built_from():
    config = module("llama").config
    config.hidden_size = -3
    with pytest.raises(UserError, match=r"cannot be built from its config\.json"):
        spec(config)
