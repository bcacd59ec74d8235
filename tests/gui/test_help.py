"""The help: every link leads to a place that is there, and F1 opens it at the field."""

from __future__ import annotations

import pytest
from PySide6.QtCore import QObject, QPoint, Qt, QUrl, Slot
from PySide6.QtGui import QDesktopServices, QTextCursor, QTextDocument

from sparsezo_gui import resources
from sparsezo_gui.gui.help import HelpBrowser, HelpWindow
from sparsezo_gui.gui.pages import PAGES
from sparsezo_gui.gui.theme import theme
from sparsezo_gui.gui.widgets.fields import SettingField

ALL = sorted(path.relative_to(resources.DOCS).as_posix() for path in resources.DOCS.rglob("*.md"))


class Web(QObject):
    """Where links to the web are opened."""

    def __init__(self):
        super().__init__()
        self.opened = []

    @Slot(QUrl)
    def visit(self, url):
        self.opened.append(url.toString())


@pytest.fixture
def browser(qtbot):
    theme().apply("light")
    made = HelpBrowser()
    made.resize(900, 700)
    qtbot.addWidget(made)
    made.show()
    return made


def formats(browser):
    """Each piece of text with its format, and where it begins."""
    block = browser.document().begin()
    while block.isValid():
        for each in block.textFormats():
            yield each.format, block.position() + each.start
        block = block.next()


def links(browser):
    return {form.anchorHref() for form, _ in formats(browser) if form.isAnchor()}


def click_link(browser, link, qtbot):
    start = next(start for form, start in formats(browser) if form.isAnchor() and form.anchorHref() == link)
    cursor = QTextCursor(browser.document())
    cursor.setPosition(start + 1)
    browser.setTextCursor(cursor)
    browser.ensureCursorVisible()
    place = browser.cursorRect(cursor).center() + QPoint(2, 0)
    qtbot.mouseClick(browser.viewport(), Qt.MouseButton.LeftButton, pos=place)


def test_every_link_and_picture_of_every_page_is_there(browser):
    wanted = set()
    for name in ALL:
        browser.open(name)
        base = browser.source()
        pictures = [form.toImageFormat().name() for form, _ in formats(browser) if form.isImageFormat()]
        for picture in pictures:
            image = browser.loadResource(QTextDocument.ResourceType.ImageResource.value, QUrl(picture))
            assert 600 < image.deviceIndependentSize().width() < 900, (name, picture)
        assert not pictures or browser.horizontalScrollBar().maximum() == 0, name
        wanted |= {(name, base.resolved(QUrl(link)).toString()) for link in links(browser) if "://" not in link}
    assert len(wanted) > 50
    for name, link in wanted:
        url = QUrl(link)
        browser.setSource(url)
        assert browser.document().characterCount() > 200, (name, link)
        assert not url.hasFragment() or browser.find_place(url.fragment()), (name, link)


def test_links_are_followed_and_back_leads_back(browser, qtbot):
    browser.open("index.md")
    click_link(browser, "guides/classify.md", qtbot)
    assert browser.source().fileName() == "classify.md" and browser.toPlainText().startswith("Classify")
    browser.backward()
    assert browser.source().fileName() == "index.md"


def test_the_web_opens_in_the_users_browser_and_other_files_stay_closed(browser, qtbot, tmp_path):
    web = Web()
    QDesktopServices.setUrlHandler("https", web, "visit")
    browser.open("how-it-works.md")
    click_link(browser, "https://arxiv.org/abs/2402.15751", qtbot)
    QDesktopServices.unsetUrlHandler("https")
    assert web.opened == ["https://arxiv.org/abs/2402.15751"] and browser.source().fileName() == "how-it-works.md"
    (tmp_path / "other.md").write_text("other")
    other = QUrl.fromLocalFile(str(tmp_path / "other.md"))
    assert browser.loadResource(QTextDocument.ResourceType.MarkdownResource.value, other) is None


def test_every_field_of_the_window_has_its_place(window, browser):
    for name in PAGES:
        window.go(name)
    fields = window.findChildren(SettingField)
    browser.open("reference/methods.md")
    assert len(fields) > 20
    for field in fields:
        found = browser.find_place(field.property("helpPlace"))
        assert found and found.text() == field.name


def test_f1_opens_the_help_at_the_field_and_at_the_page(window, find, click, enter, qtbot):
    window.go("method")
    enter("Density", "0.02")
    qtbot.keyClick(find("Density"), Qt.Key.Key_F1)
    (shown,) = window.findChildren(HelpWindow)
    assert shown.isVisible() and shown.browser.source().fragment() == "mask/sensitive/density"
    cursor = shown.browser.textCursor()
    assert cursor.block().text() == "density" and 0 < shown.browser.cursorRect(cursor).top() < shown.browser.height()
    click("Help on Steps")
    assert shown.browser.source().fragment() == "loop//steps" and shown.browser.textCursor().block().text() == "steps"
    window.go("export")
    qtbot.keyClick(find("Export page"), Qt.Key.Key_F1)
    assert shown.browser.source().fileName() == "use.md" and window.findChildren(HelpWindow) == [shown]
    click("Contents of the help", shown)
    assert shown.browser.source().fileName() == "index.md"
    click("Back in the help", shown)
    assert shown.browser.source().fileName() == "use.md"
    shown.close()


def test_words_are_found_on_the_page_again_and_again(window, find, qtbot):
    qtbot.keyClick(find("Model page"), Qt.Key.Key_F1)
    (shown,) = window.findChildren(HelpWindow)
    shown.browser.open("guides/runs.md")
    words = find("Find in the help", where=shown)
    qtbot.keyClicks(words, "journal")
    places = []
    for _ in range(12):
        qtbot.keyClick(words, Qt.Key.Key_Return)
        cursor = shown.browser.textCursor()
        assert cursor.selectedText().lower() == "journal"
        places.append(cursor.position())
    assert len(set(places)) < 12 and len(set(places)) > 3
    shown.close()


def test_the_page_takes_the_theme(window, find, qtbot):
    qtbot.keyClick(find("Model page"), Qt.Key.Key_F1)
    (shown,) = window.findChildren(HelpWindow)
    shown.browser.open("start.md")
    light = shown.browser.grab().toImage().pixelColor(5, 5).lightness()
    theme().apply("dark")
    assert shown.browser.grab().toImage().pixelColor(5, 5).lightness() < 80 < light
    picture = shown.browser.loadResource(
        QTextDocument.ResourceType.ImageResource.value, QUrl("screenshots/run-light.png")
    )
    assert picture.pixelColor(20, 20).lightness() < 80
    theme().apply("light")
    shown.close()


def test_part_of_the_window_without_a_place_opens_the_page_of_contents(browser):
    browser.open("nothing.md")
    assert browser.source().fileName() == "index.md"
