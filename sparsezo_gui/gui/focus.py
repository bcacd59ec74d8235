"""The order in which Tab goes through a window: as its parts are laid out, also those that were made later.

Qt's own order is that in which widgets were made, so that a form that is made anew would come last.
"""

from __future__ import annotations

from collections.abc import Iterator

from PySide6.QtCore import Qt
from PySide6.QtWidgets import (
    QApplication,
    QGridLayout,
    QLayout,
    QMainWindow,
    QScrollArea,
    QSplitter,
    QStackedWidget,
    QTabWidget,
    QWidget,
)


def move_focus(window: QWidget, forwards: bool) -> bool:
    """Gives the focus to the next or previous part of ``window``; returns False if there is none."""
    stops, now = list(_stops(window)), QApplication.focusWidget()
    while now is not None and now not in stops and now is not window:
        now = now.parentWidget()
    if not stops or (now is not None and not window.isAncestorOf(now) and now is not window):
        return False
    place = stops.index(now) if now in stops else -1 if forwards else 0
    chosen = stops[(place + (1 if forwards else -1)) % len(stops)]
    chosen.setFocus(Qt.FocusReason.TabFocusReason if forwards else Qt.FocusReason.BacktabFocusReason)
    _show(chosen)
    return True


def _stops(widget: QWidget) -> Iterator[QWidget]:
    if not widget.isVisible():
        return
    if widget.focusPolicy() & Qt.FocusPolicy.TabFocus and widget.isEnabled() and widget.focusProxy() is None:
        yield widget
    for part in _parts(widget):
        yield from _stops(part)


def _parts(widget: QWidget) -> list[QWidget]:
    """What is in ``widget``, as one reads it."""
    if isinstance(widget, QTabWidget):
        found: list[QWidget | None] = [widget.tabBar(), widget.currentWidget()]
    elif isinstance(widget, QStackedWidget):
        found = [widget.currentWidget()]
    elif isinstance(widget, QScrollArea):
        found = [widget.widget()]
    elif isinstance(widget, QSplitter):
        found = [widget.widget(place) for place in range(widget.count())]
    else:
        layout = None if isinstance(widget, QMainWindow) else widget.layout()
        found = [*_laid_out(layout)] if layout is not None else []
        rest = [each for each in widget.children() if isinstance(each, QWidget) and each not in found]
        found += _by_place([each for each in rest if not each.isWindow()])
    return [each for each in found if each is not None]


def _by_place(parts: list[QWidget]) -> list[QWidget]:
    return sorted(parts, key=lambda each: (each.y(), each.x()))


def _laid_out(layout: QLayout) -> Iterator[QWidget]:
    places = list(range(layout.count()))
    if isinstance(layout, QGridLayout):
        places.sort(key=lambda place: layout.getItemPosition(place)[:2])  # type: ignore[index]
    for item in map(layout.itemAt, places):
        if item is not None and (widget := item.widget()) is not None:
            yield widget
        elif item is not None and (inner := item.layout()) is not None:
            yield from _laid_out(inner)


def _show(widget: QWidget) -> None:
    """Scrolls to ``widget``."""
    parent = widget.parentWidget()
    while parent is not None:
        if isinstance(parent, QScrollArea):
            parent.ensureWidgetVisible(widget)
        parent = parent.parentWidget()
