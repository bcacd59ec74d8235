"""The rows of the data: a page of them in a table, how many each split has, and those that are left out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QKeySequence, QShortcut
from PySide6.QtWidgets import QMenu, QPushButton, QWidget

from sparsezo_gui.answers import DataPreview
from sparsezo_gui.gui.formatting import count
from sparsezo_gui.gui.theme import GRID
from sparsezo_gui.gui.widgets.basic import Card, add, button, label, row
from sparsezo_gui.gui.widgets.safe_text import cut, menu_text
from sparsezo_gui.gui.widgets.sides import Sides
from sparsezo_gui.gui.widgets.table import DataTable

PAGE_SIZE = 50  # rows per page, as in the engine
LISTED = 20  # rows in the menu of those that are left out
HINT = "To leave rows out, select them and press Delete."


class DataRows(Card):
    """Signals what the user wants; `show_left_out` says what the recipe leaves out."""

    paged = Signal(int)  # by how many pages
    left_out = Signal(tuple)  # names of all the rows to leave out

    def __init__(self) -> None:
        super().__init__()
        self._totals = label("", "dim", name="Examples by split")
        self._shown = label("", "dim", name="Rows shown")
        self._before = button("Previous", lambda: self.paged.emit(-1), name="Previous page of rows")
        self._after = button("Next", lambda: self.paged.emit(1), name="Next page of rows")
        self.table = DataTable()
        self.table.leave_out.connect(self._leave_out)
        self.table.put_back.connect(self.put_back)
        self.bar = LeftOutBar()
        self.bar.put_back.connect(self.put_back)
        undo = QShortcut(QKeySequence.StandardKey.Undo, self, context=Qt.ShortcutContext.WidgetWithChildrenShortcut)
        undo.activated.connect(self.bar.undo)
        head = Sides(row(label("Rows", "heading"), self._totals, None), row(self._shown, self._before, self._after),
                     spacing=GRID)  # fmt: skip
        head.box.setStretch(0, 1)
        add(self.box, head, self.table, self.bar)

    def wait(self, words: str) -> None:
        """Shows no rows, and why."""
        self.say(words)
        self._totals.setText("")
        self.table.show_page((), (), 0, (), {})
        for control in (self._before, self._after):
            control.setEnabled(False)

    def say(self, words: str) -> None:
        """Shows ``words`` instead of which rows there are."""
        self._shown.setText(words)

    def show_preview(self, shown: DataPreview, parts: Sequence[str], mapping: dict[str, str]) -> None:
        """Shows a page of rows; columns can be used as ``parts``, and ``mapping`` gives the column of each."""
        first, total = shown.page * PAGE_SIZE, shown.available
        last = first + len(shown.rows)
        self.table.show_page(shown.columns, shown.rows, first, parts, mapping, shown.names)
        self._shown.setText(f"{count(first + 1)} to {count(last)} of {count(total)}" if shown.rows else "No rows")
        self._before.setEnabled(first > 0)
        self._after.setEnabled(last < total)
        self._totals.setText(" · ".join(f"{name} {count(number)}" for name, number in shown.totals.items()))
        self.bar.texts = dict(shown.left_out_rows)

    def show_left_out(self, names: tuple[str, ...]) -> None:
        """Marks the rows of these names, in the table and below."""
        self.table.mark(names)
        self.bar.show_names(names)

    def _leave_out(self, names: Sequence[str]) -> None:
        before, page = self.bar.names, self.table.rows
        self.bar.texts |= {name: " · ".join(cells) for name, cells in zip(page.names, page.rows, strict=False)}
        self.left_out.emit((*before, *(name for name in names if name not in before)))
        self.bar.note([name for name in self.bar.names if name not in before])

    def put_back(self, names: Sequence[str]) -> None:
        """Leaves these no longer out."""
        self.left_out.emit(tuple(name for name in self.bar.names if name not in names))


class LeftOutBar(QWidget):
    """How many rows are left out, by their names, and buttons that put back the last ones, or those chosen in a menu.
    ``texts`` says how each row begins."""

    put_back = Signal(list)

    def __init__(self) -> None:
        super().__init__()
        self.names: tuple[str, ...] = ()
        self.texts: dict[str, str] = {}
        self._last: list[list[str]] = []  # what was left out at a time
        self._count = label(HINT, "hint", name="Rows left out")
        self._undo = button("Put back", self.undo, name="Put back")
        self._more = QPushButton("Show them")
        self._more.setAccessibleName("Show the rows left out")
        self._menu = QMenu(self)
        self._menu.aboutToShow.connect(self._fill)
        self._more.setMenu(self._menu)
        self.setLayout(row(self._count, self._undo, self._more, None))
        self.show_names(())

    def show_names(self, names: tuple[str, ...]) -> None:
        """Shows how many these are."""
        self.names = names
        self._last = [kept for each in self._last if (kept := [name for name in each if name in names])]
        for control in (self._undo, self._more):
            control.setVisible(bool(names))
        self._count.setText(f"{rows(len(names))} left out." if names else HINT)
        last = len(self._last[-1]) if self._last else len(names)
        of_more = "Put back the last one" if last == 1 else f"Put back the last {count(last)}"
        self._undo.setText("Put back" if last == len(names) else of_more)
        self._undo.setToolTip(f"{QKeySequence(QKeySequence.StandardKey.Undo).toString()}: the rows are used again.")

    def note(self, names: Iterable[str]) -> None:
        """These were left out together, and are put back together."""
        if names := list(names):
            self._last.append(names)
            self.show_names(self.names)

    def undo(self) -> None:
        """Puts back the rows that were left out last, or all of them if that was in another session."""
        if self.names:
            self.put_back.emit(self._last[-1] if self._last else list(self.names))

    def _fill(self) -> None:
        self._menu.clear()
        for name in self.names[::-1][:LISTED]:
            text = cut(self.texts.get(name, "Not in the data").replace("\n", " "), 60)
            self._menu.addAction(menu_text(f"Put back: {text}"), partial(self.put_back.emit, [name]))
        self._menu.addSeparator()
        self._menu.addAction(f"Put back all {rows(len(self.names))}", partial(self.put_back.emit, list(self.names)))


def rows(number: int) -> str:
    """'1 row', '2 rows'."""
    return "1 row" if number == 1 else f"{count(number)} rows"
