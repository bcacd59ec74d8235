"""Rotary position embeddings of a GGUF file, as transformers describes them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from sparsezo_gui.engine.pretrained.gguf.tensors import dense
from sparsezo_gui.errors import UserError, quoted

if TYPE_CHECKING:
    from sparsezo_gui.engine.pretrained.gguf.values import Values

LOW, HIGH, BEFORE = 1.0, 4.0, 8192  # of all models that scale as Llama 3.1 does
FACTORS = "rope_freqs.weight"
LONG, SHORT = "rope_factors_long.weight", "rope_factors_short.weight"


def rotary(read: Values, head: int, theta: float) -> dict[str, Any]:
    """``rope_parameters`` of a model with heads of size ``head``; ``theta`` is what the family usually has.

    Raises `UserError`.
    """
    found = {"rope_type": "default", "rope_theta": read.number("rope.freq_base", theta)}
    turned = read.number("rope.dimension_count", head)
    if turned < head:
        found["partial_rotary_factor"] = turned / head
    tensors = read.header.tensors
    if FACTORS in tensors:
        return found | _as_llama3(read, turned, found["rope_theta"])
    if LONG in tensors and SHORT in tensors:
        factors = {"long_factor": _listed(read, LONG, turned), "short_factor": _listed(read, SHORT, turned)}
        return found | factors | _long(read)
    return found | _scaled(read)


def _scaled(read: Values) -> dict[str, Any]:
    kind = read.header.text(f"{read.family}.rope.scaling.type") or "none"
    factor = read.number("rope.scaling.factor", read.number("rope.scale_linear", 1.0))
    if kind == "none" and read.has("rope.scale_linear"):
        kind = "linear"
    if kind == "none" or factor == 1:
        return {}
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    if kind == "yarn":
        names = {"beta_fast": "yarn_beta_fast", "beta_slow": "yarn_beta_slow"}
        more = {name: read.number(f"rope.scaling.{key}") for name, key in names.items()
                if read.has(f"rope.scaling.{key}")}  # fmt: skip
        before = read.number("rope.scaling.original_context_length")
        return {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": before, **more}
    raise UserError(
        f"{read.header.path}: scales positions by {quoted(kind)}, which SparseZO cannot read. Choose the original "
        "model in safetensors format."
    )


def _long(read: Values) -> dict[str, Any]:
    before = read.number("rope.scaling.original_context_length", read.number("context_length"))
    found = {"rope_type": "longrope", "original_max_position_embeddings": before}
    if read.has("rope.scaling.attn_factor"):
        found["attention_factor"] = read.number("rope.scaling.attn_factor")
    return found


def _as_llama3(read: Values, turned: int, theta: float) -> dict[str, Any]:
    """The file has the factor of each frequency, from which the settings of Llama 3.1 are recovered."""
    factors = _listed(read, FACTORS, turned)
    factor = max(factors)
    lengths = [2 * math.pi * theta ** (2 * index / turned) for index in range(turned // 2)]
    smooth = [min(max((BEFORE / length - LOW) / (HIGH - LOW), 0.0), 1.0) for length in lengths]
    expected = [1 / ((1 - each) / factor + each) for each in smooth]
    if not all(math.isclose(one, other, rel_tol=1e-3) for one, other in zip(factors, expected, strict=True)):
        raise UserError(
            f"{read.header.path}: scales positions in a way of its own ({quoted(FACTORS)}), which SparseZO cannot "
            "read. Choose the original model in safetensors format."
        )
    return {"rope_type": "llama3", "factor": factor, "low_freq_factor": LOW, "high_freq_factor": HIGH,
            "original_max_position_embeddings": BEFORE}  # fmt: skip


def _listed(read: Values, name: str, turned: int) -> list[float]:
    """The positive factors in the tensor ``name``, one for each frequency."""
    stored = read.header.tensors[name]
    if stored.shape != (turned // 2,):
        raise UserError(f"{read.header.path}: {quoted(name)} has not one factor for each frequency. Download it again.")
    found: list[float] = dense(read.header.path, stored, torch.float32).tolist()
    if not all(0 < each < math.inf for each in found):
        raise UserError(f"{read.header.path}: {quoted(name)} has a factor that is none. Download it again.")
    return found
