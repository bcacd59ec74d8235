"""The list of runs: sorted, searched, and its columns: real clicks, by accessible name."""

from __future__ import annotations

import dataclasses

from PySide6.QtCore import QPoint, QSettings, Qt
from PySide6.QtGui import QContextMenuEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QLabel
from standin import listed
from test_runs import runs, shown, tree_of

from sparsezo_gui.gui.widgets.run_columns import COLUMNS
from sparsezo_gui.gui.widgets.run_tree import RunTree

__all__ = ["runs"]


def columns_of(tree):
    return [title for place, title in enumerate(COLUMNS) if not tree.isColumnHidden(place)]


def choose_column(tree, title):
    """Clicks on an entry of the header's context menu."""
    header = tree.header()
    QApplication.sendEvent(header.viewport(), QContextMenuEvent(QContextMenuEvent.Reason.Mouse, QPoint(9, 9),
                           header.viewport().mapToGlobal(QPoint(9, 9))))  # fmt: skip
    menu = QApplication.activePopupWidget()
    (action,) = (each for each in menu.actions() if each.text() == title)
    QTest.mouseClick(menu, Qt.MouseButton.LeftButton, pos=menu.actionGeometry(action).center())
    assert not menu.isVisible()


def test_runs_are_sorted_and_searched(window, runs, find, enter, engine, workspace, tmp_path, qtbot):
    tree = tree_of(window)
    engine.run_list += [
        listed(tmp_path / "b", "Apple", 900, model="SmolLM2", tags=("paper",), curve=(0.2, 0.9)),
        listed(tmp_path / "c", "zebra", 5, model="Qwen3"),
    ]
    workspace.run.list_runs()
    qtbot.waitUntil(lambda: tree.topLevelItemCount() == 4)
    header = tree.header()
    choose_column(tree, "Step")
    for title, ascending in (("Run", ["Apple", "broken", "yesterday", "zebra"]),
                             ("Step", ["broken", "zebra", "yesterday", "Apple"])):  # fmt: skip
        place = header.sectionViewportPosition(COLUMNS.index(title)) + 12
        for wanted in (ascending, ascending[::-1]):
            for _ in range(2):
                if shown(tree) != wanted:
                    qtbot.mouseClick(header.viewport(), Qt.MouseButton.LeftButton, pos=QPoint(place, 8))
            assert shown(tree) == wanted
    for words, wanted in (("paper", ["Apple"]), ("SMOL app", ["Apple"]), ("slower", ["yesterday"]), ("none", [])):
        enter("Search runs", words)
        assert shown(tree) == wanted
    assert find("Nothing found").isVisible()
    find("Search runs").clear()
    assert len(shown(tree)) == 4


def test_columns_are_those_that_fit_until_others_are_chosen(window, runs, qtbot):
    window.resize(1280, 720)
    tree = tree_of(window)
    qtbot.waitUntil(lambda: tree.horizontalScrollBar().maximum() == 0)
    narrow = columns_of(tree)
    assert narrow[:5] == ["Run", "Model", "Data", "Method", "Result"]
    window.resize(1900, 720)
    qtbot.waitUntil(lambda: len(columns_of(tree)) > len(narrow))
    assert tree.horizontalScrollBar().maximum() == 0
    wide = columns_of(tree)
    choose_column(tree, "Method")
    chosen = columns_of(tree)
    assert chosen == [title for title in wide if title != "Method"]
    window.resize(1280, 720)
    qtbot.wait(50)
    again = RunTree(QSettings())
    qtbot.addWidget(again)
    again.resize(900, 300)
    again.show()
    assert columns_of(tree) == columns_of(again) == chosen, "they are kept for the next start"
    choose_column(tree, "Show what fits")
    assert columns_of(tree) == narrow


def test_a_long_name_hides_nothing(window, runs, find, engine, workspace, qtbot):
    window.resize(1280, 720)
    engine.run_list[0] = dataclasses.replace(engine.run_list[0], name="a name that tells all that was tried " * 2)
    workspace.run.list_runs()
    tree = find("Runs")
    qtbot.waitUntil(lambda: find("Selected run").text().startswith("a name"))
    qtbot.wait(20)
    assert set(columns_of(tree)) > {"Run", "Model", "Data", "Method", "Result"}
    assert tree.horizontalScrollBar().maximum() == 0
    title = find("Selected run", QLabel)
    assert title.height() >= title.heightForWidth(title.width()) > title.fontMetrics().height()


def test_the_menu_of_a_run(window, runs, find, engine, qtbot):
    tree = tree_of(window)
    place = tree.visualItemRect(tree.topLevelItem(0)).center()
    tree.customContextMenuRequested.emit(place)
    menu = QApplication.activePopupWidget()
    entries = {action.text(): action for action in menu.actions()}
    assert list(entries) == ["Show curves", "Resume", "Branch…", "Export…", "Share…", "Rename and tag…",
                             "Show in file manager", "Delete…", "", "Columns"]  # fmt: skip
    entries["Rename and tag…"].trigger()
    menu.close()
    assert find("Name of the run").text() == "yesterday"
    find("Name of the run").window().close()
