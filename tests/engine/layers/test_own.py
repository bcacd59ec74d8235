"""A direction for each example: the same losses as one forward pass for each of them alone."""

from __future__ import annotations

import pytest
import torch

from sparsezo_gui.engine import device as devices
from sparsezo_gui.engine import objective
from sparsezo_gui.engine.layers.linear import FrozenLinear
from sparsezo_gui.engine.layers.patch import Owners, PerExamplePatch
from sparsezo_gui.engine.layers.weights import DenseWeight
from sparsezo_gui.engine.masks.random import Random
from sparsezo_gui.engine.probe import ModelProbe
from sparsezo_gui.engine.spaces.sparse import SparseValues
from sparsezo_gui.recipe import Recipe
from tests.engine.conftest import finish
from tests.engine.test_correctness import SEARCH, batch, families, shifted


def felt(model, density, epsilon, compute, examples):
    """Losses (sides, examples) of all at once, and of each example alone on a model moved along its direction."""
    tuned = SparseValues(model, finish(Random(density=density).find(model, SEARCH)))
    directions = torch.randn(len(examples), tuned.mask.size, generator=torch.Generator().manual_seed(1))
    offsets = torch.tensor([epsilon, -epsilon])
    together = ModelProbe(model, tuned, Recipe().objective, examples, directions, compute).own_losses(offsets)
    weights, alone = [], []
    for example, direction in zip(examples, directions, strict=True):
        with tuned.applied(tuned.values + offsets[:, None] * direction):
            found = objective.measure(model, [example], 2)
        weights.append(float(found.weights))
        alone.append(found.sums[:, 0])
    return together, torch.stack(alone, dim=1) * (len(weights) / sum(weights))


def some():
    """Examples of all kinds, one of them twice, as where a batch is larger than the data."""
    examples = batch()[1:6]
    return [*examples, examples[0]]


@families
@pytest.mark.parametrize("rows", [10_000, 70, 1])
def test_own_directions_equal_a_loop_over_the_examples(frozen_tiny, family, rows, monkeypatch):
    model, packs = frozen_tiny(family, 4), []
    monkeypatch.setattr(model, "pack_rows", rows)
    made = objective.pack_of
    monkeypatch.setattr(objective, "pack_of", lambda *args: packs.append(args[1]) or made(*args))
    together, alone = felt(model, 0.05, 0.05, "auto", some())
    assert len([pack for pack in packs if len(pack) > 1]) + (rows == 1) >= 1
    assert torch.allclose(together, alone, rtol=1e-5, atol=1e-6)


@families
@pytest.mark.skipif(not devices.has_int8(), reason="this processor has no VNNI instructions")
def test_own_directions_in_integers(frozen_tiny, family):
    """Slopes, whose differences must not drown in the rounding that both sides share."""
    together, alone = felt(frozen_tiny(family, 8, "int8"), 0.05, 1e-3, "int8", some())
    mine, theirs = together[0] - together[1], alone[0] - alone[1]
    assert torch.allclose(together, alone, rtol=2e-3)
    assert (mine - theirs).norm() < 0.1 * theirs.norm()


def test_layers_without_entries_and_common_beginnings(frozen_tiny):
    """Of a mask with few values, most rows and some weights have none; what examples begin with is not shared."""
    examples = [shifted(each, range(3, 43)) for each in some()]
    together, alone = felt(frozen_tiny("llama", 32), 2e-5, 10.0, "auto", examples)
    assert torch.allclose(together, alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_layer_gives_each_stretch_its_own_weight(dtype):
    """Also in 16 bits, of which CPUs have no sparse products."""
    generator = torch.Generator().manual_seed(0)
    weight, rows = torch.randn(6, 8, generator=generator).to(dtype), torch.randn(2, 9, 8, generator=generator).to(dtype)
    indices = torch.tensor([0, 3, 17, 18, 40, 47], dtype=torch.int32)
    values, directions = torch.randn(1, 6, generator=generator), torch.randn(3, 6, generator=generator)
    starts = torch.searchsorted(indices, torch.arange(7, dtype=torch.int32) * 8).int()
    owners, offsets = Owners([(0, 2, 1), (2, 3, 0), (3, 9, 2)]), torch.tensor([0.5, -0.25])
    layer = FrozenLinear("a", DenseWeight(weight), None, dtype)
    layer.patch = PerExamplePatch(2, indices, values, 48, directions, offsets, owners, starts, (indices % 8).int())
    with torch.no_grad():
        found = layer(rows)
    assert found.dtype == dtype
    for point, offset in enumerate(offsets):
        for first, last, example in owners.stretches:
            own = weight.float().clone()
            own.view(-1)[indices.long()] = values[0].to(dtype).float() + offset * directions[example]
            expected = rows[point, first:last].float() @ own.t()
            close = {torch.float32: 1e-5, torch.bfloat16: 5e-2, torch.float16: 5e-3}[dtype]
            assert torch.allclose(found[point, first:last].float(), expected, rtol=close, atol=close)
