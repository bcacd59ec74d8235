"""The Model page: rows with their facts, recommended models, recent folders, and settings only where they apply."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QFileDialog, QTabWidget
from standin import model

from sparsezo_gui.gui.hub_requests import DownloadModel
from sparsezo_gui.gui.recommended import in_order, recommended
from sparsezo_gui.gui.requests import ListModels
from sparsezo_gui.gui.widgets.model_list import ENTRY


@pytest.fixture
def offered(window, find, qtbot):
    """The list of recommended models."""
    tabs = window.page("model").findChild(QTabWidget)
    place = tabs.tabBar().tabRect(1).center()
    qtbot.mouseClick(tabs.tabBar(), Qt.MouseButton.LeftButton, pos=place)
    return find("Recommended models")


def pick(qtbot, models, row):
    place = models.visualItemRect(models.item(row)).center()
    qtbot.mouseClick(models.viewport(), Qt.MouseButton.LeftButton, pos=place)


def test_rows_have_size_family_licence_and_badge(window, find, workspace, qtbot):
    models = find("Models on this computer")
    qtbot.waitUntil(lambda: models.item(2).text().endswith("Too large"))
    entries = [models.item(row).data(ENTRY) for row in range(models.count())]
    assert entries[1].facts == "596 M · 1.11 GiB · Qwen3 · apache-2.0 · downloaded"
    assert (entries[1].badge, entries[1].level, entries[2].badge) == ("Fits", "fits", "Too large")
    assert entries[3].lines[2] == "Cannot be used: config.json is missing."
    image = models.grab().toImage()
    row = models.visualItemRect(models.item(2))
    right = {image.pixel(x, row.center().y() - 6) for x in range(row.right() - 60, row.right())}
    assert len(right) > 3, "its badge is drawn"


def test_models_that_fit_are_recommended_first_and_can_be_downloaded(window, offered, find, click, workspace, engine,
                                                                     qtbot):  # fmt: skip
    assert offered.count() == len(recommended()) > 4
    badges = [offered.item(row).data(ENTRY).badge for row in range(offered.count())]
    assert badges[0] == "Fits" and badges == sorted(badges, key=["Fits", "Tight", "Too large"].index)
    assert not find("Download the selected model").isEnabled(), "the starter is here already"
    pick(qtbot, offered, 0)
    chosen = in_order(engine.estimated.available)[0][0]
    assert workspace.recipe.model.id == offered.item(0).data(ENTRY).id == chosen.id
    click("Download the selected model")
    qtbot.waitUntil(lambda: workspace.of(DownloadModel).answer is not None)
    assert workspace.of(DownloadModel).answer.id == chosen.id


@pytest.mark.parametrize(("gib", "fit"), [(1, ()), (2, ("135M", "360M", "Qwen3-0.6B")), (64, None)])
def test_what_is_recommended_depends_on_the_memory(gib, fit):
    names = [model.id for model, verdict in in_order(gib << 30) if verdict != "too large"]
    assert len(names) == (len(recommended()) if fit is None else len(fit))
    assert all(any(part in name for name in names) for part in fit or ())
    for each in recommended():
        assert 0 < each.weights < each.parameters <= each.bytes / 2 + 1 and each.licence == "apache-2.0"


def test_a_chosen_folder_is_offered_again_after_a_restart(window, find, click, workspace, tmp_path, qtbot, monkeypatch):
    (tmp_path / "mine").mkdir()
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path / "mine"))
    click("Choose a model folder")
    assert workspace.recipe.model.id == str(tmp_path / "mine")
    workspace.change("model", id="starter")
    models = find("Models on this computer")
    row = models.count() - 1
    assert models.item(row).data(ENTRY).facts == "folder, used recently"
    pick(qtbot, models, row)
    assert workspace.recipe.model.id == str(tmp_path / "mine")
    (tmp_path / "mine").rmdir()
    workspace.change("model", id="starter")
    assert "used recently" not in models.item(models.count() - 1).text()


def test_revision_and_consent_are_shown_where_they_apply(window, find, enter, workspace, engine, qtbot):
    page = window.page("model")
    qtbot.waitUntil(lambda: workspace.model is not None)
    assert not page._revision.isVisible() and not page._trust.isVisible(), "of the bundled model"
    engine.summaries["x/own"] = model("x/own", "own", 10**6, "cache", code=True)
    enter("Model folder or Hub id", "x/own")
    qtbot.waitUntil(lambda: workspace.model is not None)
    assert page._revision.isVisible() and page._trust.isVisible()
    assert workspace.of(ListModels).answer is not None
