"""Weights that are no numbers (NaN or infinity), found while a model is loaded."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING

_KINDS = ("bitsandbytes_4bit", "bitsandbytes_8bit")


def finite(tensor: Tensor) -> bool:
    """Whether all values are numbers; whole numbers are. One pass over the memory, and no copy."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    return all(math.isfinite(end) for end in torch.aminmax(tensor.detach()))


@contextmanager
def watched() -> Iterator[list[str]]:
    """Gives a list of the weights that are not finite, of those that `transformers` quantises within.

    They are looked at before: rounding to 4 bits makes a number of NaN on a GPU. Loading stops at the first one.
    """
    kept = gc.get_freeze_count()
    gc.freeze()  # so that collecting what the loader leaves takes no time
    found: list[str] = []
    before = {kind: AUTO_QUANTIZER_MAPPING[kind] for kind in _KINDS}
    AUTO_QUANTIZER_MAPPING.update({kind: _watching(quantizer, found) for kind, quantizer in before.items()})
    try:
        yield found
    finally:
        AUTO_QUANTIZER_MAPPING.update(before)
        gc.unfreeze()
        if kept:  # the window's own
            gc.freeze()


def _watching(quantizer: Any, found: list[str]) -> Any:
    class Watching(quantizer):
        def get_quantize_ops(self) -> Any:
            operation = super().get_quantize_ops()
            convert = operation.convert

            def looked_at(tensors: dict[str, Any], *more: Any, **facts: Any) -> Any:
                gc.collect()  # else all weights so far stay, as whole as they came: the loader holds them in cycles
                for name, tensor in tensors.items():
                    if not finite(tensor[0] if isinstance(tensor, list) else tensor):
                        found.append(name)
                        raise ValueError(f"'{name}' is not finite")
                return convert(tensors, *more, **facts)

            operation.convert = looked_at
            return operation

    return Watching
