"""While the engine loads, a start is taken and can be taken back."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt

from sparsezo_gui.gui.main_window import MainWindow
from sparsezo_gui.gui.requests import StartRun
from sparsezo_gui.gui.theme import theme


@pytest.fixture
def window(workspace, engine, qtbot):
    """A window whose engine takes long to load, until the test says so."""
    theme().apply("light")
    engine.loading = 3600.0
    made = MainWindow(workspace)
    made.resize(1280, 800)
    made.show()
    workspace.start()
    qtbot.waitUntil(lambda: workspace.engine_state == "loading")
    yield made
    workspace.close(60)
    made.close()
    made.deleteLater()


def shown(window, name):
    return [part for part in window.findChildren(object) if getattr(part, "accessibleName", str)() == name
            and part.isVisible()]  # fmt: skip


def test_a_start_waits_for_the_engine_and_begins_by_itself(window, find, click, workspace, engine, qtbot):
    click("Start run")
    assert find("Waiting to start").text() == "Starts when the engine is ready." and not shown(window, "Start run")
    assert find("What happens next").text() == "Waiting for the engine to load…"
    assert workspace.run.record.step == 0
    window.go("method")
    engine.loading = 0.0
    qtbot.waitUntil(lambda: workspace.run.record.step > 0)
    assert not shown(window, "Waiting to start") and workspace.run.record.name == "starter"
    window.go("run")
    click("Stop run")
    qtbot.waitUntil(lambda: not workspace.run.running)


@pytest.mark.parametrize("how", ["Cancel the start", "Stop run"])
def test_a_start_is_taken_back_and_given_again(window, find, click, workspace, engine, qtbot, how):
    click("Start run")
    click(how)
    assert workspace.run.record is None and not workspace.run.running and find("Start run").isEnabled()
    assert find("State of the run").text() == "No run yet." and not (engine.home / "run").exists()
    workspace.change("loop", steps=30)
    click("Start run")
    engine.loading = 0.0
    qtbot.waitUntil(lambda: workspace.run.record.state == "done")
    assert workspace.run.record.steps == 30, "the first start is forgotten"


def test_a_window_closes_without_asking_while_a_start_waits(window, click, workspace, engine, qtbot):
    click("Start run")
    qtbot.keyClick(window, Qt.Key.Key_Q, Qt.KeyboardModifier.ControlModifier)
    window.close()
    qtbot.waitUntil(lambda: not window.isVisible())
    assert not workspace.busy_with(StartRun) and not (engine.home / "run").exists()


def test_what_needs_the_engine_at_once_waits_meanwhile(window, find, click):
    click("Start run")
    window.go("method")
    assert not find("Find the mask").isEnabled() and find("Find the mask").toolTip() == "The engine is still loading."
