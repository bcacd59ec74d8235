"""The metadata of a GGUF file that describes its model: what `sparsezo_gui.engine.pretrained.gguf.config` reads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from transformers import PretrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from sparsezo_gui.engine.pretrained import auto
from sparsezo_gui.engine.pretrained.gguf.config import MAPPING, config_of
from sparsezo_gui.engine.pretrained.gguf.header import Header
from sparsezo_gui.engine.pretrained.gguf.rotary import FACTORS, LONG, SHORT
from sparsezo_gui.errors import UserError, quoted

_READ_ELSEWHERE = ("head_dim", "rope_theta", "n_ctx", "feed_forward_length", "sliding_window", "vocab_size")
# What limits the length of texts, and what depends on it, is compared by its output alone.
_NOT_COMPARED = {
    "max_position_embeddings", "sliding_window", "sliding_window_pattern", "rope_parameters",
    "original_max_position_embeddings", "model_type", "architectures", "dtype", "vocab_size", "bos_token_id",
    "pad_token_id", "eos_token_id",
}  # fmt: skip
_FUNCTIONS = ("hidden_act", "hidden_activation", "activation_function", "qk_layernorm")
_YARN = {"factor": "factor", "original_max_position_embeddings": "original_context_length",
         "beta_fast": "yarn_beta_fast", "beta_slow": "yarn_beta_slow"}  # fmt: skip


def sizes(config: PretrainedConfig, family: str) -> dict[str, Any]:
    """Numbers by key, without the family in front. Raises `UserError` for a model that GGUF cannot describe."""
    text = config.get_text_config()
    found: dict[str, Any] = {
        key: getattr(text, name) for key, name in MAPPING[family].items() if name and name not in _READ_ELSEWHERE
    }
    found["vocab_size"] = text.vocab_size
    if family == "gpt2":
        inner = text.n_inner or 4 * text.n_embd
        return found | {"context_length": text.n_positions, "feed_forward_length": inner}
    head = head_size(text)
    found |= {"attention.key_length": head, "attention.value_length": head, **_windows(text, family, found)}
    if family == "stablelm":
        found["use_parallel_residual"] = text.use_parallel_residual
    parameters = _positions(text)
    found["rope.freq_base"] = float(parameters["rope_theta"])
    found["rope.dimension_count"] = int(head * parameters.get("partial_rotary_factor", 1.0))
    return found | _scaling(text, parameters)


def head_size(text: PretrainedConfig) -> int:
    """Numbers in each head of attention."""
    return int(getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)


def factors(config: PretrainedConfig) -> dict[str, list[float]]:
    """By name, the tensors that scale the frequencies of positions; most models have none."""
    text = config.get_text_config()
    parameters = getattr(text, "rope_parameters", None) or {}
    if parameters.get("rope_type") == "longrope":
        return {LONG: list(parameters["long_factor"]), SHORT: list(parameters["short_factor"])}
    if parameters.get("rope_type") != "llama3":
        return {}
    head, theta = head_size(text), parameters["rope_theta"]
    frequencies = ROPE_INIT_FUNCTIONS["llama3"](text, torch.device("cpu"))[0]
    usual = theta ** (-torch.arange(0, head, 2, dtype=torch.float32) / head)
    return {FACTORS: (usual / frequencies).tolist()}


def _positions(text: PretrainedConfig) -> Mapping[str, Any]:
    """How positions are told apart; in Gemma 3, in the layers that see all of them."""
    parameters: dict[str, Any] = text.rope_parameters
    found: dict[str, Any] = parameters.get("full_attention", parameters)
    return found


def _scaling(text: PretrainedConfig, parameters: Mapping[str, Any]) -> dict[str, Any]:
    kind = parameters.get("rope_type", "default")
    if kind in ("default", "llama3"):
        return {}
    if kind == "longrope":
        attention = ROPE_INIT_FUNCTIONS["longrope"](text, torch.device("cpu"))[1]
        before = text.original_max_position_embeddings
        return {"rope.scaling.original_context_length": before, "rope.scaling.attn_factor": float(attention)}
    known = {"linear": ("factor",), "yarn": tuple(_YARN)}.get(kind, ())
    extra = parameters.keys() - {"rope_type", "rope_theta", "partial_rotary_factor", *known}
    if not known or any(parameters[name] is not None for name in extra):
        raise UserError(
            f"The model scales positions by {quoted(kind)} with {', '.join(sorted(extra)) or 'no settings'}, which "
            "GGUF files cannot describe. Export the run with --format hf."
        )
    given = {_YARN[name]: parameters[name] for name in known if parameters.get(name) is not None}
    floats = {key: value if key == "original_context_length" else float(value) for key, value in given.items()}
    return {"rope.scaling.type": kind, **{f"rope.scaling.{key}": value for key, value in floats.items()}}


def _windows(text: PretrainedConfig, family: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """Sliding windows and capped scores. Llama and Qwen files have no windows: they end where the window would."""
    window = getattr(text, "sliding_window", None)
    if family.startswith("gemma") and window:
        kinds = [kind == "sliding_attention" for kind in text.layer_types]
        caps = {name: getattr(text, name, None) for name in ("attn_logit_softcapping", "final_logit_softcapping")}
        more: dict[str, Any] = {name: float(value) for name, value in caps.items() if value}
        more["attention.sliding_window_pattern"] = np.array(kinds, np.bool_)
        if family == "gemma3":
            more["rope.freq_base_swa"] = float(text.rope_parameters["sliding_attention"]["rope_theta"])
        return more | {"attention.sliding_window": window}
    if family == "phi3":
        return {"attention.sliding_window": window or 0}
    return {"context_length": min(found["context_length"], window)} if window else {}


def refuse_differences(header: Header, config: PretrainedConfig) -> None:
    """Raises `UserError` if the file at ``header`` describes another model than ``config``."""
    described = config_of(header)
    found, wanted = auto.make_config(described), config.get_text_config()
    names = (described.keys() | set(_FUNCTIONS)) - _NOT_COMPARED
    for name in sorted(names):
        one, other = getattr(found, name, None), getattr(wanted, name, None)
        if other is not None and not _same(one, other):
            raise UserError(
                f"GGUF files of the family '{header.architecture}' cannot describe this model: its {quoted(name)} "
                f"would be {quoted(one)} instead of {quoted(other)}. Export the run with --format hf."
            )


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float | int):
        return math.isclose(one, other, rel_tol=1e-6)  # a file has 32 bits
    return bool(one == other)
