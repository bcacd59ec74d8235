"""Whatever is dropped, wherever it is dropped, goes to where it belongs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PySide6.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from PySide6.QtGui import QDragEnterEvent, QDropEvent
from PySide6.QtWidgets import QApplication, QLineEdit, QPlainTextEdit
from standin import past

from sparsezo_gui.formats import data_suffixes
from sparsezo_gui.gui.drops import kind_of, on_hub
from sparsezo_gui.gui.pages import PAGES
from sparsezo_gui.gui.pages.data import FILES
from sparsezo_gui.recipe import dump

LEFT, NONE = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier


@pytest.fixture
def drop(window):
    """``drop(*places, on=None)``: as a file manager does, on a widget or on the middle of the page."""

    def drop(*places, on=None):
        target = on or window
        mime = QMimeData()
        mime.setUrls([QUrl(place) if "://" in str(place) else QUrl.fromLocalFile(str(place)) for place in places])
        mime.setText("\n".join(map(str, places)))  # which fields would take
        enter = QDragEnterEvent(QPoint(10, 10), Qt.DropAction.CopyAction, mime, LEFT, NONE)
        QApplication.sendEvent(target, enter)
        assert enter.isAccepted()
        QApplication.sendEvent(target, QDropEvent(QPointF(10, 10), Qt.DropAction.CopyAction, mime, LEFT, NONE))

    return drop


def safetensors(path: Path, form: str) -> Path:
    header = json.dumps({"__metadata__": {"format": form}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    return path


def test_data_is_used_from_every_page(window, workspace, drop, tmp_path):
    for page in PAGES:
        window.go(page)
        drop(tmp_path / "picture.png", tmp_path / f"{page}.csv")
        assert workspace.recipe.data.source == str(tmp_path / f"{page}.csv") and window.page("data").isVisible()
    for suffix in (*data_suffixes(), ".csv.gz"):
        drop(tmp_path / f"mine{suffix}")
        assert Path(workspace.recipe.data.source) == tmp_path / f"mine{suffix}"
        assert f"*{suffix}" in FILES.split(")")[0].replace("(", " ").split()
    drop(tmp_path)
    assert Path(workspace.recipe.data.source) == tmp_path, "a folder of data"


@pytest.mark.parametrize("name", ["config.json", "adapter_config.json", "model.gguf"])
def test_a_model_folder_is_used_from_every_page(window, workspace, drop, tmp_path, name):
    (tmp_path / name).touch()
    window.go("runs")
    drop(tmp_path)
    assert workspace.recipe.model.id == str(tmp_path) and window.page("model").isVisible()


def test_models_in_files_are_used(window, workspace, drop, tmp_path):
    for file in (tmp_path / "tiny.gguf", safetensors(tmp_path / "tuned.safetensors", "sparsezo-overlay")):
        drop(file)
        assert workspace.recipe.model.id == str(file)


def test_a_mask_and_a_template_are_put_into_the_recipe(window, workspace, drop, tmp_path):
    mask = safetensors(tmp_path / "mine.safetensors", "sparsezo-mask")
    drop(mask)
    assert (workspace.recipe.mask.rule, workspace.recipe.mask.file) == ("saved", str(mask))
    assert window.page("method").isVisible()
    (tmp_path / "mail.jinja").write_text("Mail: {{ text }}\nTeam:", encoding="utf-8")
    drop(tmp_path / "mail.jinja")
    assert workspace.recipe.data.template == "Mail: {{ text }}\nTeam:" and window.page("data").isVisible()
    (tmp_path / "not.j2").write_bytes(b"\xff\xfe\xff")
    drop(tmp_path / "not.j2")
    assert "cannot be read as text" in window.page("data").banner.text


def test_a_recipe_is_opened(window, workspace, drop, tmp_path):
    changed = workspace.recipe.model_copy(update={"loop": workspace.recipe.loop.model_copy(update={"steps": 77})})
    (tmp_path / "mine.toml").write_text(dump(changed), encoding="utf-8")
    drop(tmp_path / "mine.toml")
    assert workspace.recipe.loop.steps == 77 and workspace.recipe_path == tmp_path / "mine.toml"


def test_a_run_is_shown_and_a_shared_one_unpacked(window, workspace, engine, drop, qtbot, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.json").touch()
    engine.histories[folder] = past()
    drop(folder)
    qtbot.waitUntil(lambda: workspace.run.record is not None and workspace.run.record.folder == folder)
    assert window.page("run").isVisible()
    drop(tmp_path / "theirs.zip")
    qtbot.waitUntil(lambda: "'theirs' is ready" in window.page("runs").banner.text)
    assert window.page("runs").isVisible()


def test_no_run_is_shown_in_place_of_one_that_goes(window, workspace, engine, drop, qtbot, tmp_path):
    (tmp_path / "run.json").touch()
    engine.pace = 0.01
    workspace.train()
    qtbot.waitUntil(lambda: workspace.run.record is not None and workspace.run.record.state == "running")
    drop(tmp_path)
    assert "when it has ended" in window.page("run").banner.text
    window.page("run").stop()
    qtbot.waitUntil(lambda: not workspace.run.running)


def test_a_field_takes_no_file_as_its_text(window, workspace, drop, find, qtbot, tmp_path):
    window.go("data")
    source = find("Data source", QLineEdit)
    drop(tmp_path / "mine.csv", on=source)
    assert source.text() == workspace.recipe.data.source == str(tmp_path / "mine.csv")
    qtbot.waitUntil(lambda: workspace.preview_answer is not None and not workspace.busy_with())
    template = find("Prompt template", QPlainTextEdit)
    drop(tmp_path / "other.csv", on=template.viewport())
    assert template.toPlainText() == "" and workspace.recipe.data.source == str(tmp_path / "other.csv")


def test_pages_of_the_hub_are_models_or_data(window, workspace, drop):
    drop("https://huggingface.co/Qwen/Qwen3-0.6B/tree/main")
    assert workspace.recipe.model.id == "Qwen/Qwen3-0.6B"
    drop("https://huggingface.co/datasets/nyu-mll/glue?row=1")
    assert workspace.recipe.data.source == "nyu-mll/glue"
    assert on_hub(QUrl("https://example.org/a/b")) == on_hub(QUrl("https://huggingface.co/docs")) == ("", "")


def test_what_nobody_knows_is_said(window, drop, tmp_path):
    drop(tmp_path / "picture.png")
    assert window.page("model").banner.text.startswith("'picture.png' is nothing that SparseZO opens. Drop a model")
    assert kind_of(safetensors(tmp_path / "weights.safetensors", "pt")) == ""
