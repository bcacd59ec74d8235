"""The transformers config of a GGUF file, from its metadata.

The names of sizes come from transformers' own tables. What those leave at a class's default, though the file or
llama.cpp says otherwise, is set here: head sizes, capped scores, sliding windows and rotary embeddings.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType
from transformers.integrations.ggml import GGUF_CONFIG_MAPPING

from sparsezo_gui.engine.pretrained.gguf.header import Header
from sparsezo_gui.engine.pretrained.gguf.rotary import rotary
from sparsezo_gui.engine.pretrained.gguf.values import Values
from sparsezo_gui.errors import UserError, quoted

END_TOKENS = ("eos", "eot", "eom")  # of a whole text, of a turn, and of a turn that calls a tool
_ARCHITECTURES = {
    "llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM", "phi3": "Phi3ForCausalLM",
    "gemma": "GemmaForCausalLM", "gemma2": "Gemma2ForCausalLM", "gemma3": "Gemma3ForCausalLM",
    "gpt2": "GPT2LMHeadModel", "stablelm": "StableLmForCausalLM", "starcoder2": "Starcoder2ForCausalLM",
}  # fmt: skip
"""The families that are read, and the class of each."""
MAPPING: dict[str, Any] = {**GGUF_CONFIG_MAPPING, "gemma": GGUF_CONFIG_MAPPING["gemma2"]}
_HALVES = {GGMLQuantizationType.BF16: "bfloat16", GGMLQuantizationType.F16: "float16"}


def config_of(header: Header) -> dict[str, Any]:
    """The content of config.json. Raises `UserError` for a family that is not read, and for sizes that are none."""
    family = header.architecture
    _refuse(header)
    read = Values(header)
    found: dict[str, Any] = {"model_type": "gemma3_text" if family == "gemma3" else family}
    found["architectures"] = [_ARCHITECTURES[family]]
    for key, name in MAPPING[family].items():
        if name and name not in ("rope_theta", "vocab_size") and f"{family}.{key}" in header.metadata:
            found[name] = read.number(key)
    _check_blocks(header, read.number("block_count"))
    found |= {"vocab_size": _rows(header), "dtype": _dtype(header)}
    found["tie_word_embeddings"] = "output.weight" not in header.tensors
    for name in ("bos", "padding", "eos"):
        found[f"{name.replace('padding', 'pad')}_token_id"] = header.metadata.get(f"tokenizer.ggml.{name}_token_id")
    ends = [header.metadata.get(f"tokenizer.ggml.{name}_token_id") for name in END_TOKENS]
    ends = [end for end in dict.fromkeys(ends) if end is not None]
    found["eos_token_id"] = ends if len(ends) > 1 else next(iter(ends), None)
    return found | _OWN[family](found, read)


def _refuse(header: Header) -> None:
    family = header.architecture
    if family == "clip":
        raise UserError(f"{header.path}: the image encoder of a model, not a model. Choose the GGUF file beside it.")
    if family not in _ARCHITECTURES:
        raise UserError(
            f"{header.path}: SparseZO does not read GGUF files of the family {quoted(family)}, but of "
            f"{', '.join(_ARCHITECTURES)}. Choose the original model in safetensors format."
        )
    if header.metadata.get("split.count", 1) != 1:
        raise UserError(
            f"{header.path}: a part of a model. Join the parts first, with llama-gguf-split --merge of llama.cpp."
        )
    if header.metadata.get(f"{family}.expert_count", 0):
        raise UserError(
            f"{header.path}: a mixture of experts, whose experts are no linear layers, so it cannot be tuned. Choose a "
            "dense model."
        )


def _check_blocks(header: Header, count: int) -> None:
    """Raises `UserError` unless the tensors are those of so many blocks, before so many are built."""
    numbers = {match[1] for name in header.tensors if (match := re.match(r"blk\.(\d+)\.", name))}
    if numbers != set(map(str, range(min(count, len(numbers) + 1)))):
        raise UserError(
            f"{header.path}: claims {count} blocks, but has tensors of {len(numbers)}. Download or copy the file again."
        )


def _rows(header: Header) -> int:
    """Tokens in the embeddings."""
    table = header.tensors.get("token_embd.weight")
    if table is None or len(table.shape) != 2:
        raise UserError(f"{header.path}: has no embeddings ('token_embd.weight'). Download or copy the file again.")
    return table.shape[0]


def _dtype(header: Header) -> str:
    """The 16-bit type of the matrices, or else float32; quantised ones count as float16, which has their precision."""
    kinds = {each.kind for each in header.tensors.values() if len(each.shape) > 1}
    if kinds == {GGMLQuantizationType.F32}:
        return "float32"
    return next((name for kind, name in _HALVES.items() if kind in kinds), "float16")


def _common(found: dict[str, Any], read: Values, theta: float = 10_000.0) -> dict[str, Any]:
    heads, hidden = read.number("attention.head_count"), read.number("embedding_length")
    head = read.number("attention.key_length", max(hidden // heads, 1))
    return {
        "head_dim": head,
        "num_key_value_heads": read.number("attention.head_count_kv", heads),
        "rope_parameters": rotary(read, head, theta),
    }


def _llama(found: dict[str, Any], read: Values) -> dict[str, Any]:
    biases = {"attention_bias": "attn_q.bias", "mlp_bias": "ffn_up.bias"}
    return _common(found, read) | {name: read.in_first_block(tensor) for name, tensor in biases.items()}


def _phi3(found: dict[str, Any], read: Values) -> dict[str, Any]:
    more = _common(found, read)
    more["sliding_window"] = read.number("attention.sliding_window") if read.has("attention.sliding_window") else None
    before = more["rope_parameters"].get("original_max_position_embeddings", found["max_position_embeddings"])
    return more | {"original_max_position_embeddings": before}


def _gemma2(found: dict[str, Any], read: Values, theta: float = 10_000.0) -> dict[str, Any]:
    """As llama.cpp does: scores are scaled by the size of a head, but in the 27B models by that of hidden states for
    each head. Caps and windows are in the file."""
    more, blocks = _common(found, read, theta), found["num_hidden_layers"]
    largest = blocks == {"gemma2": 46, "gemma3": 62}[read.family]
    more["query_pre_attn_scalar"] = (
        found["hidden_size"] // found["num_attention_heads"] if largest else more["head_dim"]
    )
    for name in ("attn_logit_softcapping", "final_logit_softcapping"):
        if read.has(name):
            more[name] = read.number(name)
    pattern = read.header.metadata.get(f"{read.family}.attention.sliding_window_pattern")
    if isinstance(pattern, np.ndarray):
        more["layer_types"] = [("sliding" if each else "full") + "_attention" for each in pattern.tolist()]
    elif pattern is not None:
        more["sliding_window_pattern"] = read.number("attention.sliding_window_pattern")
    return more


def _gemma3(found: dict[str, Any], read: Values) -> dict[str, Any]:
    more = _gemma2(found, read, 1_000_000.0)
    near = {"rope_type": "default", "rope_theta": read.number("rope.freq_base_swa", 10_000.0)}
    more["rope_parameters"] = {"sliding_attention": near, "full_attention": more["rope_parameters"]}
    return more


def _gpt2(found: dict[str, Any], read: Values) -> dict[str, Any]:
    return {"n_positions": read.number("context_length"), "n_inner": read.number("feed_forward_length")}


def _stablelm(found: dict[str, Any], read: Values) -> dict[str, Any]:
    parallel = not read.in_first_block("ffn_norm.weight")
    return _common(found, read) | {
        "use_qkv_bias": read.in_first_block("attn_q.bias"),
        "use_parallel_residual": parallel,
    }


_OWN: dict[str, Callable[[dict[str, Any], Values], dict[str, Any]]] = {
    "llama": _llama, "qwen2": _common, "qwen3": _common, "phi3": _phi3, "gemma": _common, "gemma2": _gemma2,
    "gemma3": _gemma3, "gpt2": _gpt2, "stablelm": _stablelm, "starcoder2": _common,
}  # fmt: skip
