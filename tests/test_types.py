"""The whole package passes mypy in its strict mode."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import sparsezo_gui


@pytest.mark.slow
def test_mypy_finds_nothing():
    root = Path(sparsezo_gui.__file__).parents[1]
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
