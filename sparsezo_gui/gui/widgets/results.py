"""Results of a run: metrics before and after, notices, and examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PySide6.QtCore import QModelIndex, QPersistentModelIndex, QSize, Qt
from PySide6.QtWidgets import (
    QGridLayout,
    QListWidget,
    QListWidgetItem,
    QSizePolicy,
    QStackedWidget,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QWidget,
)

from sparsezo_gui.gui import formatting
from sparsezo_gui.gui.record import RunRecord, StepNotice
from sparsezo_gui.gui.theme import GRID, icon, theme
from sparsezo_gui.gui.widgets.basic import Card, add, button, clear, label, row
from sparsezo_gui.gui.widgets.examples import KINDS, ExamplesDialog
from sparsezo_gui.gui.widgets.fields import Combo
from sparsezo_gui.gui.widgets.safe_text import safe_sentence, safe_text
from sparsezo_gui.recipe.events import Examples
from sparsezo_gui.recipe.metrics import METRICS, metric

NO_EXAMPLES = "Examples appear with the next evaluation."
NO_CHANGES = "Answers that differ from the base model's appear with the next evaluation."


class Metrics(QWidget):
    """A small table: metric, base model, tuned model, and 'better' or 'worse'."""

    def __init__(self) -> None:
        super().__init__()
        self.setAccessibleName("Metrics before and after")
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, GRID)
        self._grid.setHorizontalSpacing(GRID + 4)
        self._grid.setVerticalSpacing(GRID // 2)
        self._grid.setColumnStretch(0, 1)
        self.show_record(RunRecord())

    def show_record(self, record: RunRecord) -> None:
        """Shows the base model's evaluation and the latest one."""
        clear(self._grid)
        base, last = record.before_after()
        one = base or last
        if one is None:
            self._grid.addWidget(label("Evaluations appear here: the base model first, then the tuned one.", "hint",
                                       wrap=True), 0, 0)  # fmt: skip
            return
        heads = ("", "base", f"step {formatting.count(last.step)}" if last else "", "")
        for place, text in enumerate(heads):
            self._put(0, place, text, "dim")
        names = [name for name in one.metrics if name not in ("examples", "seconds")]
        known = [*(name for name in METRICS if name in names), *(name for name in names if name not in METRICS)]
        for line, name in enumerate(known, 1):
            before = base.metrics.get(name) if base else None
            after = last.metrics.get(name) if last else None
            self._put(line, 0, metric(name).title, "")
            self._put(line, 1, formatting.metric(name, before) if before is not None else "–", "")
            self._put(line, 2, formatting.metric(name, after) if after is not None else "", "heading")
            verdict = ""
            if before is not None and after is not None and metric(name).sign and before != after:
                verdict = "better" if (after - before) * metric(name).sign > 0 else "worse"
            self._put(line, 3, verdict, "dim")
        examples = one.metrics.get("examples")
        if examples:
            text = formatting.split(one) + ("" if one.partial else f", {formatting.count(examples)} examples")
            self._grid.addWidget(label(text, "hint"), len(names) + 1, 0, 1, 4)
        if (general := record.general_text) is not None:
            cells = ("General text", *(formatting.count(each) if each >= 1000 else f"{each:.4g}"
                                       for each in (general.base, general.tuned)))  # fmt: skip
            for place, text in enumerate(cells):
                self._put(len(names) + 2, place, text, "heading" if place == 2 else "")
            self._put(len(names) + 2, 3, formatting.change(general.increase), "dim")
            self._grid.addWidget(label("Perplexity; lower is better", "hint"), len(names) + 3, 0, 1, 4)

    def _put(self, line: int, place: int, text: str, role: str) -> None:
        part = label(text, role)
        if place in (1, 2):
            part.setAlignment(Qt.AlignmentFlag.AlignRight)
        self._grid.addWidget(part, line, place)


class _Wrapped(QStyledItemDelegate):
    """Measures wrapped text including the style sheet's padding, which Qt ignores."""

    def sizeHint(self, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex) -> QSize:
        """See the class."""
        inside = QStyleOptionViewItem(option)
        inside.rect = option.rect.adjusted(0, 0, -3 * GRID, 0)
        return super().sizeHint(inside, index)


class _List(QListWidget):
    """Wrapped texts, each with an icon, redrawn when the theme changes."""

    def __init__(self, name: str, empty: str) -> None:
        super().__init__()
        self.setAccessibleName(name)
        self.setItemDelegate(_Wrapped(self))
        self.setWordWrap(True)
        self.setResizeMode(QListWidget.ResizeMode.Adjust)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._empty = empty
        self._lines: list[tuple[str, str, str]] = []
        theme().changed.connect(self._write)
        self._write()

    def _show(self, lines: list[tuple[str, str, str]], again: bool = False) -> None:
        """Shows lines of text, icon and colour; ``again`` also if there are still none, as the reason may differ."""
        if lines != self._lines or (again and not lines):
            self._lines = lines
            self._write()

    def _write(self) -> None:
        self.clear()
        for text, image, tint in self._lines:
            item = QListWidgetItem(safe_text(text))
            item.setIcon(icon(image, tint))
            self.addItem(item)
        if not self._lines:
            item = QListWidgetItem(self._empty)
            item.setFlags(Qt.ItemFlag.NoItemFlags)
            self.addItem(item)


class NoticeList(_List):
    """Newest first; warnings have their own icon."""

    def __init__(self) -> None:
        super().__init__("Notices", "No notices.")

    def show_notes(self, notes: Sequence[StepNotice]) -> None:
        """Shows notices."""
        lines = []
        for note in reversed(notes):
            place = f"Step {formatting.count(note.step)}: " if note.step else ""
            warns = note.level == "warning"
            text = f"{'Warning. ' if warns else ''}{place}{safe_sentence(note.text)}"
            lines.append((text, "warning" if warns else "info", "warning" if warns else "dim"))
        self._show(lines)


class ExampleList(_List):
    """The worst, the best or the changed examples of the last evaluation, below the step and split it was on."""

    def __init__(self) -> None:
        super().__init__("Examples", NO_EXAMPLES)

    def show_examples(self, found: Examples | None, kind: str) -> None:
        """Shows the examples of one of the `KINDS`."""
        examples = getattr(found, kind) if found else []
        self._empty = NO_CHANGES if kind == "changed" else NO_EXAMPLES
        self._show([
            (f"{_outcome(each)}, loss {each['loss']:.3g}\n{each['prompt'].strip()}",
             "evaluate" if each["answer"] in ("", each["expected"]) else "close", "dim")
            for each in examples
        ], again=True)  # fmt: skip


def _outcome(example: dict[str, Any]) -> str:
    """The expected and the actual answer, and what the base model answered."""
    expected, answer = (str(example[key]) or "nothing" for key in ("expected", "answer"))
    if not example["answer"]:
        return f"expected: {expected}"
    before = f", before: {example['before'] or 'nothing'}" if "before" in example else ""
    return (f"{answer}, as expected" if answer == expected else f"{answer} instead of {expected}") + before


class Results(Card):
    """Metrics before and after, and below them the notices or examples of one kind."""

    def __init__(self) -> None:
        super().__init__()
        self.metrics, self.notices, self.examples = Metrics(), NoticeList(), ExampleList()
        self._found: Examples | None = None
        lists = QStackedWidget()
        lists.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Ignored)
        lists.setMinimumHeight(12 * GRID)
        lists.addWidget(self.notices)
        lists.addWidget(self.examples)
        self._which = Combo("List to show")
        self._which.fill([("Notices", ""), *((title, kind) for kind, title in KINDS.items())], "")
        self._which.currentIndexChanged.connect(lambda place: lists.setCurrentIndex(min(place, 1)))
        self._which.currentIndexChanged.connect(self._show_examples)
        self._table = button("Table", self.show_table, role="flat", name="Examples as a table")
        self._of = label("", "hint", name="Evaluation of the examples")
        choice = row(self._which, self._table)
        choice.setStretch(0, 1)
        add(self.box, label("Before and after", "heading"), self.metrics, choice, self._of, lists)
        self.box.setStretch(4, 1)
        theme().changed.connect(self._fit)
        self._fit()
        self._show_examples()

    def _fit(self) -> None:
        """Larger text takes more room."""
        self.setMinimumWidth(int(36 * GRID * min(theme().text_scale, 1.35)))

    def sizeHint(self) -> QSize:
        """No wider than needed beside the plots."""
        return QSize(self.minimumWidth(), super().sizeHint().height())

    def show_record(self, record: RunRecord) -> None:
        """Shows what is known of a run."""
        self._found = record.examples
        self.metrics.show_record(record)
        self.notices.show_notes(record.notes)
        self._show_examples()

    def _show_examples(self) -> None:
        found, kind = self._found, self._which.currentData()
        self.examples.show_examples(found, kind or next(iter(KINDS)))
        self._table.setVisible(found is not None)
        self._of.setVisible(bool(kind and found))
        if found is not None:
            self._of.setText(f"Step {formatting.count(found.step)}, {found.split}")

    def show_table(self) -> None:
        """Shows the examples of the last evaluation as tables."""
        if self._found is not None:
            ExamplesDialog(self._found, self).open()
