"""The Data page: rows that are left out and put back, duplicates that are removed, and the seed of the splits. The rows
are read by the engine's own preview."""

from __future__ import annotations

import json

import pytest
from PySide6.QtCore import Qt, QTimer
from PySide6.QtGui import QContextMenuEvent
from PySide6.QtWidgets import QApplication, QPushButton

from sparsezo_gui.engine.data import previewing
from sparsezo_gui.gui import differences
from sparsezo_gui.gui.requests import PreviewData
from sparsezo_gui.gui.widgets.data_rows import HINT
from sparsezo_gui.recipe import build, dump, loads

CONTROL = Qt.KeyboardModifier.ControlModifier


@pytest.fixture
def source(window, workspace, engine, tmp_path, qtbot):
    """Sixty rows on the Data page, of which nothing repeats another one."""
    engine.preview = lambda recipe, page: previewing(recipe.data, None, page)
    path = tmp_path / "films.jsonl"
    rows = [{"text": f"film {index}", "label": "ab"[index % 2]} for index in range(60)]
    path.write_text("\n".join(map(json.dumps, rows)))
    window.go("data")
    window.page("data").use(str(path))
    qtbot.waitUntil(lambda: settled(workspace) and len(window.page("data").rows.table.rows.names) == 50)
    return path


def settled(workspace):
    """Whether the rows shown are those of the recipe."""
    asked = workspace.of(PreviewData).answered_request
    return asked is not None and asked.recipe.data == workspace.recipe.data and workspace.preview_answer is not None


@pytest.fixture
def table(source, find):
    return find("Rows of the data")


@pytest.fixture
def choose(table, qtbot):
    """``choose(2, 5)``: clicks these rows."""

    def choose(first, *others):
        for row in (first, *others):
            keys = CONTROL if row in others else Qt.KeyboardModifier.NoModifier
            table.scrollTo(table.rows.index(row, 0))
            place = table.visualRect(table.rows.index(row, 0)).center()
            qtbot.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, keys, place)

    return choose


@pytest.fixture
def pick(qtbot):
    """``pick(open, title)``: opens a menu, tells its entries, and clicks the one that begins with ``title``."""

    def pick(open_menu, title):
        shown = {}

        def click():
            menu = QApplication.activePopupWidget()
            shown.update({action.text(): action.isEnabled() for action in menu.actions() if action.text()})
            action = next(action for action in menu.actions() if action.text().startswith(title))
            qtbot.mouseClick(menu, Qt.MouseButton.LeftButton, pos=menu.actionGeometry(action).center())
            menu.close()

        QTimer.singleShot(100, click)
        open_menu()
        qtbot.waitUntil(lambda: bool(shown))
        return shown

    return pick


def struck(table):
    """The numbers of the rows that are struck through."""
    role = Qt.ItemDataRole.FontRole
    fonts = [table.rows.data(table.rows.index(row, 0), role) for row in range(table.rows.rowCount())]
    return [row for row, font in enumerate(fonts) if font is not None and font.strikeOut()]


def test_rows_are_left_out_by_a_key_and_put_back(table, window, find, click, choose, workspace, qtbot):
    assert find("Rows left out").text() == HINT and not window.findChild(QPushButton, "Put back")
    choose(1, 3)
    qtbot.keyClick(table, Qt.Key.Key_Delete)
    assert len(workspace.recipe.data.leave_out) == 2 and struck(table) == [1, 3]
    assert find("Rows left out").text() == "2 rows left out." and find("Put back").text() == "Put back"
    qtbot.waitUntil(lambda: settled(workspace))
    assert str(sum(workspace.preview_answer.totals.values())) == "58" and not window.page("data").banner.text
    assert struck(table) == [1, 3] and [index.row() for index in table.selectionModel().selectedRows()] == [1, 3]
    assert "film 1 " not in window.page("data").tokens.toPlainText()
    choose(4)
    qtbot.keyClick(table, Qt.Key.Key_Backspace)
    assert struck(table) == [1, 3, 4] and find("Put back").text() == "Put back the last one"
    click("Put back")
    assert struck(table) == [1, 3]
    qtbot.keyClick(table, Qt.Key.Key_Z, CONTROL)
    assert struck(table) == [] and workspace.recipe.data.leave_out == () and find("Rows left out").text() == HINT
    qtbot.waitUntil(lambda: settled(workspace))
    assert sum(workspace.preview_answer.totals.values()) == 60


def test_a_row_is_left_out_and_put_back_by_its_context_menu(table, choose, pick, workspace):
    choose(2)
    place = table.visualRect(table.rows.index(2, 0)).center()
    event = (QContextMenuEvent.Reason.Mouse, place, table.viewport().mapToGlobal(place))

    def open_menu():
        QApplication.sendEvent(table.viewport(), QContextMenuEvent(*event))

    assert pick(open_menu, "Leave out") == {"Leave out": True, "Put back": False}
    assert struck(table) == [2]
    assert pick(open_menu, "Put back") == {"Leave out": False, "Put back": True}
    assert struck(table) == [] and workspace.recipe.data.leave_out == ()


def test_rows_of_other_pages_and_sessions_are_put_back_from_a_list(
    table, window, find, click, choose, pick, workspace, qtbot
):
    choose(0)
    qtbot.keyClick(table, Qt.Key.Key_Delete)
    click("Next page of rows")
    qtbot.waitUntil(lambda: table.rows.first == 50)
    choose(9)
    qtbot.keyClick(table, Qt.Key.Key_Delete)
    qtbot.waitUntil(lambda: settled(workspace))
    assert struck(table) == [9] and table.rows.first == 50, "the page stays"
    more = find("Show the rows left out")
    shown = pick(lambda: qtbot.mouseClick(more, Qt.MouseButton.LeftButton), "Put back: film 0")
    assert list(shown) == ["Put back: film 59 · b", "Put back: film 0 · a", "Put back all 2 rows"]
    assert len(workspace.recipe.data.leave_out) == 1 and struck(table) == [9]
    workspace.set_recipe(loads(dump(workspace.recipe)))
    assert find("Put back").text() == "Put back" and struck(table) == [9]
    click("Put back")
    assert workspace.recipe.data.leave_out == ()


def test_a_row_that_changed_is_told_and_its_entry_removed(table, window, source, choose, find, click, workspace, qtbot):
    choose(1)
    qtbot.keyClick(table, Qt.Key.Key_Delete)
    qtbot.waitUntil(lambda: settled(workspace))
    source.write_text(source.read_text().replace('"film 1"', '"film one"'))
    click("Reload the data")
    banner = window.page("data").banner
    qtbot.waitUntil(lambda: "not in the data" in banner.text)
    assert struck(table) == [] and find("Rows left out").text() == "1 row left out."
    click("Put back")
    qtbot.waitUntil(lambda: not banner.text)


def test_more_rows_than_a_recipe_names_are_refused_in_a_sentence(table, window, choose, workspace, qtbot):
    workspace.change("data", leave_out=[f"{number:016x}" for number in range(1000)])
    choose(1)
    qtbot.keyClick(table, Qt.Key.Key_Delete)
    assert window.page("data").banner.text == (
        "Rows left out: must name at most 1\u2009000 rows (remove others from the data itself), not 1\u2009001 entries."
    )
    assert len(workspace.recipe.data.leave_out) == 1000 and struck(table) == []


def test_other_data_has_no_rows_left_out(table, window, find, choose, workspace, qtbot):
    choose(1)
    qtbot.keyClick(table, Qt.Key.Key_Delete)
    workspace.change("data", duplicates="remove")
    window.page("data").use("starter")
    assert (workspace.recipe.data.leave_out, workspace.recipe.data.duplicates) == ((), "keep")


def test_duplicates_are_removed_by_a_click_at_their_notice(table, window, source, find, click, workspace, qtbot):
    source.write_text("\n".join([source.read_text()] * 2))
    click("Reload the data")
    banner = window.page("data").banner
    told = "60 of 120 examples are duplicates. To remove them, set Duplicates = 'remove'."
    qtbot.waitUntil(lambda: told in banner.text)
    click("Remove duplicates")
    assert workspace.recipe.data.duplicates == "remove" and find("Duplicates").currentText() == "Remove"
    qtbot.waitUntil(lambda: "60 duplicates were removed: one of each stays" in banner.text)
    assert sum(workspace.preview_answer.totals.values()) == 60


def test_the_seed_of_the_splits_is_beside_their_sizes(table, find, enter, workspace, qtbot):
    before = workspace.preview_answer
    enter("Seed of the splits", "7")
    assert workspace.recipe.data.split_seed == 7
    qtbot.waitUntil(lambda: settled(workspace))
    assert workspace.preview_answer.totals == before.totals and workspace.preview_answer.rows == before.rows
    assert "data sets that come already split are not affected" in find("Seed of the splits").accessibleDescription()
    enter("Seed of the splits", "-1")
    assert workspace.recipe.data.split_seed == 7 and "Seed of the splits: must be 0 or more" in workspace.faults.first


def test_a_left_out_row_is_told_to_screen_readers(table, choose, qtbot):
    choose(1)
    qtbot.keyClick(table, Qt.Key.Key_Delete)
    role = Qt.ItemDataRole.AccessibleTextRole
    assert table.rows.data(table.rows.index(1, 0), role) == "Left out: film 1"
    assert table.rows.data(table.rows.index(2, 0), role) is None


def test_runs_that_differ_in_rows_left_out_say_how_many(tmp_path):
    names = [f"{number:016x}" for number in range(3)]
    for folder, left_out in (("a", names[:1]), ("b", names), ("c", names[1:2])):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "recipe.toml").write_text(dump(build({"data": {"leave_out": left_out}})))
    found = differences.table([tmp_path / folder for folder in "abc"])
    assert found == {"data.leave_out": ["1 row", "3 rows", "1 row"]}
