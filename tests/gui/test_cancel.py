"""Long work of the engine: one at a time, and what is cancelled is that and nothing else."""

from __future__ import annotations

import time

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QWidget
from standin import listed

from sparsezo_gui.gui import words
from sparsezo_gui.gui.widgets.memory import MEASURING
from sparsezo_gui.recipe.events import Progress


@pytest.fixture
def searching(window, click, session, engine, qtbot):
    """The Method page while the mask is searched."""
    window.go("method")
    engine.pace = 0.1
    click("Find the mask")
    qtbot.waitUntil(lambda: session.busy.get("mask") is not None, timeout=3000)
    return window.page("method")


def free(qtbot, session, *kinds: str) -> None:
    """Waits until none of these is under way."""
    qtbot.waitUntil(lambda: not session.busy.keys() & set(kinds), timeout=5000)


def test_cancelling_the_search_leaves_what_waits_behind_it(searching, click, session, qtbot):
    session.ask("measure", session.recipe)
    click("Cancel finding the mask")
    free(qtbot, session, "mask", "measure")
    assert session.mask is None and session.measured


def test_what_waits_is_dropped_and_the_search_goes_on(searching, click, session, engine, qtbot):
    engine.faults["measure"] = AssertionError("was served")
    session.ask("measure", session.recipe)
    session.estimate_changed.emit()
    click("Cancel measuring")
    free(qtbot, session, "mask", "measure")
    assert session.mask is not None and "measure" not in session.problems and not session.measured


def test_a_late_cancellation_does_not_reach_the_next_request(searching, click, session, engine, qtbot):
    engine.pace = 0.001
    free(qtbot, session, "mask")
    session.answers.pop("mask")
    session.cancel("mask")
    session.cancel("measure")
    click("Find the mask")
    free(qtbot, session, "mask")
    assert session.mask is not None
    click("Measure memory")
    free(qtbot, session, "measure")
    assert session.measured


def test_cancelling_the_search_leaves_a_run_alone(searching, window, click, session, engine, qtbot):
    session.change("loop", steps=20)
    session.train()
    engine.pace = 0.001
    click("Cancel finding the mask")
    free(qtbot, session, "mask", "train")
    assert session.record.state == "done" and session.record.step == 20


def test_stopping_a_run_that_waits_leaves_the_search_alone(searching, window, click, session, qtbot):
    session.train()
    window.go("run")
    click("Stop run")
    free(qtbot, session, "mask", "train")
    assert session.mask is not None and session.record.state == "stopped" and session.record.step == 0


def test_an_export_can_be_cancelled_and_begun_again(window, find, click, session, engine, qtbot, tmp_path):
    engine.run_list = [listed(tmp_path / "run")]
    window.go("export")
    click("Refresh the list of runs")
    qtbot.waitUntil(find("Export now").isEnabled, timeout=3000)
    engine.pace = 0.3
    click("Export now")
    qtbot.waitUntil(lambda: find("Export result").text() == "Writing…", timeout=3000)
    click("Cancel export")
    free(qtbot, session, "export")
    assert find("Export result").text() == "" and "export" not in session.answers
    engine.pace = 0.001
    click("Export now")
    qtbot.waitUntil(lambda: "exported and checked" in find("Export result").text(), timeout=3000)


def test_while_one_thing_is_done_no_other_can_be_asked_for(searching, window, find, click, session, engine, qtbot):
    def refused(name: str) -> None:
        control: QWidget = find(name)
        assert not control.isEnabled() and control.toolTip() == "The engine is busy finding the mask."

    refused("Measure memory")
    session.measure()
    window.go("run")
    refused("Start run")
    window.activateWindow()
    qtbot.waitUntil(window.isActiveWindow, timeout=1000)
    qtbot.keyClick(window, Qt.Key.Key_R, Qt.KeyboardModifier.ControlModifier)
    qtbot.waitUntil(lambda: window.page("run").banner.text == "The engine is busy finding the mask.", timeout=1000)
    assert session.busy.keys() & {"measure", "train"} == set()
    window.go("export")
    refused("Export now")
    window.go("method")
    click("Cancel finding the mask")
    free(qtbot, session, "mask")
    qtbot.waitUntil(find("Measure memory").isEnabled, timeout=1000)
    assert find("Measure memory").toolTip() == MEASURING
    window.go("run")
    assert find("Start run").isEnabled() and find("Start run").toolTip() == "Starts a new run with this recipe."


def test_a_preview_tells_its_progress_and_gives_way_to_the_next_one(window, find, session, engine, qtbot, monkeypatch):
    quick = engine.preview

    def preview(recipe, page):
        for done in range(0 if page else 1000):
            yield Progress("Preparing examples", done, 1000, "examples")
            time.sleep(0.01)
        return quick(recipe, page)

    monkeypatch.setattr(engine, "preview", preview)
    window.go("data")
    qtbot.waitUntil(lambda: "Preparing examples: 1" in find("Rows shown").text(), timeout=5000)
    session.preview(1)
    qtbot.waitUntil(lambda: find("Rows shown").text() == "51 to 100 of 170", timeout=3000)


def test_the_time_that_a_stage_takes_yet(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(words.time, "monotonic", lambda: now[0])
    pace = words.Pace()
    assert pace.words(Progress("Reading")) == "Reading"
    assert pace.words(Progress("Preparing", 10, 110, "rows")) == "Preparing: 10 of 110 rows"
    now[0] = 10.0
    assert pace.words(Progress("Preparing", 30, 110, "rows")) == "Preparing: 30 of 110 rows, about 40 s left"
    assert pace.words(Progress("Other", 30, 110, "rows")) == "Other: 30 of 110 rows"
