"""Products in integers: exact for what was rounded, true to small differences, and good slopes on every family."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sparsezo_gui.engine import device as devices
from sparsezo_gui.engine import frozen
from sparsezo_gui.engine.layers import integer
from sparsezo_gui.engine.layers.integer import IntegerLinear, Rounding
from sparsezo_gui.engine.layers.linear import FrozenLinear
from sparsezo_gui.engine.layers.patch import Patch, SparsePatch
from sparsezo_gui.engine.layers.weights import Int8Weight
from sparsezo_gui.engine.masks.random import Random
from sparsezo_gui.engine.objective import measure
from sparsezo_gui.engine.session import Session
from sparsezo_gui.engine.spaces.sparse import SparseValues
from sparsezo_gui.engine.zo import generator
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import Recipe, with_settings
from sparsezo_gui.recipe.recipe import ModelTable
from tests.engine.conftest import finish
from tests.engine.test_correctness import SEARCH, batch, families

vnni = pytest.mark.skipif(not devices.has_int8(), reason="this processor has no VNNI instructions")


def pair(out, columns, tuned, points, seed=0):
    """The same frozen weight and tuned values, in integers and in fp32."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(out, columns, generator=generator)
    scales = weight.abs().amax(1)
    frozen = Int8Weight((weight / scales[:, None] * 127).round().to(torch.int8), scales)
    layers = (IntegerLinear("a", frozen, torch.randn(out, generator=generator), torch.float32, Rounding()),
              FrozenLinear("b", frozen, None, torch.float32))  # fmt: skip
    layers[1].bias = layers[0].bias
    indices = torch.randperm(out * columns, generator=generator)[:tuned].sort().values.int()
    values = torch.randn(points, tuned, generator=generator)
    for layer in layers:
        layer.patch = SparsePatch(points, indices, values, out * columns) if tuned else Patch(points)
    return layers


def rounded(x):
    """What int8 codes of each token stand for."""
    scale = x.abs().amax(-1, keepdim=True) / 127
    return (x / scale).round() * scale


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (96, 40), (33, 130)])
@pytest.mark.parametrize("points", [1, 2, 5])
def test_products_are_those_of_the_rounded_activations(shape, points, monkeypatch):
    """y₀ = Q(x₀)·Cᵀ, yₖ = y₀ + Q(xₖ − x₀)·Cᵀ, and the tuned values' difference to the codes times x itself."""
    monkeypatch.setattr(integer, "PIECE_BYTES", 4 * 3 * max(shape))  # several pieces, the last one shorter
    ours, _ = pair(*shape, tuned=shape[0] * shape[1] // 3, points=points)
    x = torch.randn(points, 10, shape[1], generator=torch.Generator().manual_seed(1))
    dense = ours.frozen.dense(torch.float32)
    expected = []
    for point in range(points):
        tuned = ours.patch.put(dense.clone(), point, 0)
        base = rounded(x[0]) @ dense.t()
        moved = rounded(x[point] - x[0]) @ dense.t() if point else 0
        expected.append(base + moved + x[point] @ (tuned - dense).t() + ours.bias)
    with torch.no_grad():
        assert torch.allclose(ours(x), torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_what_several_layers_take_is_rounded_once():
    rounding, counted = Rounding(), []
    layers = [pair(8, 16, 4, 2, seed)[0] for seed in range(3)]
    for layer in layers:
        layer.rounding = rounding
    x = torch.randn(2, 4, 16)
    with torch.no_grad():
        for layer in layers:
            layer(x)
            counted.append(rounding._codes.data_ptr())
        again = layers[0](x + 1)
    assert len(set(counted)) == 1
    fresh = pair(8, 16, 4, 2, 0)[0]
    with torch.no_grad():
        assert torch.equal(fresh(x + 1), again)


@pytest.mark.parametrize("epsilon", [1e-1, 1e-3, 1e-5])
def test_a_small_difference_is_as_exact_as_a_large_one(epsilon):
    ours, exact = pair(64, 96, tuned=60, points=2)
    x = torch.randn(1, 20, 96, generator=torch.Generator().manual_seed(2)).double()
    moved = x + epsilon * torch.randn(1, 20, 96, generator=torch.Generator().manual_seed(3)).double()
    for layer in (ours, exact):
        layer.patch.values[1] = layer.patch.values[0]
    with torch.no_grad():
        y = ours(torch.cat((x, moved)).float())
        dense = exact.weight(torch.float32).double()
        truth = (moved - x)[0] @ dense.t()
    error = (y[1] - y[0]).double() - truth
    # fp32 itself leaves 1e-7 of y in the difference.
    assert error.norm() / truth.norm() < 0.01 + 1e-6 / epsilon


@vnni
@families
def test_slopes_are_those_of_fp32(frozen_tiny, family):
    """Of 24 directions, with ε so small that rounding each side on its own would leave noise alone."""
    model, exact = frozen_tiny(family, 8, "int8"), frozen_tiny(family, 8)
    assert {type(layer) for layer in model.layers.values()} == {IntegerLinear}
    found = []
    for each in (model, exact):
        tuned = SparseValues(each, finish(Random(density=0.02).find(each, SEARCH)))
        projected_grads = []
        for step in range(1, 25):
            z = 1e-3 * generator.normal(0, step, 0, tuned.mask.size)
            with tuned.applied(tuned.values + torch.stack((z, -z))):
                loss = measure(each, batch(), 2).loss
            projected_grads.append(float(loss[0] - loss[1]))
        found.append(projected_grads)
    assert np.corrcoef(*found)[0, 1] > 0.98


@vnni
def test_sides_stay_together_however_long_the_examples_are(frozen_tiny, monkeypatch):
    """Apart, each would be rounded on its own, and the slope would be noise."""
    model = frozen_tiny("llama", 8, "int8")
    tuned = SparseValues(model, finish(Random(density=0.05).find(model, SEARCH)))
    recipe = with_settings(Recipe(), ["model.bits=8", "model.compute=int8", "estimator.epsilon=1e-4"])
    session, found = Session(recipe, model, tuned), []
    z = session.directions()
    for rows in (10_000, 1):
        monkeypatch.setattr(model, "pack_rows", rows)
        found.append(session.estimate(batch(), z).recorded[0])
    assert found[1] == pytest.approx(found[0], rel=0.05)


@vnni
def test_the_frozen_codes_stay_as_they_are(frozen_tiny):
    model = frozen_tiny("llama", 8, "int8")
    before = {name: layer.frozen.codes.clone() for name, layer in model.layers.items()}
    tuned = SparseValues(model, finish(Random(density=0.1).find(model, SEARCH)))
    with tuned.applied(tuned.values.repeat(2, 1)):
        measure(model, batch(), 2)
    assert all(torch.equal(before[name], layer.frozen.codes) for name, layer in model.layers.items())


@vnni
def test_a_loss_that_is_not_finite_stays_so(frozen_tiny):
    model = frozen_tiny("llama", 8, "int8")
    tuned = SparseValues(model, finish(Random(density=0.1).find(model, SEARCH)))
    with tuned.applied(torch.full((2, tuned.mask.size), torch.inf)):
        assert not measure(model, batch(), 2).loss.isfinite().any()


def test_int8_asks_for_bits_and_processor(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"\[model\] compute: must be 'auto', .* unless bits = 8, not 'int8'"):
        with_settings(Recipe(), ["model.compute=int8"])
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    for compute, words in (("int8", "VNNI"), ("bfloat16", "does not support it")):
        with pytest.raises(UserError, match=words):
            devices.compute_dtype(torch.device("cpu"), ModelTable(bits=8, compute=compute))
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert devices.compute_dtype(torch.device("cpu"), ModelTable(compute="bfloat16")) == torch.bfloat16


@vnni
def test_weights_that_come_in_4_bits_are_refused(frozen_tiny, tmp_path):
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    folder = frozen_tiny("llama", 32).source.folder
    quantised = AutoModelForCausalLM.from_pretrained(folder, quantization_config=BitsAndBytesConfig(load_in_4bit=True))
    quantised.save_pretrained(tmp_path / "quantised")
    for path in folder.glob("token*"):
        (tmp_path / "quantised" / path.name).write_bytes(path.read_bytes())
    with pytest.raises(UserError, match="have 4 bits"):
        finish(frozen.load(ModelTable(id=str(tmp_path / "quantised"), bits=8, compute="int8", device="cpu")))
