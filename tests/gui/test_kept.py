"""Settings that are damaged, or from another version, cost what they held and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from PySide6.QtCore import QSettings

from sparsezo_gui.gui.kept import MOST, texts
from sparsezo_gui.gui.main_window import MainWindow
from sparsezo_gui.gui.model_entries import recent_models
from sparsezo_gui.gui.theme import appearance
from sparsezo_gui.gui.workspace import Workspace
from sparsezo_gui.recipe import Recipe, dump

KEYS = ("queue", "probes", "recent_models", "recent_recipes", "recipe", "last_run", "export_folder", "geometry",
        "theme", "text_scale", "automatic", "toured")  # fmt: skip


@pytest.mark.parametrize(
    "value",
    [r"@Variant(\0\0\0\x2\0\0\0\x5)", "@Rect(1 2 3 4)", "@ByteArray(ab)", "@Invalid()", "5", "a, b", "[" * 100_000,
     r'"[[\"one\", true], 5]"', '"{}"', "nan", "1e300"],
)  # fmt: skip
def test_the_window_opens_whatever_the_settings_hold(qtbot, engine, value):
    file = Path(QSettings().fileName())
    file.parent.mkdir(parents=True)
    file.write_text("\n".join(["[General]", *(f"{key}={value}" for key in KEYS), "last=1", ""]))
    workspace = Workspace(engine)
    assert workspace.store.value("last", 0, int) == 1, "the file was read"
    window = MainWindow(workspace)
    qtbot.addWidget(window)
    window.show()
    workspace.start()
    while window.make_next_page():
        pass
    mode, scale = appearance(workspace.store)
    assert workspace.queue.recipes == [] and recent_models(workspace.store) == []
    assert isinstance(mode, str) and scale == 1.0
    assert [probe.prompt for probe in window.chat._probes.probes] in ([], ["one"])
    assert workspace.close(60)
    window.close()


def test_lists_are_bounded_and_keep_what_can_be_used(qapp, engine):
    store = QSettings()
    store.setValue("recent_recipes", ["a"] * (MOST + 1))
    assert texts(store, "recent_recipes") == ["a"] * MOST
    store.setValue("queue", [dump(recipe := Recipe(loop={"steps": 7})), "[loop]\nsteps = 'many'", "="])
    workspace = Workspace(engine)
    assert workspace.queue.recipes == [recipe]
    workspace.deleteLater()
