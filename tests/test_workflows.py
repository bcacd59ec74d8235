"""What runs on the code host: workflows that it accepts, and scripts that bash can read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
SCRIPTS = sorted((ROOT / ".ci").iterdir())


def test_workflows_follow_the_schema(tmp_path):
    pytest.importorskip("check_jsonschema", reason="needs the extra test")
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    done = subprocess.run([*check, *WORKFLOWS], capture_output=True, text=True, check=False)
    assert len(WORKFLOWS) >= 2 and done.returncode == 0, done.stdout
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(WORKFLOWS[0].read_text(encoding="utf-8").replace("runs-on:", "runs-in:"), encoding="utf-8")
    assert subprocess.run([*check, wrong], capture_output=True, check=False).returncode == 1


def test_workflows_run_scripts_that_are_there():
    words = {word for path in WORKFLOWS for word in path.read_text(encoding="utf-8").split()}
    assert {word for word in words if word.startswith(".ci/")} == {f".ci/{path.name}" for path in SCRIPTS}
    for path in SCRIPTS:
        assert subprocess.run(["bash", "-n", path], check=False).returncode == 0
