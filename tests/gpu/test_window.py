"""The window while it tunes on the GPU: the memory that it draws is what the run recorded and what the driver says."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from sparsezo_gui.engine.runs import journal
from tests.gpu.conftest import GIB, MIB, RESULTS

pytest.importorskip("PySide6.QtWidgets")


def tuned_in_the_window(picture, *settings):
    """What window.py found, once the run is done; its memory curve is what the journal has."""
    words = [sys.executable, str(Path(__file__).with_name("window.py")), str(picture), *settings]
    screen = shutil.which("xvfb-run")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    if screen:
        words = [screen, "-a", *words]
    else:
        environment["QT_QPA_PLATFORM"] = "offscreen"
    with tempfile.TemporaryDirectory() as config:  # the user's own settings stay as they are
        environment["XDG_CONFIG_HOME"] = config
        done = subprocess.run(words, capture_output=True, text=True, timeout=600, env=environment)
    found = next((json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")), None)
    assert found, done.stderr[-3000:]
    recorded = journal.read(Path(found["run"]) / "journal.bin").records
    assert found["state"] == "done" and found["step"] == len(recorded)
    assert found["steps"] == recorded["step"].tolist()
    assert [gib * GIB for gib in found["gib"]] == recorded["memory"].tolist()
    return found


def test_the_memory_curve_is_the_drivers(tmp_path, figure):
    found = tuned_in_the_window(Path(RESULTS).with_suffix(".window.png") if RESULTS else tmp_path / "window.png")
    # The driver counts the CUDA context too, which is there before the first step and does not change.
    beyond = [driver - drawn for drawn, driver in found["samples"]]
    figure("window: samples of the memory curve", len(beyond), "")
    figure("window: driver's figure beyond the curve, median", statistics.median(beyond) / MIB, "MiB")
    figure("window: driver's figure beyond the curve, spread", (max(beyond) - min(beyond)) / MIB, "MiB")
    assert 0 < statistics.median(beyond) < 1500 * MIB
    assert max(beyond) - min(beyond) < 64 * MIB
