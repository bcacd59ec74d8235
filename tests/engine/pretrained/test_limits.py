"""What a model takes, told by its config and weights alone, against the models themselves."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from sparsezo_gui.engine.pretrained.limits import limits_of
from sparsezo_gui.engine.pretrained.spec import spec

SHAPE = {"vocab_size": 300, "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32}


@pytest.mark.parametrize(
    ("kind", "more", "fixed"),
    [
        ("gpt2", {"n_positions": 24}, True),
        ("gpt_neo", {"max_position_embeddings": 24, "attention_types": [[["global"], 2]], "num_layers": 2}, True),
        ("opt", {"max_position_embeddings": 24, "ffn_dim": 64, "word_embed_proj_dim": 32}, True),
        ("llama", {"max_position_embeddings": 24, "intermediate_size": 64}, False),
        ("gpt_neox", {"max_position_embeddings": 24, "intermediate_size": 64}, False),
        ("bloom", {"n_layer": 2, "n_head": 4}, None),
    ],
)
def test_positions(kind, more, fixed, tmp_path):
    config = AutoConfig.for_model(kind, **{**SHAPE, **more})
    found = limits_of(tmp_path, config, spec(config).shapes, 300)
    assert (found.positions, found.fixed) == ((0, False) if fixed is None else (24, fixed))
    model = AutoModelForCausalLM.from_config(config).eval()
    model(torch.ones(1, 24, dtype=torch.long))
    if fixed:
        with pytest.raises((IndexError, RuntimeError, ValueError)):
            model(torch.ones(1, 25, dtype=torch.long))
    else:
        model(torch.ones(1, 25, dtype=torch.long))
