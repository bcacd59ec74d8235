"""The GPU's memory runs out, or is taken by another program."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from sparsezo_gui.engine import device as devices
from sparsezo_gui.engine import frozen, training
from sparsezo_gui.engine.runs import journal
from sparsezo_gui.engine.watch import Watch, others_on
from sparsezo_gui.errors import UserError, out_of_memory
from sparsezo_gui.recipe import events as e
from sparsezo_gui.recipe.recipe import ModelTable
from tests.engine.conftest import finish
from tests.gpu.conftest import GPU, MIB


def test_a_model_that_does_not_fit_is_told_in_a_sentence(shape, at_most):
    at_most(64 * MIB)
    with pytest.raises((UserError, torch.OutOfMemoryError)) as raised:
        finish(frozen.load(ModelTable(id=str(shape("llama-1b")), device="cuda")))
    assert "does not fit" in str(raised.value) or out_of_memory(raised.value)


def test_memory_that_runs_out_keeps_all_steps(make, tmp_path, at_most):
    recipe = make(model={"device": "cuda"}, loop={"steps": 20, "evaluate_every": 0})
    whole = list(training.train(recipe, folder=tmp_path / "whole"))[-1].hash
    with pytest.raises(Exception) as raised:
        for event in training.train(recipe, folder=tmp_path / "run"):
            if isinstance(event, e.Step) and event.step == 9:
                at_most(1)
    assert out_of_memory(raised.value)
    assert journal.read(tmp_path / "run" / "journal.bin").step == 9
    del raised
    torch.cuda.set_per_process_memory_fraction(1.0)
    assert list(training.resume(tmp_path / "run"))[-1].hash == whole


def test_another_program_on_the_gpu_is_noticed(tmp_path, figure):
    """And this one's own memory is not taken for another's."""
    code = (
        "import torch, sys\nx = torch.empty(2**30, dtype=torch.uint8, device='cuda')\n"
        "print(1, flush=True)\nsys.stdin.read()"
    )
    watch, before = Watch(["gpu"], tmp_path, GPU), others_on(GPU)
    ours = torch.empty(2**30, dtype=torch.uint8, device=GPU)
    assert abs(others_on(GPU) - before) < 2**28 and not watch.reason()
    del ours
    torch.cuda.empty_cache()
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == b"1\n"
        figure("another program's memory, as it is noticed", (others_on(GPU) - before) / MIB, "MiB")
        assert others_on(GPU) - before > 2**30
    finally:
        other.communicate()


def test_the_device_is_told(figure):
    assert devices.name(GPU) == torch.cuda.get_device_name(0)
    figure("memory of the device", devices.memory_total(GPU) / MIB, "MiB")
