"""Ctrl-C while a program's libraries load: a sentence and exit code 130, whatever was being imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

PRESSES = """
import os, signal, sys

module, program, *sys.argv[1:] = sys.argv[1:]

class Presses:
    def find_spec(name, path=None, target=None):
        if name == module:
            sys.meta_path.remove(Presses)
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Presses)
from sparsezo_gui import start
sys.exit(getattr(start, program)())
"""


def interrupted(module: str, *arguments: str) -> tuple[int, str, str]:
    """What a program does when Ctrl-C is pressed as it begins to import ``module``."""
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
    command = [sys.executable, "-c", PRESSES, module, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.skipif(os.name == "nt", reason="a process of Windows cannot press Ctrl-C for itself alone")
@pytest.mark.parametrize("module", ["argparse", "dataclasses", "pydantic", "torch", "accelerate.hooks", "numpy.dtypes"])
def test_the_command_line(module, tmp_path):
    arguments = "terminal", "train", "starter", "--run", str(tmp_path / "run")
    assert interrupted(module, *arguments) == (130, "", "Interrupted.\n")


@pytest.mark.skipif(os.name == "nt", reason="a process of Windows cannot press Ctrl-C for itself alone")
@pytest.mark.parametrize("module", ["argparse", "pydantic", "PySide6.QtWidgets"])
def test_the_window(module):
    assert interrupted(module, "window", "starter") == (130, "", "Interrupted.\n")


@pytest.mark.skipif(os.name == "nt", reason="a process of Windows cannot press Ctrl-C for itself alone")
@pytest.mark.parametrize("module", ["pydantic", "torch"])
def test_as_json(module):
    code, out, error = interrupted(module, "terminal", "estimate", "starter", "--json")
    assert (code, error) == (130, "Interrupted.\n")
    assert json.loads(out) == {"event": "error", "message": "Interrupted."}
