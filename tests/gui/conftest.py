"""The window's tests run without a display, with settings of their own, and fail on warnings of Qt and on leaks."""

from __future__ import annotations

import gc
import os
import sys
from collections import Counter
from pathlib import Path

if not os.environ.get("DISPLAY") or os.environ.get("SPARSEZO_OFFSCREEN", "1") == "1":
    os.environ["QT_QPA_PLATFORM"] = "offscreen"
sys.path.insert(0, str(Path(__file__).parent))

import pytest
from PySide6.QtCore import QEvent, QSettings, Qt, QThread, QTimer
from PySide6.QtGui import QImage, QPixmap
from PySide6.QtWidgets import QApplication, QWidget
from pytestqt.qtbot import QtBot
from shiboken6 import isValid
from standin import StandIn, past

from sparsezo_gui.gui.app import make_application
from sparsezo_gui.gui.main_window import MainWindow
from sparsezo_gui.gui.theme import DARK, LIGHT, theme
from sparsezo_gui.gui.workspace import Workspace

HARMLESS = ("This plugin does not support", "propagateSizeHints")  # said by the offscreen platform


@pytest.fixture(scope="session")
def qapp_cls():
    return QApplication


@pytest.fixture(autouse=True)
def quiet_and_clean(qapp, qtlog, tmp_path, monkeypatch):
    """Own settings, no desktop to notify; afterwards no warning of Qt, no thread and no timer is left."""
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "disabled:")
    make_application()
    QSettings.setDefaultFormat(QSettings.Format.IniFormat)
    QSettings.setPath(QSettings.Format.IniFormat, QSettings.Scope.UserScope, str(tmp_path / "settings"))
    yield
    qapp.sendPostedEvents(None, 0)
    qapp.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)  # else closed windows would be styled with the next
    qapp.processEvents()
    # Now, while no engine's thread runs: collected during the next test, beside its thread, a closed window's wrappers
    # have ended the interpreter (PySide6 6.11, about one run of this folder in ten).
    gc.collect()
    # Of the type, not of the thing: isinstance asks every object for its __class__, and some of torch's then warn.
    objects = [thing for thing in gc.get_objects() if issubclass(type(thing), QThread | QTimer) and isValid(thing)]
    assert not [thing for thing in objects if isinstance(thing, QThread) and thing.isRunning()], "a thread is left"
    assert not [thing for thing in objects if isinstance(thing, QTimer) and thing.isActive()], "a timer is left"
    loud = ("QtWarningMsg", "QtCriticalMsg", "QtFatalMsg")
    said = [record.message for record in qtlog.records if record.log_type_name in loud]
    assert not [text for text in said if not any(word in text for word in HARMLESS)]


@pytest.fixture(autouse=True)
def users_folder(tmp_path, monkeypatch):
    """Where dialogs and exports begin, instead of the home of whoever runs the tests."""
    folder = tmp_path / "user"
    folder.mkdir()
    monkeypatch.setattr(Path, "home", lambda: folder)
    return folder


class Patient(QtBot):
    """Waits as long as a busy computer may take; what never comes fails after a minute."""

    def waitUntil(self, callback, *, timeout=60_000):
        super().waitUntil(callback, timeout=timeout)


@pytest.fixture
def qtbot(qapp, request):
    return Patient(request)


@pytest.fixture
def engine(tmp_path):
    return StandIn(tmp_path / "runs")


@pytest.fixture
def workspace(engine):
    made = Workspace(engine)
    yield made
    assert made.close(60)
    made.deleteLater()


def shares(picture: QPixmap) -> dict[str, float]:
    """The part of ``picture`` that each colour takes, by its name."""
    image = picture.toImage().convertToFormat(QImage.Format.Format_RGB32)
    pixels = Counter(memoryview(image.constBits()).cast("I"))
    return {f"#{pixel & 0xFFFFFF:06x}": count / pixels.total() for pixel, count in pixels.items()}


def in_colours_of_the_theme(part, mode):
    """Its grounds take most of the picture and its text some, and hardly any pixel is of the other theme's."""
    mine, other = (LIGHT, DARK) if mode == "light" else (DARK, LIGHT)
    found = shares(part.grab())
    grounds = [sum(found.get(ground, 0) for ground in (c.window, c.base, c.raised)) for c in (mine, other)]
    assert grounds[0] > 0.6 and grounds[1] < 1e-3
    assert found.get(mine.text, 0) > found.get(other.text, 0)


@pytest.fixture(params=["light", "dark"])
def both_themes(request):
    return request.param


@pytest.fixture
def window(workspace, qtbot):
    """A window whose engine is ready."""
    theme().apply("light")
    made = MainWindow(workspace)
    made.resize(1280, 800)
    made.show()
    workspace.start()
    qtbot.waitUntil(lambda: workspace.engine_state == "ready" and workspace.memory is not None)
    yield made
    workspace.close(60)
    made.close()
    made.deleteLater()


@pytest.fixture
def reopened(qtbot, engine, tmp_path):
    """A window that is about to start, and the folder of its last run: interrupted after 100 of 2 000 steps."""
    folder = tmp_path / "runs" / "run"
    folder.mkdir(parents=True)
    engine.histories[folder] = past()
    workspace = Workspace(engine)
    workspace.store.setValue("last_run", str(folder))
    made = MainWindow(workspace)
    qtbot.addWidget(made)
    made.show()
    yield made, folder
    assert workspace.close(60)
    made.close()


@pytest.fixture
def find(window):
    """Finds a visible control by its accessible name."""

    def find(name: str, kind: type = QWidget, where: QWidget | None = None):
        found = [w for w in (where or window).findChildren(kind) if w.accessibleName() == name and w.isVisible()]
        assert len(found) == 1, f"{len(found)} controls named {name!r}"
        return found[0]

    return find


@pytest.fixture
def click(find, qtbot):
    """Clicks a control by its accessible name."""

    def click(name: str, where: QWidget | None = None):
        control = find(name, where=where)
        assert control.isEnabled(), f"{name!r} is disabled"
        qtbot.mouseClick(control, Qt.MouseButton.LeftButton)
        return control

    return click


@pytest.fixture
def enter(find, qtbot):
    """Types into a field by its accessible name, and leaves it with Enter."""

    def enter(name: str, text: str):
        field = find(name)
        field.setFocus()
        field.selectAll()
        qtbot.keyClicks(field, text)
        qtbot.keyClick(field, Qt.Key.Key_Return)
        return field

    return enter
