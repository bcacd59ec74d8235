"""The README's first command on a GPU."""

from __future__ import annotations

import subprocess
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.gpu.test_runs import ran


def test_the_starter_learns(tmp_path, figure):
    run = tmp_path / "run"
    events = ran("train", "starter", "--run", run)
    started = next(event for event in events if event["event"] == "started")
    assert torch.cuda.get_device_name(0) in started["device"]
    test = [event for event in events if event["event"] == "evaluation" and event["split"] == "test"]
    figure("starter, 1 000 steps: accuracy before", 100 * test[0]["metrics"]["accuracy"], "%")
    figure("starter, 1 000 steps: accuracy after", 100 * test[-1]["metrics"]["accuracy"], "%")
    assert test[-1]["metrics"]["accuracy"] > 0.88
    seconds = sorted(event["seconds"] for event in events if event["event"] == "step")
    figure("starter, 1 000 steps: median step", 1000 * seconds[len(seconds) // 2], "ms")
    figure("starter, 1 000 steps: all steps", sum(seconds), "s")
    ran("export", run, "--format", "hf", "--weights", "trained", "--out", tmp_path / "hf")
    prompt = "Customer: my parcel is late\nTeam:"
    told = subprocess.run(
        [sys.executable, "-m", "sparsezo_gui.cli", "generate", str(run), "--prompt", prompt, "--tokens", "4"],
        capture_output=True, text=True, timeout=120,
    ).stdout  # fmt: skip
    model, tokenizer = (cls.from_pretrained(tmp_path / "hf") for cls in (AutoModelForCausalLM, AutoTokenizer))
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    plain = tokenizer.decode(model.generate(ids, max_new_tokens=4, do_sample=False)[0, ids.shape[1] :])
    assert told.strip().split()[:1] == plain.strip().split()[:1]
