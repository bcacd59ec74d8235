"""Tiny random models of every family that SparseZO handles, for tests: `tiny('llama', folder)`.

The weights are wide enough that losses differ between inputs, and depend only on family, overrides and ``seed``.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

TEXT = (
    "the cat sat on the mat and the dog sat on the log",
    "question: is it warm today? answer: yes",
    "a film that is great and good, not bad or dull",
)
VOCABULARY = 288  # 256 bytes, 3 special tokens, 29 merges
BOS, EOS, PAD = 0, 1, 2
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<{{ message['role'] }}> {{ message['content'] }}{{ eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}<assistant> {% endif %}"
)

_MODERN = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
           "max_position_embeddings": 1024}  # fmt: skip
_GROUPED = {**_MODERN, "num_key_value_heads": 2}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", **_GROUPED, "tie_word_embeddings": False},
    "mistral": {"model_type": "mistral", **_GROUPED, "tie_word_embeddings": False, "sliding_window": None},
    "qwen2": {"model_type": "qwen2", **_GROUPED, "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3", **_GROUPED, "tie_word_embeddings": True, "head_dim": 16},
    "gemma": {"model_type": "gemma", **_GROUPED, "head_dim": 16},
    "gemma2": {"model_type": "gemma2", **_GROUPED, "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 32},
    "gemma3": {"model_type": "gemma3_text", **_GROUPED, "head_dim": 16, "query_pre_attn_scalar": 16,
               "sliding_window": 32, "layer_types": ["sliding_attention", "full_attention"]},
    "phi": {"model_type": "phi", **_MODERN, "tie_word_embeddings": False},
    "phi3": {"model_type": "phi3", **_GROUPED, "tie_word_embeddings": False},
    "opt": {"model_type": "opt", "hidden_size": 64, "ffn_dim": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
            "max_position_embeddings": 1024, "word_embed_proj_dim": 64},
    "gpt2": {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 1024},
    "neox": {"model_type": "gpt_neox", **_MODERN, "tie_word_embeddings": False},
}  # fmt: skip
"""Settings of each family. Tied heads: qwen2, qwen3, gemma, gemma2, gemma3, opt, gpt2; the others have their own."""

OTHERS = {
    "stablelm": {"model_type": "stablelm", **_GROUPED, "tie_word_embeddings": False},
    "starcoder2": {"model_type": "starcoder2", **_GROUPED, "tie_word_embeddings": True},
}
"""Families that work too, but are not tried with everything."""


def tiny(
    family: str, folder: Path, *, dtype: str = "float32", shard: str = "5GB", seed: int = 0, std: float = 0.15,
    **overrides: Any,
) -> Path:  # fmt: skip
    """Writes a model of ``family`` (2 layers, hidden 64, 4 heads of 16) with its tokenizer to ``folder``; returns it.

    ``shard`` is the largest size of a weight file ('100KB' makes several); ``overrides`` are fields of the config.
    """
    folder.mkdir(parents=True, exist_ok=True)
    logging.disable_progress_bar()
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        module(family, seed=seed, std=std, **overrides).to(getattr(torch, dtype)).save_pretrained(
            folder, max_shard_size=shard
        )
        tokenizer().save_pretrained(folder)
    return folder


def small_recipe(folder: Path, more: str = "") -> Path:
    """A recipe file in ``folder``, beside a tiny model and forty rows of two answers; ``more`` is the rest of it, from
    what [data] has yet to say on."""
    rows = [{"text": f"a film {i}", "label": "yes" if i % 2 else "no"} for i in range(40)]
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    path = folder / "r.toml"
    path.write_text(
        f'[model]\nid = "{tiny("llama", folder / "llama")}"\ndevice = "cpu"\n'
        '[data]\nsource = "data.jsonl"\ntemplate = "{{ text }} is it?"\ncolumns = { answer = "label" }\n' + more
    )
    return path


def module(family: str, *, seed: int = 0, std: float = 0.15, **overrides: Any) -> Any:
    """The plain transformers model that `tiny` writes, in fp32 and evaluation mode."""
    settings = {"vocab_size": VOCABULARY, "bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD,
                **{**FAMILIES, **OTHERS}[family], **overrides}  # fmt: skip
    config = CONFIG_MAPPING[settings.pop("model_type")](**settings)
    with torch.random.fork_rng(devices=[]):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() > 1:
                parameter.copy_(std * noise)
            else:  # norms and biases stay near what the family begins with
                parameter.add_(0.1 * noise)
    return model


def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with `VOCABULARY` tokens and a chat template; every text survives a round trip."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "</s>", "<|endoftext|>"],  # Qwen2 adds the last where it is missing
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(TEXT, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", pad_token="<|endoftext|>", chat_template=CHAT_TEMPLATE,
        model_max_length=1024,
    )  # fmt: skip
