"""A weight made dense in spans of rows gives what the whole gives."""

from __future__ import annotations

import pytest
import torch
from bitsandbytes.functional import quantize_4bit

from sparsezo_gui.engine.layers import linear
from sparsezo_gui.engine.layers.linear import FrozenLinear
from sparsezo_gui.engine.layers.patch import SparsePatch
from sparsezo_gui.engine.layers.weights import DenseWeight, Int8Weight, NF4Weight


def store_of(kind, weight):
    if kind == "nf4":
        return NF4Weight.of(*quantize_4bit(weight, quant_type="nf4", compress_statistics=False))
    if kind == "nested":
        return NF4Weight.of(*quantize_4bit(weight, quant_type="nf4", compress_statistics=True))
    if kind == "int8":
        scales = weight.abs().amax(1)
        return Int8Weight((weight / scales[:, None] * 127).round().to(torch.int8), scales)
    return DenseWeight(weight.to(getattr(torch, kind)))


@pytest.mark.parametrize("shape", [(131, 96), (130, 32), (5, 16), (7, 100), (64, 128), (1, 6)])
def test_nf4_is_made_dense_as_it_was_defined(shape):
    """QLoRA's table (arXiv 2305.14314, appendix E) times the scale of each block of 64, whatever the shape."""
    frozen = store_of("nf4", torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    codes = torch.stack((frozen.packed.view(-1) >> 4, frozen.packed.view(-1) & 15), dim=1).view(-1).long()
    values = frozen.state.code[codes] * frozen.state.absmax.repeat_interleave(64)[: len(codes)]
    assert torch.equal(frozen.dense(torch.float32), values.view(shape))


@pytest.mark.parametrize("shape", [(50, 24), (33, 64), (7, 100), (130, 32)])
@pytest.mark.parametrize("kind", ["nf4", "nested", "int8", "bfloat16", "float32"])
def test_spans_of_rows(kind, shape, monkeypatch):
    generator = torch.Generator().manual_seed(1)
    frozen = store_of(kind, torch.randn(shape, generator=generator))
    bias = torch.randn(shape[0], generator=generator)
    whole = FrozenLinear("whole", frozen, bias, torch.float32)
    monkeypatch.setattr(linear, "LARGE_BYTES", 0)
    monkeypatch.setattr(linear, "SPAN_BYTES", 9 * 4 * shape[1])
    parts = FrozenLinear("parts", frozen, bias, torch.float32)
    assert len(whole.spans) == 1
    # A span begins where a block of 64 weights does.
    blocks = {24: 7, 64: 4, 100: 1, 32: 17}[shape[1]]
    assert len(parts.spans) == (blocks if kind in ("nf4", "nested") else -(-shape[0] // 9))
    assert [first for first, _ in parts.spans[1:]] == [last for _, last in parts.spans[:-1]]
    assert parts.spans[-1][1] == shape[0]
    indices = torch.randperm(shape[0] * shape[1], generator=generator)[:40].sort().values.int()
    for points in (0, 1, 2, 4):
        x = torch.randn(max(points, 1) * 3, 5, shape[1], generator=generator)
        for layer in (whole, parts):
            values = torch.randn(points, 40, generator=torch.Generator().manual_seed(2)) if points else None
            layer.patch = SparsePatch(points, indices, values, shape[0] * shape[1]) if points else None
        assert torch.allclose(parts(x), whole(x), rtol=1e-5, atol=1e-5), points
