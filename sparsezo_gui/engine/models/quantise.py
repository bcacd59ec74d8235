"""Quantising to NF4 with scales that fit, which costs loading time and no memory.

bitsandbytes scales a block of 64 weights by the largest of them, and keeps that in fp32. The same half a bit a weight
holds a 16-bit scale for every 32. And the largest weight is not the best scale: a few are tried, and the one with the
smallest squared error is taken. What both gain is told in ``tests/benchmarks/README.md``.
"""

from __future__ import annotations

import math

import torch
from bitsandbytes.functional import QuantState, get_4bit_type
from torch import Tensor
from torch.nn import functional as F

from sparsezo_gui.engine.models.stores import NF4

BLOCK = 32  # weights with one scale
FACTORS = (0.84, 0.92, 1.0, 1.06)  # of the largest weight
PIECE = 1 << 18  # weights at a time: more are not faster, and leave the allocator with more
STEPS = 128  # of the table of values, for 1
TINY = 1e-30  # scale of a block of zeros


def fitted(weight: Tensor, block: int = BLOCK, factors: tuple[float, ...] = FACTORS) -> NF4:
    """``weight`` (out, in) in NF4: two codes a byte, the first in the high half, and a bf16 scale per ``block`` weights
    of the flattened tensor, the last of which may be shorter.

    Each of ``factors`` times a block's largest magnitude gives codes; least squares give the best scale for these, and
    its error. The scale with the smallest one, as bf16, gives the codes that are held. A block with NaN or infinity has
    it in its scale.
    """
    code, flat = get_4bit_type("nf4", weight.device), weight.reshape(-1)
    rows = F.pad(flat, (0, -len(flat) % block)).view(-1, block)
    parts = [_part(part.float(), code, factors) for part in rows.split(PIECE // block)]
    codes, scales = (torch.cat(each) for each in zip(*parts, strict=True))
    codes = codes.view(-1)[: len(flat) + len(flat) % 2]
    packed = (codes[::2] << 4 | codes[1::2]).unsqueeze(1)
    return NF4(packed, QuantState(scales, weight.shape, code, block, "nf4", torch.float32))


def _part(rows: Tensor, code: Tensor, factors: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Codes uint8 (n, block) and scales bf16 (n,) of ``rows`` fp32 (n, block)."""
    borders, reach = (code[1:] + code[:-1]) / 2, math.ceil(STEPS / min(factors)) + 1
    table = code[torch.bucketize(torch.arange(-reach, reach + 1, device=code.device) / STEPS, borders)]
    largest = rows.abs().amax(1, keepdim=True).clamp_min(TINY)
    wrong = ~largest.isfinite()
    rows, span = rows.masked_fill(wrong, 0.0), largest.masked_fill(wrong, 1.0)
    best, most = largest, torch.zeros_like(largest)
    for factor in factors:
        # A table gives nearly the nearest codes in a fraction of the time, good enough to compare scales with.
        places = (rows * (STEPS / (factor * span)) + (reach + 0.5)).to(torch.int32)
        values = table.index_select(0, places.view(-1)).view_as(rows)
        product, square = (rows * values).sum(1, keepdim=True), values.square().sum(1, keepdim=True)
        # With the scale s = product / square of values v: Σ(w − s·v)² = Σw² − product² / square.
        saved = product.square() / square
        best, most = torch.where(saved > most, product / square, best), torch.maximum(saved, most)
    scales = best.to(torch.bfloat16)
    return torch.bucketize(rows / scales.float(), borders, out_int32=True).to(torch.uint8), scales.squeeze(1)
