"""The help: the pages of the documentation in a window, without a network, and at the place that is asked about.

A place is a page with a heading, as in 'guides/runs.md#share-a-run', or a setting, as in 'mask/sensitive/density'.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PySide6.QtCore import Qt, QUrl
from PySide6.QtGui import (
    QColor,
    QImage,
    QKeySequence,
    QShortcut,
    QTextBlock,
    QTextCursor,
    QTextDocument,
    QTextFormat,
    QTextFrameFormat,
    QTextTable,
)
from PySide6.QtWidgets import QDialog, QLineEdit, QTextBrowser, QVBoxLayout, QWidget

from sparsezo_gui import resources
from sparsezo_gui.gui.theme import GRID, colours, theme
from sparsezo_gui.gui.widgets.basic import button, row

HOME = "index.md"
SETTINGS = "reference/methods.md"
PLACE = "helpPlace"
"""The property of a widget that names the place about it."""
_LIGHT, _DARK = "-light.png", "-dark.png"


def show_help(near: QWidget, place: str = "") -> None:
    """Shows the help on ``place``, by default on what ``near`` is part of."""
    window = near.window()
    shown = window if isinstance(window, HelpWindow) else window.findChild(HelpWindow) or HelpWindow(window)
    shown.show()  # before the page, so that it is laid out, and the place can be scrolled to
    shown.browser.open(place or place_of(near))
    shown.raise_()
    shown.activateWindow()


def place_of(widget: QWidget) -> str:
    """The place about the nearest part of the window that has one."""
    part: QWidget | None = widget
    while part is not None:
        if place := part.property(PLACE):
            return str(place)
        part = part.parentWidget()
    return HOME


def slug(heading: str) -> str:
    """The fragment of a link to ``heading``, as the site and code hosts make it."""
    plain = unicodedata.normalize("NFKD", heading).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())


class HelpBrowser(QTextBrowser):
    """Shows pages, and only files of the documentation; links to the web open in the user's browser."""

    def __init__(self) -> None:
        super().__init__()
        self.setAccessibleName("Help page")
        self.setOpenExternalLinks(True)
        self.document().setDocumentMargin(3 * GRID)
        self.sourceChanged.connect(self._loaded)
        theme().changed.connect(self.repaint_page)

    def open(self, place: str) -> None:
        """Shows a place; the page with all contents if there is none of that name."""
        name, _, fragment = (place if ".md" in place else f"{SETTINGS}#{place}").partition("#")
        url = QUrl.fromLocalFile(str(resources.DOCS / name))
        if not Path(url.toLocalFile()).is_file():
            url, fragment = QUrl.fromLocalFile(str(resources.DOCS / HOME)), ""
        url.setFragment(fragment)
        self.setSource(url)

    def repaint_page(self) -> None:
        """Shows the page in the colours of the theme."""
        if not self.source().isEmpty():
            place = self.verticalScrollBar().value()
            self.reload()
            self.verticalScrollBar().setValue(place)

    def loadResource(self, kind: int, name: QUrl | str) -> Any:
        """See `QTextBrowser`: a page, or a picture of the theme that is as wide as the text."""
        path = Path(self.source().resolved(QUrl(name)).toLocalFile())
        if not path.resolve().is_relative_to(resources.DOCS.resolve()) or not path.is_file():
            return None
        if kind != QTextDocument.ResourceType.ImageResource.value:
            return path.read_text(encoding="utf-8")
        image = QImage(str(path).replace(_LIGHT, _DARK) if colours().dark else str(path))
        ratio = self.devicePixelRatioF()
        width = min(image.width(), int((self.width() - 10 * GRID) * ratio))  # beside margins and scroll bar
        image = image.scaledToWidth(max(1, width), Qt.TransformationMode.SmoothTransformation)
        image.setDevicePixelRatio(ratio)
        return image

    def _loaded(self, url: QUrl) -> None:
        self._format()
        found = self.find_place(url.fragment()) if url.hasFragment() else None
        if found is None:
            return
        cursor = QTextCursor(found)
        self.setTextCursor(cursor)
        above = 2 * GRID
        if table := cursor.currentTable():  # a setting: the whole row is marked, below its heading
            above = self.viewport().height() // 3
            for place in range(table.columns()):
                _edge(table, table.cellAt(cursor).row(), place, colours().accent_soft)
        bar = self.verticalScrollBar()
        bar.setValue(bar.value() + self.cursorRect(cursor).top() - above)

    def find_place(self, fragment: str) -> QTextBlock | None:
        """The heading, or the row of the setting 'table/rule/key', on this page."""
        if "/" not in fragment:
            headings = (block for block in self._blocks() if block.blockFormat().headingLevel())
            return next((block for block in headings if slug(block.text()) == fragment), None)
        table, rule, key = fragment.split("/")
        wanted, heading = (f"[{table}] {rule}".strip(), f"[{table}], every rule"), ""
        for block in self._blocks():
            if block.blockFormat().headingLevel():
                heading = block.text()
            elif heading in wanted and block.text() == key:
                return block
        return None

    def _blocks(self) -> Iterator[QTextBlock]:
        block = self.document().begin()
        while block.isValid():
            yield block
            block = block.next()

    def _format(self) -> None:
        """Grounds for programs, lines in tables, air around headings."""
        cursor = QTextCursor(self.document())
        cursor.beginEditBlock()
        for block in self._blocks():
            cursor.setPosition(block.position())
            form = block.blockFormat()
            if form.hasProperty(QTextFormat.Property.BlockCodeFence):
                form.setBackground(QColor(colours().raised))
                form.setNonBreakableLines(False)
                cursor.setBlockFormat(form)
            elif form.headingLevel():
                form.setTopMargin(2 * GRID)
                form.setBottomMargin(GRID // 2)
                cursor.setBlockFormat(form)
        for frame in self.document().rootFrame().childFrames():
            if isinstance(frame, QTextTable):
                _lines(frame)
        cursor.endEditBlock()


def _lines(table: QTextTable) -> None:
    """Lines between the rows of a table, and nothing else."""
    form = table.format()
    form.setBorder(0)
    form.setCellPadding(GRID // 2)
    form.setCellSpacing(0)
    form.setTopMargin(GRID // 2)
    form.setBottomMargin(GRID)
    table.setFormat(form)
    for line in range(table.rows()):
        for place in range(table.columns()):
            _edge(table, line, place)


def _edge(table: QTextTable, line: int, place: int, ground: str = "") -> None:
    """A line below a cell, and its ground."""
    cell = table.cellAt(line, place)
    form = cell.format().toTableCellFormat()
    form.setBottomBorder(1)
    form.setBottomBorderStyle(QTextFrameFormat.BorderStyle.BorderStyle_Solid)
    form.setBottomBorderBrush(QColor(colours().border))
    if ground:
        form.setBackground(QColor(ground))
    cell.setFormat(form)


class HelpWindow(QDialog):
    """The pages, with the way back, and a search in the page. It stays open beside the window."""

    def __init__(self, over: QWidget) -> None:
        super().__init__(over)
        self.setWindowTitle("Help – SparseZO")
        self.resize(112 * GRID, 96 * GRID)
        self.browser = HelpBrowser()
        back = button("Back", self.browser.backward, name="Back in the help")
        forward = button("Forward", self.browser.forward, name="Forward in the help")
        contents = button("Contents", lambda: self.browser.open(HOME), name="Contents of the help")
        for each, enabled in ((back, self.browser.backwardAvailable), (forward, self.browser.forwardAvailable)):
            each.setEnabled(False)
            enabled.connect(each.setEnabled)
        for each in (back, forward, contents):
            each.setAutoDefault(False)
        self._words = QLineEdit()
        self._words.setPlaceholderText("Find on this page")
        self._words.setAccessibleName("Find in the help")
        self._words.setClearButtonEnabled(True)
        self._words.setMaximumWidth(32 * GRID)
        self._words.returnPressed.connect(self.find_next)
        QShortcut(QKeySequence.StandardKey.Find, self, self._words.setFocus)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(2 * GRID, 2 * GRID, 2 * GRID, 2 * GRID)
        layout.addLayout(row(contents, back, forward, None, self._words))
        layout.addWidget(self.browser, 1)
        self.browser.setFocus()

    def find_next(self) -> None:
        """Selects the next place with these words, from the top again after the last one."""
        if self._words.text() and not self.browser.find(self._words.text()):
            self.browser.moveCursor(QTextCursor.MoveOperation.Start)
            self.browser.find(self._words.text())
