"""A run that is stopped, closed or killed while it is prepared is there afterwards, and Resume takes it up."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from standin import listed, past

from sparsezo_gui.errors import UserError
from sparsezo_gui.gui.record import RunRecord
from sparsezo_gui.gui.worker import Engine
from sparsezo_gui.gui.workspace import Workspace


@pytest.fixture
def preparing(window, click, workspace, engine, qtbot):
    """A window whose run is being prepared."""
    engine.pace = 0.3
    workspace.change("loop", steps=150)
    click("Start run")
    qtbot.waitUntil(lambda: workspace.run.record.folder is not None)
    assert workspace.run.state == "Preparing"
    engine.pace = 0.01
    return window


def test_stopped_while_it_is_prepared_it_is_resumed_from_its_first_step(preparing, find, click, workspace, engine,
                                                                         qtbot):  # fmt: skip
    click("Stop run")
    qtbot.waitUntil(lambda: not workspace.run.running)
    assert find("State of the run").text() == "starter · Interrupted"
    folder = workspace.run.record.folder
    engine.histories[folder] = past(0, "interrupted", 150)
    click("Resume run")
    qtbot.waitUntil(lambda: workspace.run.record.step >= 2)
    assert workspace.run.record.columns["step"][0] == 1 and workspace.run.record.folder == folder
    click("Stop run")
    qtbot.waitUntil(lambda: not workspace.run.running)
    assert workspace.run.state == "Stopped"


def test_closed_while_it_is_prepared_the_next_window_offers_to_resume_it(preparing, workspace, engine, qtbot):
    folder = workspace.run.record.folder
    preparing.stop_and_close()
    qtbot.waitUntil(lambda: not preparing.isVisible())
    workspace.close(60)
    engine.histories[folder] = past(0, "interrupted", 150)
    again = Workspace(engine)
    again.start()
    qtbot.waitUntil(lambda: again.run.record is not None)
    assert again.run.record.folder == folder and again.run.state == "Interrupted" and again.run.record.resumable
    assert again.close(60)
    again.deleteLater()


def test_what_could_not_be_prepared_is_not_offered_to_be_resumed(window, click, workspace, engine, qtbot):
    engine.faults["prepare"] = UserError("data.csv: row 3 has no label.")
    click("Start run")
    qtbot.waitUntil(lambda: not workspace.run.running)
    assert workspace.run.state == "Failed" and not workspace.run.record.resumable
    del engine.faults["prepare"]
    click("Start run")
    qtbot.waitUntil(lambda: workspace.run.record.state == "running")
    click("Stop run")
    qtbot.waitUntil(lambda: not workspace.run.running)


def test_a_run_that_another_window_prepares_cannot_be_resumed_here(window, find, workspace, engine, qtbot):
    folder = Path("elsewhere")
    engine.run_list, engine.histories[folder] = [listed(folder, state="preparing")], past(0, "preparing")
    workspace.run.open(folder)
    qtbot.waitUntil(lambda: workspace.run.record is not None)
    assert workspace.run.state == "Running in another window or terminal" and not workspace.run.record.resumable
    window.go("runs")
    qtbot.waitUntil(lambda: find("Resume the run").isVisible())
    assert not find("Resume the run").isEnabled()


@pytest.mark.slow
def test_a_window_killed_while_it_prepares_a_run_leaves_it_to_be_resumed(tmp_path, home):
    environment = {**os.environ, "SPARSEZO_HOME": str(home), "QT_QPA_PLATFORM": "offscreen", "HF_HUB_OFFLINE": "1",
                   "XDG_CONFIG_HOME": str(tmp_path)}  # fmt: skip
    process = subprocess.Popen([sys.executable, "-m", "sparsezo_gui", "starter", "--autostart"], env=environment)
    while not list(home.glob("runs/*/recipe.toml")):
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    (run,) = Engine().runs(None)
    assert (run.name, run.state, run.step) == ("starter", "interrupted", 0)
    assert RunRecord.from_history(Path(run.path), Engine().history(Path(run.path))).resumable
