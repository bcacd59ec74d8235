"""The Hub in the window: searching, downloading with pause, resume and cancel, deleting, uploading."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QLabel, QTabWidget
from standin import GB, MODELS, listed

from sparsezo_gui.errors import UserError
from sparsezo_gui.gui.hub_requests import DownloadModel, SearchModels
from sparsezo_gui.gui.requests import JudgeFound
from sparsezo_gui.gui.widgets.dialogs import Confirmation
from sparsezo_gui.sizes import size


@pytest.fixture
def hub(window, find):
    """The Model page's second tab."""
    window.go("model")
    window.page("model").findChild(QTabWidget).setCurrentIndex(2)
    return window.page("model").hub


@pytest.fixture
def search(hub, enter, qtbot):
    def search(words="qwen3"):
        enter("Search models on the Hub", words)
        qtbot.waitUntil(lambda: hub.list.count() == len(MODELS))

    return search


@pytest.fixture
def select(hub, qtbot):
    def select(number):
        place = hub.list.visualItemRect(hub.list.item(number)).center()
        qtbot.mouseClick(hub.list.viewport(), Qt.MouseButton.LeftButton, pos=place)

    return select


def texts(row):
    return [each.text() for each in row.findChildren(QLabel) if each.text()]


def test_results_are_rows_with_size_licence_downloads_and_verdict(hub, search, find):
    search()
    rows = [texts(hub.list.itemWidget(hub.list.item(number))) for number in range(4)]
    assert rows[0] == ["Qwen/Qwen3-0.6B", "596 M · 1.40 GiB · apache-2.0 · 9.12 M downloads", "Fits"]
    assert rows[1] == ["meta-llama/Llama-3.2-1B", "1.24 B · 2.30 GiB · llama3.2 · 2.35 M downloads · gated"]
    assert [row[-1] for row in rows[2:]] == ["Too large", "Cannot be tuned"]
    assert find("Search result").text() == "4 found, most downloaded first."


def test_verdicts_follow_the_settings(hub, search, select, find, engine, workspace, qtbot):
    """And the result that was selected stays so."""
    search()
    select(0)
    qtbot.waitUntil(lambda: not workspace.busy_with())
    engine.verdict = "tight"
    window_bits = find("Bits per weight")
    window_bits.setCurrentIndex(window_bits.findText("16 bits"))
    qtbot.waitUntil(lambda: texts(hub.list.itemWidget(hub.list.item(0)))[-1] == "Tight")
    assert workspace.of(JudgeFound).answered_request.recipe.model.bits == 16
    assert hub.selected().id == "Qwen/Qwen3-0.6B" and find("Download the selected one").isEnabled()
    assert texts(hub.list.itemWidget(hub.list.item(2)))[-1] == "Too large"


def test_verdicts_follow_settings_that_changed_during_the_search(hub, enter, engine, workspace, qtbot):
    engine.endless = True
    enter("Search models on the Hub", "qwen3")
    qtbot.waitUntil(lambda: workspace.of(SearchModels).progress is not None)
    workspace.change("loop", batch_size=64)
    engine.verdict, engine.endless = "tight", False
    qtbot.waitUntil(lambda: hub.list.count() and texts(hub.list.itemWidget(hub.list.item(0)))[-1] == "Tight")


def test_a_result_becomes_the_recipes_model(hub, search, select, find, workspace, qtbot):
    workspace.change("model", revision="v1", trust_remote_code=True)
    search()
    assert not find("Download the selected one").isEnabled()
    select(2)
    model = workspace.recipe.model
    assert (model.id, model.revision, model.trust_remote_code) == ("Qwen/Qwen3-32B", "main", False)
    assert find("Download the selected one").isEnabled()
    select(1)
    assert find("Search result").text() == "Gated: accept its terms on the Hub first."
    select(3)
    assert find("Search result").text() == "It has no safetensors weights."
    assert not find("Download the selected one").isEnabled()


def test_a_search_that_fails_is_told_and_can_be_stopped(hub, engine, enter, click, find, workspace, qtbot):
    engine.faults["search"] = UserError("The Hub cannot be reached.")
    enter("Search models on the Hub", "x")
    qtbot.waitUntil(lambda: find("Search result").text() == "The Hub cannot be reached.")
    engine.faults, engine.endless = {}, True
    click("Search the Hub for models")
    qtbot.waitUntil(lambda: workspace.of(SearchModels).progress is not None)
    assert find("Search result").text() == "Searching the Hub…"
    click("Stop searching")
    qtbot.waitUntil(lambda: not workspace.busy_with(SearchModels))
    engine.endless = False


def test_a_download_pauses_resumes_and_ends_in_the_list(hub, search, select, engine, click, find, workspace, qtbot):
    """A pause keeps what was downloaded: the next try begins there."""
    search()
    select(0)
    engine.endless, engine.pace = True, 0.01
    engine.parts["Qwen/Qwen3-0.6B"] = 4
    click("Download the selected one")
    told = f"{size(4 * GB // 10)} of 1.00 GiB"
    qtbot.waitUntil(lambda: told in find("Download progress").text())
    assert find("Download").text() == "Qwen/Qwen3-0.6B" and not find("Download the selected one").isEnabled()
    click("Pause the download")
    qtbot.waitUntil(lambda: find("Download progress").text() == f"Paused at {told}.")
    engine.endless = False
    click("Resume the download")
    qtbot.waitUntil(lambda: not window_has(hub, "Download"))
    assert workspace.of(DownloadModel).answer.id == "Qwen/Qwen3-0.6B" and engine.parts == {"Qwen/Qwen3-0.6B": 9}
    assert find("Models on this computer").isVisible()


def window_has(hub, name):
    return any(each.isVisible() for each in hub.window().findChildren(QLabel) if each.accessibleName() == name)


def test_a_cancelled_download_leaves_nothing(hub, search, select, engine, click, workspace, qtbot):
    search()
    select(0)
    engine.endless = True
    click("Download the selected one")
    qtbot.waitUntil(lambda: workspace.of(DownloadModel).progress is not None)
    click("Cancel the download")
    qtbot.waitUntil(lambda: not workspace.busy_with())
    assert engine.parts == {} and not window_has(hub, "Download")
    engine.endless = False


def test_a_download_that_fails_says_why_and_can_be_resumed(hub, search, select, engine, click, find, qtbot):
    search()
    select(1)
    engine.faults["download"] = UserError("The model is gated. Accept its terms.")
    click("Download the selected one")
    qtbot.waitUntil(lambda: find("Download progress").text() == "The model is gated. Accept its terms.")
    engine.faults.clear()
    assert find("Resume the download").text() == "Try again"
    click("Resume the download")
    qtbot.waitUntil(lambda: not window_has(hub, "Download"))


def test_a_downloaded_model_is_deleted_after_a_question(window, engine, click, find, workspace, qtbot):
    window.go("model")
    workspace.change("model", id="starter")
    assert not window_has(window, "Delete the selected model")
    workspace.change("model", id="Qwen/Qwen3-0.6B")
    qtbot.waitUntil(lambda: window.page("model")._delete.isVisible())
    for answer, asked in (("Cancel", []), ("Yes: delete", [("remove", "Qwen/Qwen3-0.6B", False)])):
        click("Delete the selected model")
        [dialog] = [each for each in window.findChildren(Confirmation) if each.isVisible()]
        assert "Delete Qwen/Qwen3-0.6B (1.11 GiB) from this computer?" in find("Delete model", where=dialog).text()
        click(answer, where=dialog)
        qtbot.waitUntil(lambda: not workspace.busy_with())
        assert engine.asked == asked


def test_data_sets_are_searched_and_used(window, engine, click, find, workspace, qtbot):
    window.go("data")
    click("Search the Hub for data sets")
    dialog = window.page("data").hub
    field = find("Search data sets on the Hub", where=dialog)
    qtbot.keyClicks(field, "glue")
    qtbot.keyClick(field, Qt.Key.Key_Return)
    rows = dialog.search.list
    qtbot.waitUntil(lambda: rows.count() == 2)
    facts = "100K to 1M rows · 163 MiB · other licence · 412 K downloads"
    assert texts(rows.itemWidget(rows.item(0))) == ["nyu-mll/glue", facts]
    qtbot.mouseClick(rows.viewport(), Qt.MouseButton.LeftButton, pos=rows.visualItemRect(rows.item(1)).center())
    click("Use this data set", where=dialog)
    assert workspace.recipe.data.source == "stanfordnlp/imdb" and not dialog.isVisible()


def test_an_export_is_uploaded_and_tried_again(window, engine, click, find, workspace, tmp_path, qtbot):
    engine.run_list = [listed(Path("yesterday"))]
    workspace.run.list_runs()
    window.go("export")
    qtbot.waitUntil(lambda: find("Export now").isEnabled())
    out = tmp_path / "out.safetensors"
    find("Export to").setText(str(out))
    click("Push to the Hub")
    assert not find("Export now").isEnabled(), "without a name"
    qtbot.keyClicks(find("Name on the Hub"), "me/mine")
    engine.faults["push"] = UserError("Your token can only read.")
    click("Export now")
    banner = window.page("export").banner
    qtbot.waitUntil(lambda: banner.text == "Your token can only read.")
    engine.faults.clear()
    click("Upload again")
    said = "Uploaded to https://huggingface.co/me/mine; only you can see it."
    qtbot.waitUntil(lambda: find("Export result").text().endswith(said))
    assert engine.asked[-1] == ("push", out, "me/mine", False)


def test_without_the_choice_nothing_is_uploaded(window, engine, click, find, workspace, tmp_path, qtbot):
    engine.run_list = [listed(Path("yesterday"))]
    workspace.run.list_runs()
    window.go("export")
    qtbot.waitUntil(lambda: find("Export now").isEnabled())
    find("Export to").setText(str(tmp_path / "out.safetensors"))
    click("Export now")
    qtbot.waitUntil(lambda: find("Export result").text().startswith("Step 100 exported"))
    qtbot.waitUntil(lambda: not workspace.busy_with())
    assert engine.asked == []


@pytest.mark.slow
def test_the_window_with_its_search_loads_no_torch():
    code = "import sys; import sparsezo_gui.gui.main_window; assert not {'torch', 'huggingface_hub'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "QT_QPA_PLATFORM": "offscreen"})
