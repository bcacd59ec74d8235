"""Devices: which one is taken, who else is on it, and steps that stay on theirs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sparsezo_gui.engine import device as devices
from sparsezo_gui.engine import watch
from sparsezo_gui.errors import UserError


@pytest.mark.slow
@pytest.mark.parametrize("part", ["forward", "estimator or update", "not forward and not estimator and not update"])
def test_steps_stay_on_a_pretended_gpu(part):
    """In a process of its own: PyTorch counts devices once, and not all of it forgets one again."""
    steps = Path(__file__).with_name("device_steps.py")
    words = [sys.executable, "-m", "pytest", "-n", "0", "-x", "-k", part, str(steps)]
    done = subprocess.run(words, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


@pytest.mark.parametrize(("cuda", "hip", "count"), [("13.0", None, 2), (None, "7.1", 1)])
@pytest.mark.parametrize("asked", ["auto", "cuda"])
def test_a_gpu_that_is_there_is_taken(monkeypatch, asked, cuda, hip, count):
    """PyTorch for AMD's GPUs calls them 'cuda' too, and has no version of CUDA."""
    pretend_build(monkeypatch, cuda, hip, count)
    assert devices.choose(asked) == torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("asked", "cuda", "hip", "count", "said"),
    [("cuda", None, None, 0, "PyTorch build supports CPUs"), ("cuda", "13.0", None, 0, "no usable GPU"),
     ("cuda", None, "7.1", 0, "no usable GPU"), ("cuda:2", "13.0", None, 2, "the highest is 'cuda:1'")],
)  # fmt: skip
def test_a_gpu_that_is_not_there_is_refused_in_a_sentence(monkeypatch, asked, cuda, hip, count, said):
    pretend_build(monkeypatch, cuda, hip, count)
    with pytest.raises(UserError, match=said):
        devices.choose(asked)
    assert devices.choose("auto").type == ("cuda" if count else "cpu") and devices.choose("cpu").type == "cpu"


def pretend_build(monkeypatch, cuda, hip, count):
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


def test_what_this_process_takes_of_a_gpu_is_not_another_programs(monkeypatch, tmp_path):
    free, own, total = [6 * 2**30], [2**30], 8 * 2**30
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (free[0], total))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _device: own[0])
    monkeypatch.setattr(watch, "EVERY", 0.0)
    looks = watch.Watch(["gpu"], tmp_path, torch.device("cuda", 0))
    free[0], own[0] = 4 * 2**30, 3 * 2**30
    assert looks.reason() == ""
    free[0] -= 2**30
    assert "another program" in looks.reason()
