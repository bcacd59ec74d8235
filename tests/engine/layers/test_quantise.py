"""NF4 in blocks of 32, against numpy written from its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bitsandbytes.functional import quantize_4bit

from sparsezo_gui.engine.layers.quantise import BLOCK, nf4
from sparsezo_gui.engine.layers.weights import NF4Weight

# QLoRA, arXiv 2305.14314, appendix E.
VALUES = np.array([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
])  # fmt: skip


def weight_of(shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).mul(0.02).to(dtype)


def held(block):
    """A block of weights as it is to be held: the nearest of the values times its largest magnitude in bf16."""
    scale = torch.tensor(np.abs(block).max()).to(torch.bfloat16).double().item()
    return scale * VALUES[np.abs(block[:, None] / scale - VALUES).argmin(1)]


@pytest.mark.parametrize("shape", [(8, 64), (5, 48), (3, 25), (1, 6)])
def test_the_squared_error_is_that_of_its_definition(shape):
    weight = weight_of(shape)
    dense = nf4(weight).dense(torch.float32).double().numpy().ravel()
    flat = weight.double().numpy().ravel()
    blocks = [slice(first, first + BLOCK) for first in range(0, len(flat), BLOCK)]
    known = [np.square(held(flat[part]) - flat[part]).sum() for part in blocks]
    assert [np.square(dense[part] - flat[part]).sum() for part in blocks] == pytest.approx(known, rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_it_is_closer_than_bitsandbytes_in_as_many_bytes(dtype):
    weight = weight_of((96, 256), 1, dtype)
    ours, theirs = nf4(weight), NF4Weight.of(*quantize_4bit(weight, quant_type="nf4"))
    errors = [(frozen.dense(torch.float32) - weight.float()).square().sum().item() for frozen in (ours, theirs)]
    assert ours.nbytes == theirs.nbytes == weight.numel() * 9 // 16
    assert errors[0] < 0.93 * errors[1]  # of Gaussian weights 0.90


def test_what_it_holds():
    """Codes two a byte, the first in the high half, and bf16 scales; zeros stay zeros, and a part is a part of it."""
    weight = weight_of((10, 48), 2)
    weight[2:4] = 0
    frozen = nf4(weight)
    codes = torch.stack((frozen.packed.view(-1) >> 4, frozen.packed.view(-1) & 15), dim=1).view(-1).long()
    scales = frozen.state.absmax.double().repeat_interleave(BLOCK).numpy()
    assert frozen.state.absmax.dtype == torch.bfloat16 and frozen.state.absmax.shape == (15,)
    dense = frozen.dense(torch.float32)
    assert np.allclose(dense.double().numpy().ravel(), VALUES[codes.numpy()] * scales, rtol=1e-6, atol=0)
    assert not dense[2:4].any()
    assert frozen.grain == 2 and torch.equal(frozen.dense(torch.float32, 4, 8), dense[4:8])
    copied = frozen.to(torch.device("cpu"))
    assert torch.equal(copied.dense(torch.float32), dense) and copied.tensors[1].dtype == torch.bfloat16


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_what_is_not_finite_shows_in_the_scales(wrong):
    weight = weight_of((4, 64))
    weight[1, 3] = wrong
    assert torch.isfinite(nf4(weight).state.absmax).tolist() == [True, True, False, True, True, True, True, True]
