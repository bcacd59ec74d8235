"""What a machine with a GPU is for must not rot on those without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(path.stem for path in (ROOT / "tests" / "gpu").glob("test_*.py"))


@pytest.mark.parametrize("name", FILES)
def test_every_part_can_be_loaded(name):
    part = import_module(f"tests.gpu.{name}")
    assert any(each.startswith("test_") for each in dir(part))


def test_every_part_is_run():
    check = import_module("tests.gpu.check")
    assert {f"test_{name}" for name in check.PARTS} == {*FILES}


@pytest.mark.slow
def test_a_part_that_fails_is_kept_with_its_figures(tmp_path, monkeypatch):
    """On a part of our own, with figures before it fails."""
    check = import_module("tests.gpu.check")
    (tmp_path / "test_own.py").write_text(
        "from tests.gpu.conftest import note, pytest_runtest_logreport\n"
        "def test_good():\n    note(figure='size', value=3, unit='MiB')\n"
        "def test_bad():\n    note(test='test_bad', outcome='failed', seconds=0.1, why='')\n    assert False\n"
    )
    monkeypatch.setattr(check, "HERE", tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    found = check.part("own", 60, tmp_path / "lines")
    assert found["outcome"] == "failed" and "assert False" in found["log"]
    assert found["figures"] == [{"figure": "size", "value": 3, "unit": "MiB"}]
    table = check.table({"machine": {"gpu": "none"}, "parts": {"own": found}})
    assert "failed: test_bad" in table and "size: 3 MiB" in table
    assert check.part("own", 0.05, tmp_path / "lines")["outcome"] == "took too long"
    json.dumps(found)


@pytest.mark.slow
def test_the_windows_memory_curve_is_what_the_run_recorded(tmp_path):
    """On the processor, as on the GPU but for the driver."""
    part = import_module("tests.gpu.test_window")
    found = part.tuned_in_the_window(tmp_path / "window.png", "model.device=cpu", "loop.steps=5",
                                     "data.validation=4", "data.test=4")  # fmt: skip
    assert found["step"] == 5 and min(found["gib"]) > 0


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="a script for bash")
def test_without_a_gpu_there_is_nothing_to_check(tmp_path):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    words = ["bash", str(ROOT / "packaging" / "gpu_check.sh"), "--out", str(tmp_path / "found.json")]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "PATH": path,
                          "CUDA_VISIBLE_DEVICES": ""}, check=False)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "") and "nothing to check" in done.stdout
    assert not (tmp_path / "found.json").exists()
