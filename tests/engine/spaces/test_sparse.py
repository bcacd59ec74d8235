"""Of a product of two matrices, the entries that are wanted."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsezo_gui.engine.spaces import sparse
from sparsezo_gui.engine.spaces.sparse import sampled_product

SHAPES = st.tuples(st.integers(1, 70), st.integers(1, 40), st.integers(1, 40))  # rows, and the sides of a weight


@given(SHAPES, st.integers(0, 2**32), st.data())
@settings(max_examples=100)
def test_entries_are_those_of_the_whole_product(shape, seed, data):
    """Made whole or entry by entry, in chunks of any size; none of them, one of them, all of them."""
    rows, out, columns = shape
    count = data.draw(st.sampled_from([0, 1, out * columns]) | st.integers(0, out * columns), "entries")
    draw = torch.Generator().manual_seed(seed)
    left, right = (torch.randn(rows, size, generator=draw) for size in (out, columns))
    indices = torch.randperm(out * columns, generator=draw)[:count].sort().values.int()
    expected = (left.double().t() @ right.double()).flatten()[indices.long()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sparse, "SINGLE", data.draw(st.sampled_from([0, 50, 10**9]), "single"))
        patch.setattr(sparse, "SAMPLED_BYTES", data.draw(st.sampled_from([1, 8 * rows * 3, 2**24]), "bytes"))
        found = sampled_product(left, right, indices)
        assert torch.equal(sampled_product(left, right, indices), found), "to the bit, whenever it is repeated"
        # Neither a view nor another memory layout of the same numbers makes a difference.
        strided = left.t().contiguous().t()
        assert torch.allclose(sampled_product(strided, right, indices), found, rtol=1e-5, atol=1e-5)
    assert found.dtype == torch.float32 and found.shape == (count,)
    assert torch.allclose(found.double(), expected, rtol=1e-5, atol=1e-5 * rows**0.5)


@pytest.mark.parametrize(("count", "whole"), [(80, False), (82, True)])
def test_the_cheaper_way_is_taken(count, whole, monkeypatch):
    """64 · 64 entries, of which 50 at once cost as much as one alone."""
    seen = []
    vecdot = torch.linalg.vecdot
    monkeypatch.setattr(torch.linalg, "vecdot", lambda *args, **kwargs: seen.append(1) or vecdot(*args, **kwargs))
    sampled_product(torch.ones(3, 64), torch.ones(3, 64), torch.arange(count, dtype=torch.int32))
    assert (not seen) == whole


def test_no_more_rows_are_gathered_than_said(monkeypatch):
    sizes, vecdot = [], torch.linalg.vecdot
    monkeypatch.setattr(torch.linalg, "vecdot", lambda a, b, **kwargs: sizes.append(a.nbytes + b.nbytes) or
                        vecdot(a, b, **kwargs))  # fmt: skip
    sampled_product(torch.ones(512, 4096), torch.ones(512, 2048), torch.arange(20_000, dtype=torch.int32))
    assert len(sizes) == 5 and max(sizes) <= sparse.SAMPLED_BYTES
