"""The tensors of a GGUF file by the names of transformers, made dense one at a time.

The file is read in spans of rows, so that beside the dense tensor there is no more than a span. Some families store
weights in another order or form than transformers has them; its own tables say how to turn them back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType, dequantize
from transformers import PretrainedConfig
from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor, get_gguf_hf_weights_map

from sparsezo_gui.engine.pretrained.gguf.header import Header, Stored
from sparsezo_gui.engine.pretrained.spec import empty_model
from sparsezo_gui.engine.pretrained.weights import Entry
from sparsezo_gui.errors import UserError, quoted
from sparsezo_gui.untrusted import outside

OUTPUT, TABLES = "output.weight", ("token_embd.weight", "output.weight")
_SPAN = 1 << 22  # numbers that are made dense at a time
_PLAIN = {
    GGMLQuantizationType.F32: torch.float32, GGMLQuantizationType.F16: torch.float16,
    GGMLQuantizationType.BF16: torch.bfloat16,
}  # fmt: skip
IN_CONFIG = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
_PROCESSORS = {**TENSOR_PROCESSORS, "gemma": TENSOR_PROCESSORS["gemma2"]}


@dataclass(frozen=True)
class Packed(Entry):
    """A tensor in a GGUF file: ``dtype`` and ``shape`` are those that `read` returns."""

    stored: Stored
    turned: Callable[[torch.Tensor], torch.Tensor]

    def read(self) -> torch.Tensor:
        """The dense tensor as a checkpoint of transformers has it."""
        return self.turned(dense(self.file, self.stored, self.dtype)).contiguous()


def dense(path: Path, stored: Stored, dtype: torch.dtype) -> torch.Tensor:
    """The tensor as stored, made dense in ``dtype``."""
    columns = stored.shape[-1]
    out = torch.empty(*stored.shape, dtype=dtype)
    rows = out.view(-1, columns)
    width, step = (stored.end - stored.begin) // len(rows), max(1, _SPAN // columns)
    with outside(path, "cannot be read"), path.open("rb") as file:
        file.seek(stored.begin)
        for first in range(0, len(rows), step):
            count = min(step, len(rows) - first)
            data = np.empty((count, width), np.uint8)
            if file.readinto(data.data) < data.nbytes:
                raise UserError(f"{path}: became shorter during reading. Was it replaced? Try again.")
            rows[first : first + count] = numbers(data, stored.kind)
    return out


def numbers(data: np.ndarray[Any, Any], kind: GGMLQuantizationType) -> torch.Tensor:
    """Dense numbers of rows of bytes."""
    if kind in _PLAIN:
        return torch.from_numpy(data).view(_PLAIN[kind])
    with np.errstate(all="ignore"):  # of damaged scales; what is not finite is refused when it is loaded
        return torch.from_numpy(dequantize(data, kind))


def parameters(family: str, config: PretrainedConfig) -> dict[str, str]:
    """Names of the parameters of the model of ``config`` by those of their tensors in a file of ``family``."""
    names_of: Any = get_gguf_hf_weights_map
    return {OUTPUT: "lm_head.weight", **names_of(empty_model(config), TensorProcessor(), family)}


def processor_for(family: str, config: PretrainedConfig) -> Any:
    """What turns the tensors of a file of ``family`` back."""
    text = config.get_text_config()
    sizes = {name: getattr(text, name, None) for name in ("num_attention_heads", "num_key_value_heads")}
    processor: Any = _PROCESSORS.get(family, TensorProcessor)
    return processor(config=sizes)


def packed(header: Header, config: PretrainedConfig) -> dict[str, Packed]:
    """The tensors of a file by the parameter names of the model of ``config``. Raises `UserError` for a tensor that has
    no place in it."""
    family, processor = header.architecture, processor_for(header.architecture, config)
    names = parameters(family, config)
    found: dict[str, Packed] = {}
    for key, stored in header.tensors.items():
        if key in IN_CONFIG:
            continue
        if key not in names:
            raise UserError(
                f"{header.path}: its tensor {quoted(key)} has no place in a {family} model of transformers, so its "
                "output would differ. Choose the original model in safetensors format."
            )
        found[names[key]] = _entry(header, key, stored, processor)
    return found


def _entry(header: Header, key: str, stored: Stored, processor: Any) -> Packed:
    def turned(tensor: torch.Tensor) -> torch.Tensor:
        return tensor if key == OUTPUT else processor.process(weights=tensor, name=key).weights

    dtype = _PLAIN.get(stored.kind, torch.float16 if key in TABLES else torch.float32)
    if len(stored.shape) == 1:
        dtype = torch.float32
    with outside(header.path, f"its tensor {quoted(key)} has sizes that do not belong to its metadata"):
        shape = tuple(turned(torch.empty(stored.shape, dtype=dtype, device="meta")).shape)
    return Packed(header.path, dtype, shape, stored.begin, stored.end, stored, turned)
