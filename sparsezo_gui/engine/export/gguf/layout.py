"""Which tensor of a GGUF file holds which weight, and in which order of rows: the other way round than
`sparsezo_gui.engine.pretrained.gguf.tensors` reads them."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsezo_gui.engine.pretrained.gguf.config import ARCHITECTURES, model_type
from sparsezo_gui.engine.pretrained.gguf.tensors import parameters
from sparsezo_gui.engine.pretrained.source import ModelSource
from sparsezo_gui.errors import UserError, quoted

FAMILIES = {**{model_type(family): family for family in ARCHITECTURES}, "mistral": "llama"}
"""The family in the words of llama.cpp, by transformers' model type."""


def family_of(source: ModelSource) -> str:
    """The family of a model. Raises `UserError` for one that is not written."""
    kind = source.config.model_type
    if kind not in FAMILIES or source.code is not None:
        raise UserError(
            f"SparseZO cannot write GGUF files of {quoted(kind)} models, only of {', '.join(sorted(FAMILIES))}. Export "
            "the run with --format hf, and convert that folder with llama.cpp."
        )
    return FAMILIES[kind]


class Layout:
    """The tensors of a GGUF file of ``source``: ``names`` by the names of its parameters."""

    def __init__(self, source: ModelSource) -> None:
        """Raises `UserError` if the model has weights that the file has no place for."""
        self.source, self.family = source, family_of(source)
        places = parameters(self.family, source.config)
        keys = {name: key for key, name in places.items()}
        if missing := next((name for name in source.spec.shapes if name not in keys), ""):
            raise UserError(
                f"GGUF files of the family '{self.family}' have no place for the weights {quoted(missing)}. Export the "
                "run with --format hf."
            )
        self.names = {name: keys[name] for name in source.spec.shapes}

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a weight as `Checkpoint.read` gives it, and as it is stored."""
        spec = self.source.spec
        return tuple(spec.linears.get(name) or spec.shapes[name])

    def stored(self, name: str, tensor: Tensor) -> Tensor:
        """A weight (as `Checkpoint.read` gives it) as it is stored; only rows change places, so also the B of B·A."""
        key, text = self.names[name], self.source.config.get_text_config()
        if self.family.startswith("gemma") and key.endswith("norm.weight"):
            return tensor.to(torch.float32) + 1
        heads = {"attn_q": text.num_attention_heads, "attn_k": self.source.spec.kv_heads}.get(key.split(".")[-2])
        if self.family == "llama" and heads:  # the halves of each head become pairs
            pairs = tensor.reshape(heads, 2, len(tensor) // heads // 2, *tensor.shape[1:]).swapaxes(1, 2)
            return pairs.reshape(tensor.shape)
        return tensor
