"""The first page says at start what is wrong with this computer."""

from __future__ import annotations

import pytest
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QLabel

from sparsezo_gui.answers import Finding
from sparsezo_gui.gui.requests import CheckComputer

WELL = Finding("Python", "3.12.1")
QT = Finding("Qt's libraries", "1 missing", "The window needs libGL.so.1.", "sudo apt install libgl1")
SHORT = Finding("Memory", "16 GiB", "Only 512 MiB of memory are free. Close other programs.")


@pytest.fixture
def engine(engine, request):
    engine.findings = request.param
    return engine


@pytest.mark.parametrize("engine", [[WELL, QT, SHORT]], indirect=True)
def test_what_is_wrong_is_told_with_the_command(window, workspace, find, click, qtbot):
    banner = window.page("model").banner
    qtbot.waitUntil(lambda: banner.isVisible())
    assert find("Message", QLabel, banner).text().splitlines() == [f"{QT.problem} {QT.command}", SHORT.problem]
    click("Copy command", banner)
    assert QGuiApplication.clipboard().text() == QT.command
    workspace.ask(CheckComputer())
    qtbot.waitUntil(lambda: not workspace.of(CheckComputer).busy)
    assert not banner.isVisible()  # it stays dismissed


@pytest.mark.parametrize("engine", [[WELL]], indirect=True)
def test_nothing_is_told_where_all_is_well(window, workspace, qtbot):
    qtbot.waitUntil(lambda: workspace.of(CheckComputer).answer == [WELL])
    assert not window.page("model").banner.isVisible()
