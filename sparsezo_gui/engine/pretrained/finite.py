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

_KINDS = ("bitsandbytes_4bit", "bitsandbytes_8bit")


def finite(tensor: Tensor) -> bool:
    """Whether all values are finite; integers are. One pass over the memory, without a copy."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    return all(math.isfinite(end) for end in torch.aminmax(tensor.detach()))


@contextmanager
def watched(files: Sequence[Path] = ()) -> Iterator[list[str]]:
    """Gives a list of the weights that are not finite, of those that `transformers` quantises within.

    They are looked at before: rounding to 4 bits makes a number of NaN on a GPU. Loading stops at the first one. What
    the loader leaves of each weight is given back at once; ``files`` are those that it maps.
    """
    kept = gc.get_freeze_count()
    gc.freeze()  # so that collecting what the loader leaves takes no time
    found: list[str] = []
    before = {kind: AUTO_QUANTIZER_MAPPING[kind] for kind in _KINDS}
    AUTO_QUANTIZER_MAPPING.update({kind: _watching(quantizer, found, files) for kind, quantizer in before.items()})
    try:
        yield found
    finally:
        AUTO_QUANTIZER_MAPPING.update(before)
        gc.unfreeze()
        if kept:  # the window's own
            gc.freeze()


def _watching(quantizer: Any, found: list[str], files: Sequence[Path]) -> Any:
    class Watching(quantizer):  # type: ignore[misc]
        def get_quantize_ops(self) -> Any:
            operation = super().get_quantize_ops()
            convert = operation.convert

            def looked_at(tensors: dict[str, Any], *more: Any, **facts: Any) -> Any:
                # Else all weights so far would stay, as whole as they came: in cycles, and freed but kept.
                give_back_freed()
                let_go(files)
                for name, tensor in tensors.items():
                    if not finite(tensor[0] if isinstance(tensor, list) else tensor):
                        found.append(name)
                        raise ValueError(f"'{name}' is not finite")
                return convert(tensors, *more, **facts)

            operation.convert = looked_at
            return operation

    return Watching
