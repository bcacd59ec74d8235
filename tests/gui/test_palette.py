"""The command palette, as someone uses it who knows a word of what they want."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QLineEdit, QTreeWidget

from sparsezo_gui.gui.theme import theme
from sparsezo_gui.gui.widgets.palette import CommandPalette


@pytest.fixture
def palette(window, find, qtbot):
    qtbot.keyClick(window, Qt.Key.Key_P, Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier)
    line = find("Action to find", QLineEdit)
    qtbot.waitUntil(line.hasFocus)

    def found() -> list[str]:
        tree = find("Actions found", QTreeWidget)
        items = map(tree.topLevelItem, range(tree.topLevelItemCount()))
        return [item.text(0) for item in items if not item.isHidden()]

    return line, found


def test_words_in_any_order_find_an_action_and_enter_runs_it(palette, window, qtbot):
    line, found = palette
    assert len(found()) > 30
    qtbot.keyClicks(line, "dark the")
    assert found() == ["View › Theme › Dark"]
    qtbot.keyClick(line, Qt.Key.Key_Return)
    assert theme().mode == "dark"
    qtbot.waitUntil(lambda: not window.findChildren(CommandPalette))


def test_arrows_choose_and_escape_leaves_all_as_it_was(palette, window, find, qtbot):
    line, found = palette
    qtbot.keyClicks(line, "text size")
    sizes = found()
    assert [size.split(" › ")[-1] for size in sizes] == ["Smaller", "Normal", "Larger", "Largest"]
    assert [size for size in sizes if size.startswith("✓")] == ["✓ View › Text size › Normal"]
    qtbot.keyClick(line, Qt.Key.Key_Down)
    assert find("Actions found").currentItem().text(0) == found()[1]
    qtbot.keyClick(line, Qt.Key.Key_Escape)
    qtbot.waitUntil(lambda: not window.findChildren(CommandPalette))
    assert theme().mode == "light"


def test_a_name_that_no_action_has_runs_nothing(palette, find, qtbot):
    line, found = palette
    qtbot.keyClicks(line, "zzz")
    assert not found() and find("Actions found").currentItem() is None
    qtbot.keyClick(line, Qt.Key.Key_Return)
    assert line.isVisible()
    line.clear()
    assert found()


def test_a_page_is_a_click_away(palette, window, find, qtbot):
    line, _ = palette
    qtbot.keyClicks(line, "export")
    tree = find("Actions found", QTreeWidget)
    item = next(i for i in map(tree.topLevelItem, range(tree.topLevelItemCount())) if i.text(0) == "View › Export")
    qtbot.mouseClick(tree.viewport(), Qt.MouseButton.LeftButton, pos=tree.visualItemRect(item).center())
    assert window.page("export").isVisible()
