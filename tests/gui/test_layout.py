"""Pages in windows of several sizes: nothing is covered, cut off or out of line."""

from __future__ import annotations

from sparsezo_gui.gui.problems import Problem


def laid_out(window, name, qtbot):
    """The page of that name, once it is."""
    window.go(name)
    page = window.page(name)
    qtbot.waitUntil(lambda: page.width() == window._stack.width() and page._area.width() == page.width())
    qtbot.wait(50)
    return page


def test_pages_end_alike_with_and_without_a_scroll_bar(window, qtbot):
    window.resize(1280, 800)
    scrolls, ends = set(), set()
    for name in ("model", "method"):
        page = laid_out(window, name, qtbot)
        scrolls.add(page._area.verticalScrollBar().isVisible())
        ends.add(page.body.parentWidget().width() - page.body.contentsMargins().right())
    assert scrolls == {False, True} and len(ends) == 1


def test_a_banner_at_the_end_of_a_page_covers_nothing(window, qtbot):
    page = laid_out(window, "export", qtbot)
    before = page._area.height()
    page.banner.show_problem(Problem("Something."))
    qtbot.waitUntil(lambda: page._area.height() < before)
    assert page._area.geometry().bottom() < page.banner.geometry().top()
    assert page.banner.geometry().bottom() < page.height()
    page.banner.clear()
    qtbot.waitUntil(lambda: page._area.height() == before)


def test_pages_beside_the_chat_do_not_scroll_sideways(window, qtbot):
    window.resize(980, 600)
    window.chat.show()
    for name in ("model", "data", "run", "runs", "export"):
        page = laid_out(window, name, qtbot)
        assert page.width() < 520 and page._area.horizontalScrollBar().maximum() == 0, name
