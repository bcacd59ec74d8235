"""Quantising to NF4 in smaller blocks than bitsandbytes, in as many bytes.

bitsandbytes keeps an fp32 scale for every 64 weights. The same half a bit a weight holds a 16-bit scale for every 32,
which is closer to each of them. ``tests/benchmarks/README.md`` shows what that gains.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sparsezo_gui.engine.bnb import QuantState, get_4bit_type
from sparsezo_gui.engine.layers.weights import NF4Weight

BLOCK = 32  # weights with one scale
PIECE = 1 << 18  # weights at a time: more are not faster, and leave the allocator with more
TINY = 1e-30  # scale of a block of zeros


def nf4(weight: Tensor) -> NF4Weight:
    """``weight`` (out, in) in NF4: two codes a byte, the first in the high half, and for every `BLOCK` weights of the
    flattened tensor, of which the last may be fewer, the largest magnitude as their scale in bf16.

    The codes are the nearest ones for that scale. A block with NaN or infinity has it in its scale.
    """
    code, flat = get_4bit_type("nf4", weight.device), weight.reshape(-1)
    rows = F.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
    scales = rows.abs().amax(1, keepdim=True).float().clamp_min(TINY).to(torch.bfloat16)
    borders = (code[1:] + code[:-1]) / 2
    codes = torch.cat([
        torch.bucketize(part.float() / scale.float(), borders, out_int32=True).to(torch.uint8)
        for part, scale in zip(rows.split(PIECE // BLOCK), scales.split(PIECE // BLOCK), strict=True)
    ]).view(-1)[: len(flat) + len(flat) % 2]  # fmt: skip
    packed = (codes[::2] << 4 | codes[1::2]).unsqueeze(1)
    return NF4Weight(packed, QuantState(scales.squeeze(1), weight.shape, code, BLOCK, "nf4", torch.float32))
