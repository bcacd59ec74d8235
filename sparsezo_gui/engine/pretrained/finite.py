"""Finding weights that are NaN or infinity while a model is loaded."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING

from sparsezo_gui.engine.device import give_back_freed, let_go

RELEASE = 32 << 20
"""Bytes of weights after which memory is released: after each small one, that would take a third of loading."""
_KINDS = ("bitsandbytes_4bit", "bitsandbytes_8bit")


def finite(tensor: Tensor) -> bool:
    """Whether all values are finite; integers are. One pass over the memory, without a copy."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    return all(math.isfinite(end) for end in torch.aminmax(tensor.detach()))


@contextmanager
def watched(files: Sequence[Path] = ()) -> Iterator[list[str]]:
    """Yields a list that receives the name of the first weight that is not finite, of those that `transformers`
    quantises within the block; loading stops there.

    Weights are checked before they are quantised, because rounding to 4 bits turns NaN into a number on a GPU. Memory
    that the loader no longer needs is released after every `RELEASE` bytes; ``files`` are those that it maps.
    """
    kept = gc.get_freeze_count()
    gc.freeze()  # so that each garbage collection below scans only the loader's own objects
    found: list[str] = []
    before = {kind: AUTO_QUANTIZER_MAPPING[kind] for kind in _KINDS}
    AUTO_QUANTIZER_MAPPING.update({kind: _watching(quantizer, found, files) for kind, quantizer in before.items()})
    try:
        yield found
    finally:
        AUTO_QUANTIZER_MAPPING.update(before)
        gc.unfreeze()
        if kept:  # the window had frozen its objects
            gc.freeze()


def _watching(quantizer: Any, found: list[str], files: Sequence[Path]) -> Any:
    since = RELEASE  # bytes of weights since memory was released; what was loaded before counts as enough

    class Watching(quantizer):  # type: ignore[misc]
        def get_quantize_ops(self) -> Any:
            operation = super().get_quantize_ops()
            convert = operation.convert

            def checked(tensors: dict[str, Any], *more: Any, **facts: Any) -> Any:
                nonlocal since
                if since >= RELEASE:
                    # Otherwise all unquantised weights so far would stay in memory, in reference cycles and in the
                    # allocator's cache.
                    give_back_freed()
                    let_go(files)
                    since = 0
                for name, tensor in tensors.items():
                    weight = tensor[0] if isinstance(tensor, list) else tensor
                    since += weight.nbytes
                    if not finite(weight):
                        found.append(name)
                        raise ValueError(f"'{name}' is not finite")
                return convert(tensors, *more, **facts)

            operation.convert = checked
            return operation

    return Watching
