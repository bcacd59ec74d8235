"""Nothing that is shown belongs to another model, other data or another method than the next run's."""

from __future__ import annotations

import pytest
from PySide6.QtWidgets import QListWidget

from sparsezo_gui.errors import UserError
from sparsezo_gui.gui.requests import CheckFits, PreviewData
from sparsezo_gui.gui.widgets.tokens import TokenView


@pytest.fixture
def data(window, find, workspace, qtbot):
    """The Data page with a preview."""
    window.go("data")
    qtbot.waitUntil(lambda: find("Rows of the data").model().rowCount() > 0)
    return window.page("data")


@pytest.mark.parametrize("change", [{"data": {"source": "other.csv"}}, {"model": {"id": "x/y"}}])
def test_rows_examples_and_figures_go_with_their_data_and_their_model(data, find, workspace, qtbot, change):
    assert find("What the model will see", TokenView).toPlainText() and find("Longest example").isVisible()
    workspace.change_all(change)
    assert find("Rows of the data").model().rowCount() == 0, "at once, not when the engine has read the others"
    assert not [part for part in data.findChildren(TokenView) if part.isVisible()]
    assert find("Examples by split").text() == "" and find("Rows shown").text() == "Reading the data…"
    qtbot.waitUntil(lambda: find("Rows of the data").model().rowCount() > 0)


def test_a_setting_keeps_the_rows_in_sight_until_the_new_ones_are_there(data, find, workspace):
    workspace.change("data", template="{{ text }}")
    assert find("Rows of the data").model().rowCount() > 0


def test_figures_of_ways_go_with_their_model(window, find, workspace, qtbot):
    window.go("method")
    qtbot.waitUntil(lambda: workspace.plan is not None)
    workspace.change("model", id="x/y")
    assert workspace.plan is None
    assert not [part for part in window.findChildren(object) if getattr(part, "accessibleName", str)()
                == "Memory: Exact gradients" and part.isVisible()]  # fmt: skip
    qtbot.waitUntil(lambda: find("Memory: Exact gradients").text().endswith("(estimated)"))


def test_badges_in_the_list_follow_the_method(window, find, workspace, engine, qtbot):
    qtbot.waitUntil(lambda: workspace.of(CheckFits).answer is not None)
    engine.verdict = "tight"
    workspace.change("model", bits=16)
    listed = find("Models on this computer", QListWidget)
    qtbot.waitUntil(lambda: any("Tight" in listed.item(row).text() for row in range(listed.count())))
    assert workspace.of(CheckFits).answered_request.recipe.model.bits == 16


def test_a_preview_that_failed_shows_no_rows_of_the_one_before(data, find, workspace, engine, qtbot):
    engine.faults["preview"] = UserError("other.csv: there is no such file.")
    workspace.change("data", source="other.csv")
    qtbot.waitUntil(lambda: workspace.of(PreviewData).problem is not None)
    assert find("Data problem").text() == "other.csv: there is no such file."
    assert not [part for part in data.findChildren(TokenView) if part.isVisible()]
