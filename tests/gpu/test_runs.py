"""A run on the GPU: stopped and resumed it ends with the same bits, and a CPU replays them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from sparsezo_gui.engine import training
from sparsezo_gui.engine.runs import journal
from sparsezo_gui.engine.runs.folder import open_run
from sparsezo_gui.engine.session.opening import open_session
from tests.engine.conftest import finish

SMALL = ("--set", "loop.steps=300", "--set", "loop.evaluate_every=0", "--set", "data.test=100", "--set",
         "data.validation=100", "--set", "mask.sequences=4", "--set", "model.device=cuda")  # fmt: skip


def command(*words, **options):
    return [sys.executable, "-m", "sparsezo_gui.cli", *map(str, words), "--json"]


def ran(*words):
    done = subprocess.run(command(*words), capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_resuming_gives_the_bits_of_a_run_that_never_stopped(make, tmp_path, bits):
    recipe = make(model={"device": "cuda", "bits": bits}, loop={"steps": 20, "evaluate_every": 0})
    whole = list(training.train(recipe, folder=tmp_path / "whole"))[-1].hash
    for event in training.train(recipe, folder=tmp_path / "cut"):
        if getattr(event, "step", 0) == 7 and hasattr(event, "seconds"):
            break  # closing the iterator stops at once
    assert list(training.resume(tmp_path / "cut"))[-1].hash == whole
    assert finish(open_session(open_run(tmp_path / "whole"), from_checkpoints=False)).tuned.hash() == whole


@pytest.mark.parametrize("update", ["sgd", "adam"])
def test_exact_gradients_of_a_gpu_are_replayed_on_a_cpu_to_the_same_bits(make, tmp_path, update):
    rules = {"estimator": {"rule": "first-order"}, "update": {"rule": update, "learning_rate": 1e-3}}
    hash = list(training.train(make(model={"device": "cuda"}, **rules), folder=tmp_path / "run"))[-1].hash
    recipe = tmp_path / "run" / "recipe.toml"
    recipe.write_text(recipe.read_text().replace('device = "cuda"', 'device = "cpu"'))
    assert finish(open_session(open_run(tmp_path / "run"), from_checkpoints=False)).tuned.hash() == hash


def test_a_killed_run_goes_on_and_is_verified_on_both_devices(tmp_path, figure):
    whole = ran("train", "starter", "--run", tmp_path / "whole", *SMALL)[-1]["hash"]
    cut = tmp_path / "cut"
    process = subprocess.Popen(command("train", "starter", "--run", cut, *SMALL), stdout=subprocess.DEVNULL)
    while not (cut / "journal.bin").exists() or (cut / "journal.bin").stat().st_size < 100 * 60:
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert journal.read(cut / "journal.bin").step < 300
    assert ran("resume", cut)[-1]["hash"] == whole
    assert ran("verify", cut)[-1]["same"]
    seconds = journal.read(cut / "journal.bin").steps["seconds"]
    figure("starter, NF4, 16 examples: median step", 1000 * float(sorted(seconds)[150]), "ms")
    recipe = cut / "recipe.toml"
    recipe.write_text(recipe.read_text().replace('device = "cuda"', 'device = "cpu"'))
    assert ran("verify", cut)[-1]["same"], "a replay gives the same bits on a CPU"
