"""Adapters as PEFT reads them: an adapter_config.json and an adapter_model.safetensors beside a base model.

- LoRA: W + (α/r)·B·A, with ``lora_A.weight`` (r, in) and ``lora_B.weight`` (out, r) for each layer.
- SHiRA (sparse high-rank adapter, arXiv 2406.13175): single entries of W are added to, with ``shira_weight`` (k,) and
  their rows and columns, ``shira_indices`` (2, k). Each layer has k = r·(in + out) entries, with one r for all layers;
  those that were not tuned add zero.

Every name starts with ``base_model.model.`` and the layer's name in transformers. Checked against peft 0.21.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from sparsezo_gui.engine.export.overlay_file import Changes
from sparsezo_gui.engine.export.tensors import raw, write
from sparsezo_gui.engine.pretrained.spec import ModelSpec
from sparsezo_gui.engine.spaces.values import Product
from sparsezo_gui.errors import UserError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
Hook = Callable[[nn.Module, tuple[Tensor, ...], dict[str, Tensor], Tensor], Tensor]


@dataclass(frozen=True)
class Adapter:
    """The content of the two files."""

    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    @property
    def bytes(self) -> int:
        """Size of the tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def save(self, folder: Path, base: str, revision: str) -> None:
        """Writes both files to ``folder``, for a ``base`` model, and reads them again. Raises OSError."""
        config = {
            **self.config, "task_type": "CAUSAL_LM", "inference_mode": True, "base_model_name_or_path": base,
            "revision": revision or None,
        }  # fmt: skip
        (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        write(folder / WEIGHTS, self.tensors, {"format": "pt"})
        found = read(folder)
        if found.config != config or found.tensors.keys() != self.tensors.keys():
            raise RuntimeError(f"{folder}: not the adapter that was written")
        for key, tensor in self.tensors.items():
            if raw(found.tensors[key]) != raw(tensor):
                raise RuntimeError(f"{folder / WEIGHTS}: '{key}' is not what was written")

    def attach(self, model: nn.Module) -> None:
        """Makes a plain ``model`` compute with the adapter, as PEFT does."""
        for layer in self.config["target_modules"]:
            module, prefix = model.get_submodule(layer), f"{PREFIX}{layer}."
            if self.config["peft_type"] == "LORA":
                a, b = (self.tensors[f"{prefix}lora_{side}.weight"] for side in "AB")
                alpha = self.config["alpha_pattern"].get(layer, self.config["lora_alpha"])
                module.register_forward_hook(_low_rank(a, b, alpha / len(a)), with_kwargs=True)
            else:
                indices, values = (self.tensors[f"{prefix}shira_{part}"] for part in ("indices", "weight"))
                shape = model.get_parameter(f"{layer}.weight").shape
                change = torch.sparse_coo_tensor(indices, values, shape, check_invariants=True)
                module.register_forward_hook(_sparse(change), with_kwargs=True)


def _low_rank(a: Tensor, b: Tensor, scale: float) -> Hook:
    return lambda _, inputs, named, output: output + (_input(inputs, named) @ a.T) @ b.T * scale


def _sparse(change: Tensor) -> Hook:
    return lambda _, inputs, named, output: output + (change @ _input(inputs, named).flatten(0, -2).T).T.view_as(output)


def _input(inputs: tuple[Tensor, ...], named: dict[str, Tensor]) -> Tensor:
    """The input of a layer, which a model's code may pass by name."""
    (x,) = (*inputs, *named.values())
    return x


def read(folder: Path) -> Adapter:
    """The adapter in ``folder``."""
    return Adapter(json.loads((folder / CONFIG).read_text(encoding="utf-8")), load_file(folder / WEIGHTS))


def lora(products: Mapping[str, Product], spec: ModelSpec) -> Adapter:
    """The products, by weight name, as a LoRA adapter; ranks other than the most common one are listed by layer."""
    layers = {_layer(name): product for name, product in products.items()}
    ranks = {layer: len(product.a) for layer, product in layers.items()}
    alphas = {layer: product.scale * ranks[layer] for layer, product in layers.items()}
    rank, alpha = (Counter(numbers.values()).most_common(1)[0][0] for numbers in (ranks, alphas))
    config = {
        "peft_type": "LORA", "target_modules": sorted(layers), "r": rank, "lora_alpha": alpha, "bias": "none",
        "lora_dropout": 0.0, "fan_in_fan_out": any(name in spec.transposed for name in products),
        "rank_pattern": {layer: each for layer, each in ranks.items() if each != rank},
        "alpha_pattern": {layer: each for layer, each in alphas.items() if each != alpha},
    }  # fmt: skip
    tensors = {}
    for layer, product in layers.items():
        tensors[f"{PREFIX}{layer}.lora_A.weight"] = product.a.contiguous()
        tensors[f"{PREFIX}{layer}.lora_B.weight"] = product.b.contiguous()
    return Adapter(config, tensors)


def shira(changes: Changes, originals: Mapping[str, Tensor], spec: ModelSpec) -> Adapter:
    """The changed entries as a SHiRA adapter; ``originals`` are their values in the base model. Raises `UserError` for
    what the format cannot hold."""
    shapes = {name: spec.linears[name] for name, (indices, _) in changes.items() if len(indices)}
    if other := next((name for name in shapes if name in spec.transposed), ""):
        raise UserError(
            f"PEFT adds single weights (SHiRA) only to plain linear layers, and '{_layer(other)}' is a Conv1D. Export "
            "the run with --format overlay or hf."
        )
    rank = max((-(-len(changes[name][0]) // sum(shape)) for name, shape in shapes.items()), default=1)
    for name, (rows, columns) in shapes.items():
        if rank * (rows + columns) > rows * columns:
            raise UserError(
                f"PEFT's format for single weights (SHiRA) has r·(in + out) of them in every layer. This run needs "
                f"r = {rank}, which is more than '{_layer(name)}' ({rows} × {columns}) has weights. Export the run "
                "with --format overlay or hf."
            )
    config = {
        "peft_type": "SHIRA", "target_modules": sorted(map(_layer, shapes)), "r": rank, "fan_in_fan_out": False,
        "mask_type": "sparsezo",  # PEFT need not draw a random mask, only to replace it by that in the file
    }  # fmt: skip
    tensors = {}
    for name, shape in shapes.items():
        indices, values = changes[name]
        padded, added = _padded(indices.long(), values - originals[name], rank * sum(shape))
        places = torch.stack([padded // shape[1], padded % shape[1]])
        tensors[f"{PREFIX}{_layer(name)}.shira_indices"] = places.int()
        tensors[f"{PREFIX}{_layer(name)}.shira_weight"] = added
    return Adapter(config, tensors)


def _padded(indices: Tensor, values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """``count`` different indices, ascending, and their values: the first free ones have the value zero."""
    candidates = torch.arange(count)
    free = candidates[~torch.isin(candidates, indices)][: count - len(indices)]
    padded, order = torch.cat([indices, free]).sort()
    return padded, torch.cat([values, torch.zeros(len(free))])[order]


def _layer(name: str) -> str:
    """The layer of a weight."""
    return name.removesuffix(".weight")
