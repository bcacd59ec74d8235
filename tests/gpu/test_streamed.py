"""A model that is larger than the GPU: its blocks come one ahead of the computation."""

from __future__ import annotations

import pytest
import torch

from sparsezo_gui.engine import device as devices
from sparsezo_gui.engine import frozen
from sparsezo_gui.engine.bench import steps
from sparsezo_gui.engine.bench.timing import medians
from sparsezo_gui.engine.layers import streamed
from sparsezo_gui.engine.training import train
from sparsezo_gui.recipe import events as e
from sparsezo_gui.recipe.recipe import ModelTable
from tests.engine.conftest import finish
from tests.engine.layers.test_streamed import losses, watched  # noqa: F401
from tests.gpu.conftest import GPU, MIB, session_of
from tests.models import tiny

SHAPE = "llama-1b"


@pytest.fixture
def small_gpu(monkeypatch):
    """Where the blocks do not fit beside the rest."""
    monkeypatch.setattr(devices, "memory_free", lambda device: streamed.ROOM)
    monkeypatch.setattr(devices, "memory_used", lambda device: 0)


def test_steps_of_streamed_blocks_are_those_of_resident_ones(shape, figure, request):
    place = shape(SHAPE)
    resident = session_of(place)
    request.getfixturevalue("small_gpu")
    before = torch.cuda.memory_reserved()
    other = session_of(place)
    torch.cuda.empty_cache()
    figure("1.1B, NF4, streamed: resident bytes", (torch.cuda.memory_reserved() - before) / MIB, "MiB")
    assert {layer.frozen.device.type for layer in other.model.layers.values()} == {"cpu"}
    # The CPU quantises as the GPU does, but for rounding of halves: the same codes are put into both.
    for name, layer in resident.model.layers.items():
        layer.hold(other.model.layers[name].frozen.to(GPU))
    for count, length in ((1, 64), (16, 256)):
        load = steps.Load(f"{count} x {length}", (length,) * count, ())
        examples = load.examples(resident.model.vocabulary)
        directions = resident.directions()
        assert resident.estimate(examples, directions).recorded == other.estimate(examples, directions).recorded
        work = {"resident": steps.take(resident, examples), "streamed": steps.take(other, examples)}
        seconds = finish(medians(work, GPU, 5, load.title))
        for name, value in seconds.items():
            figure(f"1.1B, NF4, {load.title}: step, {name}", 1000 * value, "ms")


def test_a_run_streams_by_itself(make, shape, small_gpu, tmp_path):
    recipe = make(model={"id": str(shape(SHAPE)), "device": "cuda"}, mask={"rule": "sensitive", "density": 0.001,
                  "sequences": 2}, loop={"steps": 3, "evaluate_every": 0, "guard": False})  # fmt: skip
    found = [event for event in train(recipe, folder=tmp_path / "run") if isinstance(event, e.Step)]
    assert len(found) == 3


def test_copies_and_computation_keep_order(tmp_path, watched):  # noqa: F811
    folder = tiny("llama", tmp_path / "llama", num_hidden_layers=6)
    resident = finish(frozen.load(ModelTable(id=str(folder), device="cuda")))
    host = finish(frozen.load(ModelTable(id=str(folder), device="cuda")))
    for layer in host.layers.values():
        layer.hold(layer.frozen.to(torch.device("cpu")))
    frozen.stream(host)
    for _ in range(20):
        assert torch.equal(losses(host), losses(resident))
    assert max(watched) == 2
