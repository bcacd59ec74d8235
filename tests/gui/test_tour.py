"""The tour: to the first tuned model and its export, and to a file of one's own."""

from __future__ import annotations

import pytest
from PySide6.QtGui import QAction
from PySide6.QtWidgets import QFileDialog

from sparsezo_gui.gui.app import Options, Startup
from sparsezo_gui.gui.main_window import MainWindow
from sparsezo_gui.gui.theme import theme
from sparsezo_gui.gui.widgets.tour import EXAMPLE, STOPS, TOURED
from sparsezo_gui.gui.workspace import Workspace
from sparsezo_gui.recipe import Recipe


@pytest.fixture
def tour(window, qtbot):
    """A window whose tour was started from the menu."""
    next(each for each in window.findChildren(QAction) if each.text() == "&Tour of the program").trigger()
    return window.tour


def page_of(window):
    return next(name for name, page in window._pages.items() if page is window._stack.currentWidget())


def test_it_leads_to_a_tuned_model_its_export_and_own_data(tour, window, find, click, workspace, engine, qtbot,
                                                           tmp_path, monkeypatch):  # fmt: skip
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / "mine"), ""))
    seen = []
    for stop in STOPS[:3]:
        seen.append((page_of(window), find("Tour").text()))
        assert find("What the tour says").text() == stop.text
        click("Next step of the tour")
    assert seen == [("model", "A model (1 of 6)"), ("data", "Examples (2 of 6)"), ("method", "A way to tune (3 of 6)")]
    assert page_of(window) == "run"
    workspace.change("loop", steps=20)
    click("Next step of the tour")
    qtbot.waitUntil(lambda: page_of(window) == "export")
    assert workspace.run.record.state == "done" and find("Tour").text() == "Use it (5 of 6)"
    click("Next step of the tour")
    click("Save a file to fill in…")
    assert (tmp_path / "mine.csv").read_text().splitlines() == [",".join(each) for each in EXAMPLE]
    assert workspace.recipe.data.source == str(tmp_path / "mine.csv") and page_of(window) == "data"
    click("Next step of the tour")
    assert not tour.isVisible() and workspace.recipe.data.source == str(tmp_path / "mine.csv")


def test_it_is_skipped_at_any_step_and_leaves_the_recipe_as_it_was(window, click, workspace):
    workspace.set_recipe(mine := Recipe(model={"id": "x/y"}))
    for steps in range(len(STOPS) - 2):
        window.tour.begin()
        assert workspace.recipe.model.id == "starter"
        for _ in range(steps):
            click("Next step of the tour")
        click("Skip the tour")
        assert not window.tour.isVisible() and workspace.recipe == mine


def test_the_recipe_from_before_outlives_a_second_beginning_and_the_window(window, workspace, engine):
    workspace.set_recipe(mine := Recipe(model={"id": "x/y"}))
    for _ in range(2):
        window.tour.begin()
    assert workspace.recipe.model.id == "starter"
    window.close()
    assert workspace.close(60) and workspace.recipe == mine
    again = Workspace(engine)
    assert again.recipe == mine
    again.deleteLater()


def test_a_file_that_cannot_be_written_is_told(tour, click, find, workspace, qtbot, tmp_path, monkeypatch):
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / "no" / "mine.csv"), ""))
    tour._show(len(STOPS) - 1)
    click("Save a file to fill in…")
    assert "cannot be written (No such file or directory)" in find("Tour problem").text()
    assert workspace.recipe.data.source == "starter"


@pytest.mark.parametrize(
    ("options", "toured", "begins"),
    [(Options(), False, True), (Options(), True, False), (Options(recipe=Recipe()), False, False)],
    ids=["first start", "later", "with a recipe"],
)
def test_it_begins_by_itself_only_at_the_first_start_without_a_recipe(workspace, qtbot, options, toured, begins):
    theme().apply("light")
    workspace.store.setValue(TOURED, toured)
    window = MainWindow(workspace)
    Startup(window, options)
    window.show()
    qtbot.waitUntil(lambda: workspace.engine_state == "ready")
    assert window.tour.isVisible() == begins
    assert workspace.store.value(TOURED, False, bool) == (toured or begins)
    window.close()
    window.deleteLater()
