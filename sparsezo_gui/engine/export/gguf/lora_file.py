"""A LoRA adapter as a GGUF file: ``NAME.lora_a`` (r, in) and ``NAME.lora_b`` (out, r) for the tensor NAME of the model.

llama.cpp adds α/r·B·A, with one α for the file and the r of each tensor. As in the model, rows of some weights are in
another order there, and so are those of B. Format: convert_lora_to_gguf.py of llama.cpp.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from gguf import GGMLQuantizationType as Kind
from torch import Tensor

from sparsezo_gui.engine.export.adapter import PREFIX, Adapter
from sparsezo_gui.engine.export.gguf.file import Planned
from sparsezo_gui.engine.export.gguf.layout import Layout
from sparsezo_gui.engine.export.gguf.plan import Plan, packed_pairs
from sparsezo_gui.engine.pretrained.gguf.header import read_gguf
from sparsezo_gui.engine.pretrained.gguf.tensors import dense, processor_for
from sparsezo_gui.engine.pretrained.source import ModelSource
from sparsezo_gui.engine.session import Session
from sparsezo_gui.errors import UserError

_A, _B = ".lora_a", ".lora_b"


def plan(session: Session, adapter: Adapter) -> Plan:
    """The file of a LoRA ``adapter``. Raises `UserError`."""
    layout, alpha = Layout(session.model.source), float(adapter.config["lora_alpha"])
    planned = []
    for layer in adapter.config["target_modules"]:
        a, b = (adapter.tensors[f"{PREFIX}{layer}.lora_{side}.weight"] for side in "AB")
        own = adapter.config["alpha_pattern"].get(layer, alpha)
        key = layout.names[f"{layer}.weight"]
        b = layout.stored(f"{layer}.weight", b if own == alpha else b * (own / alpha))
        planned += [_in_32_bits(f"{key}{_A}", a), _in_32_bits(f"{key}{_B}", b)]
    if not planned:
        raise UserError("The run has changed no weight yet, so an adapter would be empty. Choose a later step.")
    general = {"general.type": "adapter", "general.name": session.recipe.run.name, "adapter.type": "lora",
               "adapter.lora.alpha": alpha, "general.file_type": 0}  # fmt: skip
    return Plan(packed_pairs(layout.family, general, {}), tuple(planned))


def _in_32_bits(key: str, tensor: Tensor) -> Planned:
    return Planned(key, Kind.F32, tuple(tensor.shape), partial(tensor.to, torch.float32))


def read(path: Path, source: ModelSource) -> Adapter:
    """The adapter in a file for ``source``, as PEFT names its parts."""
    header, layout = read_gguf(path), Layout(source)
    alpha, processor = header.metadata["adapter.lora.alpha"], processor_for(header.architecture, source.config)
    tensors: dict[str, Tensor] = {}
    layers = []
    for name, key in layout.names.items():
        if f"{key}{_A}" not in header.tensors:
            continue
        a, b = (dense(path, header.tensors[f"{key}{side}"], torch.float32) for side in (_A, _B))
        if layout.family == "llama":
            b = processor.process(weights=b, name=key).weights
        layer = name.removesuffix(".weight")
        layers.append(layer)
        tensors |= {f"{PREFIX}{layer}.lora_A.weight": a, f"{PREFIX}{layer}.lora_B.weight": b}
    config = {"peft_type": "LORA", "target_modules": layers, "lora_alpha": alpha, "alpha_pattern": {}}
    return Adapter(config, tensors)
