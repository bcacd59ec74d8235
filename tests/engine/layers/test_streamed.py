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
from tests.engine.test_memory import LLAMA, found
from tests.models import tiny


@pytest.fixture
def watched(monkeypatch):
    """How many blocks were on the device after each was fetched."""
    counts, original = [], Streamed._fetch
    monkeypatch.setattr(
        Streamed, "_fetch", lambda self, number: original(self, number) or counts.append(len(self.here))
    )
    return counts


def losses(model):
    tuned = SparseValues(model, finish(Random(density=0.05).find(model, SEARCH)))
    with tuned.applied(tuned.values + torch.tensor([[0.01], [-0.01]], device=model.device)):
        return measure(model, batch(), 2).loss


@families
@pytest.mark.parametrize("bits", [4, 8, 32])
def test_streamed_blocks_give_the_same_losses(frozen_tiny, family, bits, watched):
    model = frozen_tiny(family, bits)
    expected = losses(model)
    module = copy.deepcopy(model.module)
    layers = {name: module.get_submodule(name.removesuffix(".weight")) for name in model.layers}
    other = dataclasses.replace(model, module=module, layers=layers)
    frozen.stream(other)
    hosted = {name: layer.frozen for name, layer in other.layers.items()}
    assert torch.equal(losses(other), expected)
    assert watched and max(watched) == 2
    assert all(layer.frozen is hosted[name] for name, layer in other.layers.items()), "all went back to the host"


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
    resident, moved = (found(device="cuda", streamed=each) for each in (False, True))
    assert moved.total < resident.total or LLAMA.layers <= streamed.KEPT
    assert isinstance(moved, memory.MemoryEstimate)
