"""Long work of the engine: one at a time, and what is cancelled is that and nothing else."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QWidget
from standin import listed

from sparsezo_gui.gui import formatting
from sparsezo_gui.gui.requests import EstimateMemory, FindMask, MeasureMemory, StartRun
from sparsezo_gui.gui.run_requests import ExportRun
from sparsezo_gui.gui.widgets.memory import MEASURING
from sparsezo_gui.recipe.events import Progress
from sparsezo_gui.stages import ONE, Stages


@pytest.fixture
def searching(window, click, workspace, engine, qtbot):
    """The Method page while the mask is searched, until `engine.endless` is False or it is cancelled."""
    window.go("method")
    engine.endless = True
    click("Find the mask")
    qtbot.waitUntil(lambda: workspace.of(FindMask).progress is not None)
    return window.page("method")


def free(qtbot, workspace, *kinds) -> None:
    """Waits until none of these is under way."""
    qtbot.waitUntil(lambda: not workspace.busy_with(*kinds))


def test_cancelling_the_search_leaves_what_waits_behind_it(searching, click, workspace, qtbot):
    workspace.ask(MeasureMemory(workspace.recipe))
    click("Cancel finding the mask")
    free(qtbot, workspace, FindMask, MeasureMemory)
    assert workspace.mask is None and workspace.memory.measured


def test_what_waits_is_dropped_and_the_search_goes_on(searching, click, workspace, engine, qtbot):
    engine.faults["measure"] = AssertionError("was served")
    workspace.ask(MeasureMemory(workspace.recipe))
    workspace.of(EstimateMemory).changed.emit()
    click("Cancel measuring")
    engine.endless = False
    free(qtbot, workspace, FindMask, MeasureMemory)
    assert workspace.mask is not None and not workspace.of(MeasureMemory).problem and not workspace.memory.measured


def test_a_late_cancellation_does_not_reach_the_next_request(searching, click, workspace, engine, qtbot):
    engine.endless = False
    free(qtbot, workspace, FindMask)
    workspace.of(FindMask).forget()
    workspace.cancel(FindMask)
    workspace.cancel(MeasureMemory)
    click("Find the mask")
    free(qtbot, workspace, FindMask)
    assert workspace.mask is not None
    click("Measure memory")
    free(qtbot, workspace, MeasureMemory)
    assert workspace.memory.measured


def test_cancelling_the_search_leaves_a_run_alone(searching, window, click, workspace, engine, qtbot):
    workspace.change("loop", steps=20)
    workspace.train()
    click("Cancel finding the mask")
    free(qtbot, workspace, FindMask, StartRun)
    assert workspace.run.record.state == "done" and workspace.run.record.step == 20


def test_stopping_a_run_that_waits_leaves_the_search_alone(searching, window, click, workspace, engine, qtbot):
    workspace.train()
    window.go("run")
    click("Stop run")
    engine.endless = False
    free(qtbot, workspace, FindMask, StartRun)
    assert workspace.mask is not None and workspace.run.record.state == "stopped" and workspace.run.record.step == 0


def test_an_export_can_be_cancelled_and_begun_again(window, find, click, workspace, engine, qtbot, tmp_path):
    engine.run_list = [listed(tmp_path / "run")]
    window.go("export")
    click("Refresh the list of runs")
    qtbot.waitUntil(window.page("export")._go.isEnabled)
    engine.endless = True
    click("Export now")
    qtbot.waitUntil(lambda: find("Export progress in words").text() == "Writing…")
    click("Cancel export")
    free(qtbot, workspace, ExportRun)
    assert find("Export progress in words").text() == "" and workspace.of(ExportRun).answer is None
    engine.endless = False
    click("Export now")
    qtbot.waitUntil(lambda: "exported and checked" in find("Export result").text())


def test_while_one_thing_is_done_no_other_can_be_asked_for(searching, window, find, click, workspace, engine, qtbot):
    def refused(name: str) -> None:
        control: QWidget = find(name)
        assert not control.isEnabled() and control.toolTip() == "The engine is busy finding the mask."

    refused("Measure memory")
    workspace.measure()
    window.go("run")
    refused("Start run")
    window.activateWindow()
    qtbot.waitUntil(window.isActiveWindow)
    qtbot.keyClick(window, Qt.Key.Key_R, Qt.KeyboardModifier.ControlModifier)
    qtbot.waitUntil(lambda: window.page("run").banner.text == "The engine is busy finding the mask.")
    assert not workspace.busy_with(MeasureMemory, StartRun)
    engine.run_list = [listed(Path("run"))]
    window.go("export")
    qtbot.waitUntil(window.page("export")._go.isVisible)
    refused("Export now")
    window.go("method")
    click("Cancel finding the mask")
    free(qtbot, workspace, FindMask)
    qtbot.waitUntil(find("Measure memory").isEnabled)
    assert find("Measure memory").toolTip() == MEASURING
    window.go("run")
    assert find("Start run").isEnabled() and find("Start run").toolTip() == "Starts a new run."


def test_a_preview_tells_its_progress_and_gives_way_to_the_next(window, find, workspace, engine, qtbot, monkeypatch):
    quick = engine.preview

    def preview(recipe, page):
        for done in range(0 if page else 1000):
            yield Progress("Preparing examples", done, 1000, "examples")
            time.sleep(0.01)
        return (yield from quick(recipe, page))

    monkeypatch.setattr(engine, "preview", preview)
    window.go("data")
    qtbot.waitUntil(lambda: "Preparing examples: 1" in find("Rows shown").text())
    workspace.preview(1)
    qtbot.waitUntil(lambda: find("Rows shown").text() == "51 to 100 of 170")


def test_the_time_that_a_stage_takes_yet():
    now = [0.0]
    stages = Stages(ONE, lambda: now[0])

    def text(*progress):
        return formatting.progress(Progress(*progress), stages.at(Progress(*progress)))

    assert text("Reading") == "Reading"
    assert text("Preparing", 10, 110, "rows") == "Preparing: 10 of 110 rows"
    now[0] = 10.0
    assert text("Preparing", 30, 110, "rows") == "Preparing: 30 of 110 rows (about 40 s left)"
    assert text("Other", 30, 110, "rows") == "Other: 30 of 110 rows"
