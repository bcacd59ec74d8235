"""GGUF files of tiny models, written as llama.cpp's converter writes them: `write(folder, path, kind)`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind
from safetensors.torch import load_file

TRANSPOSED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")


def write(
    folder: Path, path: Path, kind: Kind = Kind.F32, more: dict[str, Any] | None = None,
    tensors: dict[str, list[float]] | None = None,
) -> Path:  # fmt: skip
    """Writes the model in ``folder`` to ``path``, with its matrices in the format ``kind``; returns the path.

    ``more`` are further metadata by key, and None leaves a key out; ``tensors`` are further ones.
    """
    config = json.loads((folder / "config.json").read_text())
    family = config["model_type"].removesuffix("_text")
    writer = gguf.GGUFWriter(path, family)
    own = {f"{family}.{key}": value for key, value in sizes(family, config).items()}
    for key, value in {**own, **vocabulary(folder), **(more or {})}.items():
        add(writer, key, value)
    names = gguf.get_tensor_name_map(next(a for a, n in gguf.MODEL_ARCH_NAMES.items() if n == family), 2)
    for name, tensor in load_file(folder / "model.safetensors").items():
        values, stem = turned(family, name, tensor.float(), config).numpy(), name.rpartition(".")
        packed = gguf.quantize(values, kind) if values.ndim > 1 else values
        writer.add_tensor(f"{names.get_name(stem[0])}.{stem[2]}", packed, raw_dtype=kind if values.ndim > 1 else None)
    for name, numbers in (tensors or {}).items():
        writer.add_tensor(name, np.array(numbers, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, list):
        writer.add_array(key, value)
    elif isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    else:
        writer.add_string(key, value)


def sizes(family: str, config: dict[str, Any]) -> dict[str, Any]:
    if family == "gpt2":
        return {"block_count": config["n_layer"], "context_length": config["n_positions"],
                "embedding_length": config["n_embd"], "feed_forward_length": 4 * config["n_embd"],
                "attention.head_count": config["n_head"],
                "attention.layer_norm_epsilon": config["layer_norm_epsilon"]}  # fmt: skip
    rope = config["rope_parameters"]
    rope = rope.get("full_attention", rope)
    found = {
        "block_count": config["num_hidden_layers"], "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"], "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"], "rope.freq_base": rope["rope_theta"],
        "attention.head_count_kv": config["num_key_value_heads"], "attention.key_length": config.get("head_dim"),
        "attention.sliding_window": config.get("sliding_window"),
        "attn_logit_softcapping": config.get("attn_logit_softcapping"),
        "final_logit_softcapping": config.get("final_logit_softcapping"),
    }  # fmt: skip
    if "norm_epsilon" in config or "layer_norm_eps" in config:
        found["attention.layer_norm_epsilon"] = config.get("norm_epsilon") or config["layer_norm_eps"]
    else:
        found["attention.layer_norm_rms_epsilon"] = config["rms_norm_eps"]
    if rope.get("partial_rotary_factor", 1) < 1:
        head = config["hidden_size"] // config["num_attention_heads"]
        found["rope.dimension_count"] = int(rope["partial_rotary_factor"] * head)
    if family == "gemma3":
        found["attention.sliding_window_pattern"] = [kind[0] == "s" for kind in config["layer_types"]]
    return found


def vocabulary(folder: Path) -> dict[str, Any]:
    table = json.loads((folder / "tokenizer.json").read_text())
    tokens = sorted(table["model"]["vocab"], key=table["model"]["vocab"].get)
    special = {each["content"] for each in table["added_tokens"] if each["special"]}
    template = folder / "chat_template.jinja"
    return {
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if token in special else 1 for token in tokens],
        "tokenizer.ggml.merges": [" ".join(merge) for merge in table["model"]["merges"]],
        "tokenizer.ggml.bos_token_id": 0, "tokenizer.ggml.eos_token_id": 1, "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": template.read_text() if template.exists() else None,
        "general.license": "mit",
    }  # fmt: skip


def turned(family: str, name: str, tensor: torch.Tensor, config: dict[str, Any]) -> torch.Tensor:
    """The tensor as llama.cpp has it."""
    if family == "gpt2":
        return tensor.T.contiguous() if name.endswith(TRANSPOSED) else tensor
    if family.startswith("gemma") and name.endswith("norm.weight"):
        return tensor + 1
    heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}.get(name.split(".")[-2])
    if family == "llama" and heads:  # halves of each head become pairs
        count = config[heads]
        halves = tensor.reshape(count, 2, tensor.shape[0] // count // 2, *tensor.shape[1:])
        return halves.swapaxes(1, 2).reshape(tensor.shape).contiguous()
    return tensor


def dequantised(folder: Path, family: str, kind: Kind) -> dict[str, torch.Tensor]:
    """The matrices of the model in ``folder`` as they are after quantisation, by their names in transformers."""
    found = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        flip = family == "gpt2" and name.endswith(TRANSPOSED)
        if tensor.ndim > 1:
            values = (tensor.T if flip else tensor).contiguous().numpy()
            dense = torch.from_numpy(gguf.dequantize(gguf.quantize(values, kind), kind))
            found[name] = dense.T if flip else dense
    return found
