"""The small building blocks of every page."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QEvent, QObject, QSize, Qt, Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import (
    QBoxLayout,
    QFrame,
    QHBoxLayout,
    QLayout,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from sparsezo_gui.gui.theme import GRID, icon, theme
from sparsezo_gui.gui.widgets.safe_text import Label, tooltip
from sparsezo_gui.recipe.events import Progress

WIDEST = 1100
Part = QWidget | QLayout | int | None
"""Of a row, column or card: None is a stretch, a number is space."""


def label(text: str = "", role: str = "", wrap: bool = False, name: str = "", read: bool = False) -> Label:
    """A plain-text label; ``role`` is a word of the style sheet, ``read`` is as for `Label`."""
    result = Label(text, read)
    result.setWordWrap(wrap)
    if role:
        result.setProperty("role", role)
    if name:
        result.setAccessibleName(name)
    return result


def badge(name: str) -> Label:
    """A short framed verdict, as high as its text."""
    result = label("", "badge", name=name)
    result.setSizePolicy(QSizePolicy.Policy.Maximum, QSizePolicy.Policy.Fixed)
    return result


class Button(QPushButton):
    """A push button whose icon follows the theme."""

    def __init__(self, text: str, role: str = "", image: str = "") -> None:
        super().__init__(text)
        self._image, self._tint = image, {"primary": "on_accent", "flat": "accent", "info": "dim"}.get(role, "text")
        self.setSizePolicy(QSizePolicy.Policy.Maximum, QSizePolicy.Policy.Fixed)
        if role:
            self.setProperty("role", role)
        if image:
            self.setIconSize(QSize(18, 18))
            self.repaint_icon()
            theme().changed.connect(self.repaint_icon)

    def setToolTip(self, text: str) -> None:
        """Shows ``text``, never as mark-up: a reason may quote what a stranger wrote."""
        super().setToolTip(tooltip(text) if "<" in text or "&" in text else text)

    def set_image(self, image: str) -> None:
        """Changes the icon."""
        self._image = image
        self.repaint_icon()

    def repaint_icon(self) -> None:
        """Redraws the icon in the theme's colours."""
        self.setIcon(icon(self._image, self._tint))


def button(
    text: str, clicked: Callable[[], object], *, role: str = "", image: str = "", tip: str = "", name: str = ""
) -> Button:
    """A push button; ``image`` names an icon, ``name`` is its accessible name if not the text."""
    result = Button(text, role, image)
    result.setAccessibleName(name or text)
    result.setToolTip(tip)
    result.clicked.connect(lambda: clicked())
    return result


class ProgressBar(QProgressBar):
    """A thin bar without text."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.setTextVisible(False)
        self.setAccessibleName(name)

    def show_fraction(self, fraction: float) -> None:
        """Shows how much of all work is done, 0 … 1."""
        self.setRange(0, 1000)
        self.setValue(int(1000 * fraction))

    def show_progress(self, progress: Progress | None) -> None:
        """Shows how far work is; None or an unknown total only shows that it is in progress."""
        self.setRange(0, progress.total if progress else 0)
        self.setValue(progress.done if progress else 0)


class Card(QFrame):
    """A framed group of the parts in ``box``."""

    def __init__(self) -> None:
        super().__init__()
        self.setProperty("role", "card")
        self.box = QVBoxLayout(self)
        self.box.setContentsMargins(2 * GRID, 2 * GRID, 2 * GRID, 2 * GRID)
        self.box.setSpacing(GRID)


def card(*parts: Part) -> Card:
    """A framed group."""
    result = Card()
    add(result.box, *parts)
    return result


def add(layout: QBoxLayout, *parts: Part) -> None:
    """Adds widgets and layouts in order; None is a stretch, a number is space."""
    for part in parts:
        if isinstance(part, QWidget):
            layout.addWidget(part)
        elif isinstance(part, QLayout):
            layout.addLayout(part)
        elif part is None:
            layout.addStretch(1)
        else:
            layout.addSpacing(part)


def row(*parts: Part, spacing: int = GRID) -> QHBoxLayout:
    """Parts side by side."""
    result = QHBoxLayout()
    result.setContentsMargins(0, 0, 0, 0)
    result.setSpacing(spacing)
    add(result, *parts)
    return result


def column(*parts: Part, spacing: int = GRID) -> QVBoxLayout:
    """Parts stacked vertically."""
    result = QVBoxLayout()
    result.setContentsMargins(0, 0, 0, 0)
    result.setSpacing(spacing)
    add(result, *parts)
    return result


def clear(layout: QLayout) -> None:
    """Empties a layout and deletes its widgets."""
    while item := layout.takeAt(0):
        if widget := item.widget():
            widget.hide()
            widget.setParent(None)
            widget.deleteLater()
        elif inner := item.layout():
            clear(inner)


def restyle(widget: QWidget, **properties: object) -> None:
    """Sets properties that the style sheet uses, and restyles the widget if one changed."""
    changed = False
    for name, value in properties.items():
        if widget.property(name) != value:
            widget.setProperty(name, value)
            changed = True
    if changed:
        widget.style().unpolish(widget)
        widget.style().polish(widget)


class Empty(QWidget):
    """In place of a list without entries: a title, a sentence, and the one thing to do."""

    def __init__(self, title: str, sentence: str, action: str, call: Callable[[], object]) -> None:
        super().__init__()
        self.setAccessibleName(title)
        head, text = label(title, "figure"), label(sentence, "dim", wrap=True)
        for part in (head, text):
            part.setAlignment(Qt.AlignmentFlag.AlignHCenter)
        do = button(action, call)
        self.setLayout(column(None, head, text, GRID, row(None, do, None), None))


class Page(QWidget):
    """A page: title, one sentence, a banner for problems, and a body that scrolls if it does not fit."""

    banner_last = False  # whether the banner is at the end of the page, so that nothing at the top moves when it comes
    widest = WIDEST  # pixels of the content at most, so that lines stay readable on large screens; 0: all there are
    go_to = Signal(str)  # the name of another page to show
    step_selected = Signal(object, int)  # folder of a run, and its step, which the chat is to answer from
    export_wanted = Signal(object, int)  # the same, to be exported
    ask_wanted = Signal(object, int)  # the same, to be asked now

    def __init__(self, title: str, sentence: str) -> None:
        super().__init__()
        from sparsezo_gui.gui.widgets.banner import Banner

        self.setAccessibleName(f"{title} page")
        self.banner = Banner()
        self.sentence = label(sentence, "dim", wrap=True)
        self.header = row(label(title, "title"), 2 * GRID, self.sentence)
        self.header.setStretch(2, 1)
        self._top = top = column(self.header)
        self._end = column()
        (self._end if self.banner_last else top).addWidget(self.banner)
        self.banner.installEventFilter(self)
        self.body = QVBoxLayout()
        self.body.setSpacing(2 * GRID)
        inner = QWidget()
        inner.setProperty("role", "page")
        inner.setLayout(self.body)
        area = self._area = QScrollArea()
        area.setWidgetResizable(True)
        area.setFrameShape(QFrame.Shape.NoFrame)
        area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        area.setWidget(inner)
        area.verticalScrollBar().rangeChanged.connect(self._set_margins)
        outer = column(top, area, self._end, spacing=0)
        outer.setStretch(1, 1)
        self.setLayout(outer)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Keeps the content within its width."""
        super().resizeEvent(event)
        self._set_margins()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """A banner that comes or goes."""
        if watched is self.banner and event.type() in (QEvent.Type.Show, QEvent.Type.Hide):
            self._set_margins()
        return super().eventFilter(watched, event)

    def _set_margins(self) -> None:
        """The scroll bar lies in the margin, so that pages with and without one end alike."""
        margin = max(self.width() - self.widest if self.widest else 0, 6 * GRID) - 3 * GRID
        bar = self._area.verticalScrollBar()
        taken = bar.sizeHint().width() if bar.maximum() else 0
        self._top.setContentsMargins(3 * GRID, 2 * GRID, margin, GRID)
        self.body.setContentsMargins(3 * GRID, GRID, margin - taken, 2 * GRID)
        self._end.setContentsMargins(3 * GRID, 0, margin, 0 if self.banner.isHidden() else GRID)
