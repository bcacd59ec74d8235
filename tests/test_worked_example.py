"""The worked example of ARCHITECTURE.md, added to a copy of the program and used."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FENCE = re.compile(r'^```python (\S+?)(?: after "(.+?)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


def add(root: Path) -> list[str]:
    """Writes the example's files and lines; gives the paths."""
    found = []
    for path, after, text in FENCE.findall((ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")):
        file = root / path
        if after:
            lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
            (place,) = (number for number, line in enumerate(lines) if line.strip().startswith(f'"{after}":'))
            lines.insert(place + 1, text)
            text = "".join(lines)
        else:
            assert not file.exists()
        file.write_text(text, encoding="utf-8")
        found.append(path)
    return found


@pytest.mark.slow
def test_the_worked_example_works_as_it_is_written(tmp_path):
    for part in ("sparsezo_gui", "resources"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    assert len(add(tmp_path)) == 6

    def sparsezo(*arguments: str) -> list[dict]:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path), "SPARSEZO_HOME": str(tmp_path / "home")}
        command = [sys.executable, "-m", "sparsezo_gui.cli", *arguments, "--json"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    rules = {(row["table"], row["rule"]) for row in sparsezo("methods") if "table" in row}
    assert {("mask", "evenly"), ("estimator", "one-sided")} <= rules
    settings = ["mask.rule=evenly", "estimator.rule=one-sided", "loop.steps=3", "data.train=32", "data.validation=4",
                "data.test=4", "loop.guard=false"]  # fmt: skip
    events = sparsezo("train", "starter", "--run", "run", *(part for each in settings for part in ("--set", each)))
    steps = [event for event in events if event["event"] == "step"]
    assert [step["step"] for step in steps] == [1, 2, 3] and len({step["loss"] for step in steps}) == 3
    sparsezo("verify", "run")
    sparsezo("export", "run", "--format", "table", "--out", "values.csv")
    lines = (tmp_path / "values.csv").read_text(encoding="utf-8").splitlines()
    (tuned,) = (event["tuned"] for event in events if event["event"] == "started")
    assert lines[0] == "weight,index,value" and len(lines) == 1 + tuned
    ruff = [sys.executable, "-m", "ruff", "check", "--config", "pyproject.toml", "sparsezo_gui"]
    done = subprocess.run(ruff, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
