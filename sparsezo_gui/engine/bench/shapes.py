"""Models of known shapes with random weights: speed and memory do not depend on the values of the weights."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import CONFIG_MAPPING

from sparsezo_gui import resources
from sparsezo_gui.engine.pretrained.spec import empty_model
from sparsezo_gui.errors import UserError, did_you_mean
from sparsezo_gui.recipe.events import Progress

SHAPES: dict[str, dict[str, Any]] = {
    "llama-135m": {"model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
                   "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152,
                   "tie_word_embeddings": True},
    "smollm2": {"model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
                "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152, "tie_word_embeddings": True,
                "max_position_embeddings": 8192},
    "gemma3-270m": {"model_type": "gemma3_text", "hidden_size": 640, "intermediate_size": 2048, "num_hidden_layers": 18,
                    "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256, "query_pre_attn_scalar": 256,
                    "sliding_window": 512, "vocab_size": 262144, "tie_word_embeddings": True},
    "opt-125m": {"model_type": "opt", "hidden_size": 768, "ffn_dim": 3072, "num_hidden_layers": 12,
                 "num_attention_heads": 12, "word_embed_proj_dim": 768, "vocab_size": 50272,
                 "max_position_embeddings": 2048},
    "llama-1b": {"model_type": "llama", "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22,
                 "num_attention_heads": 32, "num_key_value_heads": 4, "vocab_size": 32000,
                 "tie_word_embeddings": False},
    "llama-2-7b": {"model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
                   "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32000,
                   "tie_word_embeddings": False},
    "llama-3-8b": {"model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
                   "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
                   "max_position_embeddings": 8192, "tie_word_embeddings": False},
    "opt-6.7b": {"model_type": "opt", "hidden_size": 4096, "ffn_dim": 16384, "num_hidden_layers": 32,
                 "num_attention_heads": 32, "word_embed_proj_dim": 4096, "vocab_size": 50272},
    "gpt2": {"model_type": "gpt2", "max_position_embeddings": 1024},
    "qwen3-0.6b": {"model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
                   "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
                   "tie_word_embeddings": True},
}  # fmt: skip
"""Configs by name, after SmolLM-135M, SmolLM2-135M, Gemma 3 270M, OPT-125M, TinyLlama-1.1B, Llama-2-7B, Llama-3-8B,
OPT-6.7B, GPT-2 and Qwen3-0.6B."""
SHAPES["llama-1b-6"] = {**SHAPES["llama-1b"], "num_hidden_layers": 6}  # quick to measure; time is linear in layers
SHARD = 2 * 2**30  # bytes


def check(shape: str) -> None:
    """Raises `UserError` for an unknown shape."""
    if shape not in SHAPES:
        raise UserError(f"Unknown model shape '{shape}'. {did_you_mean(shape, SHAPES)}")


def make(shape: str, folder: Path, weights: bool = True) -> Generator[Progress, None, Path]:
    """Writes a model of ``shape`` with bf16 weights and the starter's tokenizer into ``folder``; without ``weights``,
    what the memory formula asks for. Raises `UserError`."""
    check(shape)
    settings = {"max_position_embeddings": 4096, **SHAPES[shape]}
    kind = settings.pop("model_type")
    if kind == "gpt2":
        settings["n_positions"] = settings.pop("max_position_embeddings")
    make_config: Any = CONFIG_MAPPING[kind]
    config = make_config(**settings, dtype="bfloat16", bos_token_id=0, eos_token_id=1, pad_token_id=1)
    folder.mkdir(parents=True, exist_ok=True)
    for path in resources.BUNDLED_MODELS["starter"].glob("token*"):
        shutil.copyfile(path, folder / path.name)
    model = empty_model(config)
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    if not weights:
        return folder
    parameters = dict(model.named_parameters())
    # Seven billion random numbers take a CPU about a minute; their values do not matter.
    generator = torch.Generator("cuda" if torch.cuda.is_available() else "cpu").manual_seed(0)
    places, part, total = dict[str, str](), dict[str, torch.Tensor](), 0

    def flush() -> None:
        file = f"model-{len(set(places.values())) + 1:05d}.safetensors"
        save_file(part, folder / file, {"format": "pt"})
        places.update(dict.fromkeys(part, file))
        part.clear()

    for done, (name, parameter) in enumerate(parameters.items()):
        yield Progress(f"Creating a model of shape {shape}", done, len(parameters), "weights")
        part[name] = _values(parameter.shape, name, generator)
        total += part[name].nbytes
        if sum(tensor.nbytes for tensor in part.values()) > SHARD:
            flush()
    flush()
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def _values(shape: torch.Size, name: str, generator: torch.Generator) -> torch.Tensor:
    """Random matrices that preserve the scale of activations; norm weights of one and biases of zero."""
    if len(shape) == 1:
        return torch.full(shape, float(name.endswith("weight")), dtype=torch.bfloat16)
    drawn = torch.randn(shape, generator=generator, device=generator.device)
    return (drawn / math.sqrt(shape[-1])).to("cpu", torch.bfloat16)
