"""Tab goes through every page as one reads it: down each column, and from left to right."""

from __future__ import annotations

from itertools import pairwise

import pytest
from PySide6.QtCore import QEvent, QObject, QPoint, QRect, Qt
from PySide6.QtWidgets import QApplication
from standin import listed

from sparsezo_gui.gui.main_window import MainWindow
from sparsezo_gui.gui.pages import PAGES

TALL = 4000  # pixels: nothing scrolls, so that places can be compared


def tabbed(window, qtbot, key=Qt.Key.Key_Tab):
    """All that Tab reaches, from the first to the last."""
    window.activateWindow()
    qtbot.waitUntil(window.isActiveWindow)
    window.setFocus()
    found = []
    while True:
        qtbot.keyClick(QApplication.focusWidget(), key)
        focus = QApplication.focusWidget()
        if focus in found:
            return found
        found.append(focus)


def place(window, part):
    return QRect(part.mapTo(window, QPoint(0, 0)), part.size())


def out_of_order(window, parts):
    """Pairs of which the second is above the first in its column, or left of it in its row."""
    wrong = []
    for one, other in pairwise(parts):
        before, after = place(window, one), place(window, other)
        above = after.left() <= before.right() and after.center().y() < before.top()
        same_row = after.top() <= before.bottom() and before.top() <= after.bottom()
        if above or (same_row and after.right() < before.left()):
            wrong.append((one.accessibleName(), other.accessibleName()))
    return wrong


@pytest.fixture
def filled(window, workspace, engine, qtbot, tmp_path):
    """A window in which every page has something to show."""
    engine.run_list = [listed(tmp_path / "run"), listed(tmp_path / "other", name="other")]
    workspace.find_mask()
    qtbot.waitUntil(lambda: workspace.mask is not None)
    workspace.probe_noise()
    qtbot.waitUntil(lambda: workspace.noise is not None)
    workspace.change("loop", steps=20)
    workspace.train()
    qtbot.waitUntil(lambda: workspace.run.record is not None and not workspace.run.running)
    window.resize(1280, TALL)
    return window


@pytest.mark.parametrize("page", PAGES)
def test_the_focus_goes_through_a_page_as_one_reads_it(filled, click, qtbot, page):
    filled.go(page)
    if page == "method":
        click("Show more methods")
        click("Show advanced settings")
    qtbot.waitUntil(lambda: not filled.workspace.busy_with())
    qtbot.wait(50)  # for the layout
    found = tabbed(filled, qtbot)
    shown = filled.page(page)
    assert len([part for part in found if shown.isAncestorOf(part)]) >= 4
    assert out_of_order(filled, [part for part in found if shown.isAncestorOf(part)]) == []
    assert tabbed(filled, qtbot, Qt.Key.Key_Backtab) == found[::-1]
    names = [part.accessibleName() for part in found]
    first = [name for name in names if name.startswith("Go to ")]
    assert names[: len(first)] == first, "the pages come first, the strip below the page last"
    assert page not in ("model", "data", "method") or names[-2:] == ["Memory details", "Measure memory"]


class Watch(QObject):
    """The windows that appear."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def eventFilter(self, watched, event):
        if event.type() == QEvent.Type.Show and watched.isWidgetType() and watched.isWindow():
            self.seen.append(type(watched).__name__)
        return False


def test_no_part_of_a_page_appears_as_a_window_before_it_is_in_its_page(workspace, qapp, qtbot):
    watch = Watch()
    qapp.installEventFilter(watch)
    window = MainWindow(workspace)
    qtbot.addWidget(window)
    window.show()
    workspace.start()
    qtbot.waitUntil(lambda: workspace.engine_state == "ready" and workspace.plan is not None)
    for page in PAGES:
        window.go(page)
    workspace.compare_ways()
    qtbot.waitUntil(lambda: not workspace.busy_with())
    workspace.change_all({"estimator": {"rule": "first-order"}, "update": {"rule": "adam"}})
    qtbot.waitUntil(lambda: not workspace.busy_with())
    qapp.removeEventFilter(watch)
    assert watch.seen == ["MainWindow"]
    workspace.close(60)
    window.close()


def test_a_form_that_is_made_anew_keeps_its_place(filled, click, workspace, qtbot):
    filled.go("method")
    click("Show advanced settings")
    workspace.change_all({"estimator": {"rule": "first-order"}, "update": {"rule": "adam"}})
    qtbot.waitUntil(lambda: not workspace.busy_with())
    qtbot.wait(50)
    method = filled.page("method")
    found = [part for part in tabbed(filled, qtbot) if method.isAncestorOf(part)]
    assert out_of_order(filled, found) == [] and found[-1].accessibleName() == "Continue to Run"


def test_what_has_the_focus_is_scrolled_to(filled, click, qtbot):
    filled.resize(1280, 720)
    filled.go("method")
    click("Show advanced settings")
    qtbot.wait(50)
    found = [part for part in tabbed(filled, qtbot) if filled.page("method").isAncestorOf(part)]
    for part in (found[-1], found[0]):
        filled.setFocus()
        while QApplication.focusWidget() is not part:
            qtbot.keyClick(QApplication.focusWidget(), Qt.Key.Key_Tab)
        assert not part.visibleRegion().isEmpty(), part.accessibleName()
