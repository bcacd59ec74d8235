"""A GGUF file with a run's tuned weights in place of its own; everything else stays as it is, byte for byte.

Each matrix that the run tuned gets the smallest kind, but none smaller than it had, that keeps what was tuned: of the
change that the run made, within `SHARE` of the whole is left along its direction, and rounding moves the matrix by at
most `NOISE` of its length. Small kinds fail the first, since changes below half of a step are rounded away; comparing
rounding with the change alone would ask for 32 bits, though rounding has no direction and hardly changes the output.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from functools import partial

import torch
from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Kind
from torch import Tensor

from sparsezo_gui.engine.export.gguf.file import Planned, packed, spans
from sparsezo_gui.engine.export.gguf.plan import Plan, Weights, copied, copied_pairs
from sparsezo_gui.engine.pretrained.gguf.header import read_gguf
from sparsezo_gui.engine.pretrained.gguf.tensors import numbers
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.events import Progress

SHARE, NOISE = 0.1, 0.01
KINDS = (Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1, Kind.Q8_0, Kind.F16, Kind.BF16, Kind.F32)
"""Kinds that matrices are written in, the smallest first."""


def as_it_came(weights: Weights) -> Generator[Progress, None, Plan]:
    """The plan of the file that the model came in, with the tuned weights. Raises `UserError` for another model."""
    source = weights.model.source
    if not source.packed:
        raise UserError(
            f"'{source.id}' did not come as a GGUF file, so there is no kind to keep. Choose another --kind, such as "
            "f16."
        )
    header = read_gguf(source.place)
    tuned = {weights.layout.names[name]: name for name in weights.moved}
    tensors = []
    for done, key in enumerate(header.tensors):
        each = copied(header, key)
        if key in tuned:
            yield Progress("Choosing kinds for the tuned weights", done, len(header.tensors), "weights")
            name = tuned[key]
            kind = smallest(each.kind, weights.came(name), weights.tuned(name))
            each = Planned(key, kind, each.shape, partial(weights.tuned, name))
        tensors.append(each)
    return Plan(copied_pairs(header), tuple(tensors), header.version, header.alignment)


def smallest(came: Kind, base: Tensor, tuned: Tensor) -> Kind:
    """The kind for ``tuned`` weights that were ``base`` and ``came`` in another."""
    for kind in _candidates(came, tuned.shape[-1]):
        kept, noise = rounded(base, tuned, kind)
        if abs(kept - 1) <= SHARE and noise <= NOISE:
            return kind
    return Kind.F32


def _candidates(came: Kind, columns: int) -> Iterator[Kind]:
    for kind in sorted(KINDS, key=lambda kind: (bits(kind), kind != came)):
        block, _ = GGML_QUANT_SIZES[kind]
        if columns % block == 0 and bits(kind) >= bits(came):
            yield kind


def bits(kind: Kind) -> float:
    """Bits of each weight."""
    block, width = GGML_QUANT_SIZES[kind]
    return 8 * width / block


def rounded(base: Tensor, tuned: Tensor, kind: Kind) -> tuple[float, float]:
    """What is left of the change from ``base`` to ``tuned`` in ``kind``, along its direction, and how far rounding
    moves the matrix, both relative."""
    along = moved = error = whole = 0.0
    for before, after in zip(spans(base), spans(tuned), strict=True):
        found = numbers(packed(after, kind), kind).float()
        change = after.float() - before.float()
        along += _product(found - before.float(), change)
        moved += _product(change, change)
        error += _product(found - after.float(), found - after.float())
        whole += _product(after.float(), after.float())
    return (along / moved if moved else 1.0), math.sqrt(error / whole) if whole else 0.0


def _product(one: Tensor, other: Tensor) -> float:
    return float((one * other).sum(dtype=torch.float64))
