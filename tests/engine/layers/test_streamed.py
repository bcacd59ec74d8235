"""Blocks that come to the device in turn: the same numbers, and never more than two of them there."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from sparsezo_gui.engine import frozen, memory
from sparsezo_gui.engine.layers import streamed
from sparsezo_gui.engine.layers.streamed import Streamed, needed
from sparsezo_gui.engine.masks.random import Random
from sparsezo_gui.engine.masks.sensitive import Sensitive
from sparsezo_gui.engine.masks.weight_activation import WeightActivation
from sparsezo_gui.engine.objective import measure
from sparsezo_gui.engine.spaces.sparse import SparseValues
from sparsezo_gui.recipe.recipe import ModelTable
from tests.engine.conftest import finish
from tests.engine.test_correctness import SEARCH, batch, families
from tests.engine.test_exact import MASKS, Failing, assert_as_before, found, values_of
from tests.engine.test_memory import LLAMA
from tests.engine.test_memory import found as estimated
from tests.models import tiny


def went_back(streamed):
    """Whether the layers of each block hold their stores of the host's memory."""
    for layers, hosts in zip(streamed.layers, streamed.hosted, strict=True):
        yield all(layer.frozen is host for layer, host in zip(layers, hosts, strict=True))


@pytest.fixture
def watched(monkeypatch):
    """How many blocks were on the device after each was fetched, also forgotten ones."""
    counts, original = [], Streamed._fetch

    def fetch(self, number):
        original(self, number)
        away = {number for number, back in enumerate(went_back(self)) if not back}
        counts.append(len(self.here.keys() | away))

    monkeypatch.setattr(Streamed, "_fetch", fetch)
    return counts


def streamed_copy(model):
    module = copy.deepcopy(model.module)
    layers = {name: module.get_submodule(name.removesuffix(".weight")) for name in model.layers}
    other = dataclasses.replace(model, module=module, layers=layers)
    frozen.stream(other)
    return other


def losses(model):
    tuned = SparseValues(model, finish(Random(density=0.05).find(model, SEARCH)))
    with tuned.applied(tuned.values + torch.tensor([[0.01], [-0.01]], device=model.device)):
        return measure(model, batch(), 2).loss


@families
@pytest.mark.parametrize("bits", [4, 8, 32])
def test_streamed_blocks_give_the_same_losses(frozen_tiny, family, bits, watched):
    model = frozen_tiny(family, bits)
    expected = losses(model)
    other = streamed_copy(model)
    assert torch.equal(losses(other), expected)
    assert watched and max(watched) == 2
    assert all(went_back(other.streamed))


@families
@pytest.mark.parametrize("space", MASKS)
def test_streamed_blocks_give_the_same_exact_gradients(frozen_tiny, family, space, watched):
    model = frozen_tiny(family, 4)
    other = streamed_copy(model)
    for blocks in (None, 1):
        (expected, loss), (mine, told) = (found(each, values_of(each, space), "mixed", blocks)
                                          for each in (model, other))  # fmt: skip
        assert torch.equal(mine, expected) and told == loss
        assert watched and max(watched) == 2
        assert all(went_back(other.streamed))


@pytest.mark.parametrize("moments", [25, pytest.param(120, marks=pytest.mark.slow)])
def test_whenever_a_step_fails_all_stores_go_back(tmp_path, watched, moments):
    """And the next step is as if nothing had been: no third block stays on the device."""
    folder = tiny("llama", tmp_path / "llama", num_hidden_layers=4)
    model = finish(frozen.load(ModelTable(id=str(folder), device="cpu")))
    tuned = values_of(model, "entries")
    frozen.stream(model)
    with Failing() as whole:
        expected, _ = found(model, tuned, "choice")
    assert max(watched) == 2
    for after in range(0, whole.count, whole.count // moments):
        with pytest.raises(torch.OutOfMemoryError, match="pretended"), Failing(after):
            found(model, tuned, "choice")
        assert_as_before(model)
        assert all(went_back(model.streamed))
        if after % 3 == 0:
            assert torch.equal(found(model, tuned, "choice")[0], expected)
    assert max(watched) == 2


@pytest.mark.parametrize("kind", [Sensitive, WeightActivation])
def test_a_mask_is_found_in_streamed_blocks(tmp_path, watched, kind):
    folder = tiny("llama", tmp_path / "llama", num_hidden_layers=5)
    model = finish(frozen.load(ModelTable(id=str(folder), device="cpu")))
    rule = kind(density=0.02, sequences=3, tokens=32)
    expected = finish(rule.find(model, SEARCH)).hash
    frozen.stream(model)
    assert finish(rule.find(model, SEARCH)).hash == expected and max(watched) == 2


def test_the_estimate_says_when():
    weights = LLAMA.eligible // 2 + 2 * (LLAMA.parameters - LLAMA.eligible)
    assert not needed(LLAMA, 4, 2, weights + streamed.ROOM)
    assert needed(LLAMA, 4, 2, weights + streamed.ROOM - 1)
    resident, moved = (estimated(device="cuda", streamed=each) for each in (False, True))
    assert moved.total < resident.total or LLAMA.layers <= streamed.KEPT
    assert isinstance(moved, memory.MemoryEstimate)
