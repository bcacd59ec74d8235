"""The examples, and the exact text that the model will see."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PySide6.QtGui import QDragEnterEvent, QDropEvent, QShowEvent
from PySide6.QtWidgets import QCheckBox, QFileDialog, QGridLayout, QLineEdit, QPlainTextEdit, QWidget

from sparsezo_gui.formats import COMPRESSED, data_format, data_suffixes
from sparsezo_gui.gui import words
from sparsezo_gui.gui.problems import Problem
from sparsezo_gui.gui.session import Session
from sparsezo_gui.gui.theme import GRID
from sparsezo_gui.gui.widgets.basic import Page, button, card, label, restyle, row
from sparsezo_gui.gui.widgets.fields import Combo, SettingField
from sparsezo_gui.gui.widgets.histogram import Histogram, Shares
from sparsezo_gui.gui.widgets.plain import named
from sparsezo_gui.gui.widgets.table import DataTable
from sparsezo_gui.gui.widgets.tokens import TokenView
from sparsezo_gui.recipe.recipe import DataTable as DataSettings

_PATTERNS = (f"*{suffix}{packed}" for suffix in data_suffixes() for packed in ("", *COMPRESSED))
FILES = f"Data ({' '.join(_PATTERNS)});;All files (*)"
PAGE_SIZE = 50  # rows per page, as in the engine
NO_LENGTHS = "Shown once there are examples and the model is on this computer."
NO_TOKENIZER = "Unknown: the model's tokenizer cannot be used."
LIMITS = ("train", "validation", "test", "max_tokens", "leave_out_gaps", "merge_labels")
OFFERS = {"leave_out_gaps": "Skip incomplete rows", "merge_labels": "Merge these labels"}


class DataPage(Page):
    """Source and task at the top, rows with their column mapping, then the rendered examples and their statistics."""

    def __init__(self, session: Session, go: Callable[[str], None]) -> None:
        super().__init__("Data", "Choose examples, map their columns, and check what the model will see.")
        self._session = session
        self._page, self._pace = 0, words.Pace()
        self._asked: object = None
        self.setAcceptDrops(True)
        below = row(self._make_seen(), self._make_figures(), spacing=2 * GRID)
        below.setStretch(0, 3)
        below.setStretch(1, 2)
        self._results = QWidget()
        self._results.setLayout(below)
        for part in (self._make_source(), self._make_rows(), self._results):
            self.body.addWidget(part)
        self.body.addStretch(1)
        self.body.addLayout(row(None, button("Continue to Method", lambda: go("method"), role="primary")))
        session.tasks_changed.connect(self._fill_tasks)
        session.preview_changed.connect(self._show)
        session.recipe_changed.connect(self._follow)
        session.settled.connect(self._ask)
        self._fill_tasks()
        self._follow()
        self._show()

    def _make_source(self) -> QWidget:
        self._source = QLineEdit()
        self._source.setAccessibleName("Data source")
        self._source.setPlaceholderText("File, folder, Hub data set or 'starter'; or drop a file here")
        self._source.editingFinished.connect(self._typed)
        again = button("Reload", lambda: self._turn(0), name="Reload the data")
        again.setToolTip("Reads the file again, for example after you edit it.")
        self._task = Combo("Task")
        self._task.setSizeAdjustPolicy(Combo.SizeAdjustPolicy.AdjustToContents)
        self._task.currentIndexChanged.connect(
            lambda: self._set(task=self._task.currentData(), columns={}, template="", answers=[])
        )
        self._fault = label("", "error", wrap=True, name="Data problem")
        self._fault.hide()
        form = QGridLayout()
        form.setHorizontalSpacing(3 * GRID)
        form.setVerticalSpacing(GRID)
        source = row(
            self._source, button("File…", self._choose_file, image="file", name="Choose a data file"),
            button("Folder…", self._choose_folder, image="folder", name="Choose a data folder"),
            button("Starter", lambda: self._set_source("starter"), name="Use the bundled data"), again,
        )  # fmt: skip
        for line, (title, part) in enumerate((("Source", source), ("Task", row(self._task, None)))):
            form.addWidget(label(title, "heading"), line, 0)
            form.addLayout(part, line, 1)
        return card(form, self._fault)

    def _make_rows(self) -> QWidget:
        self._totals = label("", "dim", name="Examples by split")
        self._rows = label("", "dim", name="Rows shown")
        self._before = button("Previous", lambda: self._turn(-1), name="Previous page of rows")
        self._after = button("Next", lambda: self._turn(1), name="Next page of rows")
        self.table = DataTable()
        self.table.mapping.mapped.connect(self._mapped)
        self._rows_card = card(
            row(label("Rows", "heading"), self._totals, None, self._rows, self._before, self._after), self.table
        )
        return self._rows_card

    def _make_seen(self) -> QWidget:
        self.tokens = TokenView()
        self._template = QPlainTextEdit()
        self._template.setAccessibleName("Prompt template")
        self._template.setTabChangesFocus(True)
        self._template.setPlaceholderText("Leave empty for the task's prompt. Write {{ column }} to insert a column.")
        self._template.setFixedHeight(10 * GRID)
        self._chats = QCheckBox("Use the model's chat template")
        self._chats.setAccessibleName("Use the model's chat template")
        self._chats.setToolTip(DataSettings.model_fields["chat_template"].description)
        self._chats.clicked.connect(lambda wanted: self._set(chat_template=wanted))
        use = button("Apply template", lambda: self._set(template=self._template.toPlainText()))
        return card(
            label("What the model will see", "heading"),
            label("The loss covers the bold, underlined tokens; the rest is context.", "hint", wrap=True),
            self.tokens, GRID,
            label("Prompt template", "heading"), self._template, row(self._chats, None, use),
        )  # fmt: skip

    def _make_figures(self) -> QWidget:
        self.lengths, self.balance = Histogram("Example length", "tokens"), Shares("Class balance")
        self._longest = label("", "dim", wrap=True, name="Longest example")
        self._cut = label("", wrap=True, name="Truncated examples")
        self._balance_title = label("Answers", "heading")
        self._fields = {name: SettingField(name, DataSettings.model_fields[name]) for name in LIMITS}
        limits = QGridLayout()
        limits.setHorizontalSpacing(2 * GRID)
        for index, field in enumerate(self._fields.values()):
            field.edited.connect(self._limit)
            limits.addWidget(field, index // 2, index % 2)
            limits.setColumnStretch(index % 2, 1)
        return card(
            label("Length", "heading"), self.lengths, self._longest, self._cut, GRID,
            self._balance_title, self.balance, GRID,
            label("Examples to use", "heading"), limits, None,
        )  # fmt: skip

    # User actions

    def _limit(self, name: str, value: Any) -> None:
        fault = self._session.change("data", **{name: value})
        self._fields[name].set_fault(fault)

    def _set(self, **values: Any) -> None:
        self._page = 0
        fault = self._session.change("data", **values)
        if fault:
            self.banner.show_problem(Problem(fault))
            self._task.choose(self._session.recipe.data.task)
        else:
            self.banner.forget()

    def _set_source(self, source: str) -> None:
        task = {"task": "choice"} if source == "starter" else {}
        usual = dict.fromkeys(OFFERS, False)
        self._set(source=source, columns={}, answers=[], template="", **usual, **task)

    def _typed(self) -> None:
        text = self._source.text().strip()
        if self._source.isModified() and text and text != self._session.recipe.data.source:
            self._source.setModified(False)
            self._set_source(text)

    def _choose_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Choose a data file", "", FILES)
        if path:
            self._set_source(path)

    def _choose_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Choose a folder with train, validation and test files")
        if folder:
            self._set_source(folder)

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        """Accepts folders and files that can be read."""
        if _dropped(event):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        """Uses the first of them."""
        if found := _dropped(event):
            self._set_source(found[0])
            event.acceptProposedAction()

    def _mapped(self, name: str, part: str) -> None:
        columns = {p: c for p, c in self._mapping().items() if c != name and p != part}
        self._set(columns={**columns, **({part: name} if part else {})})

    def _turn(self, by: int) -> None:
        self._page = max(self._page + by, 0)
        self._session.preview(self._page)

    # Display

    def _ask(self) -> None:
        """Asks for a preview if the data or its tokens may have changed."""
        recipe = self._session.recipe
        wanted = (recipe.data, recipe.model.id, recipe.model.revision)
        if wanted != self._asked or "preview" in self._session.problems:
            self._asked = wanted
            self._session.preview(self._page)

    def showEvent(self, event: QShowEvent) -> None:
        """Asks for a preview if there is none yet."""
        super().showEvent(event)
        if self._session.engine_state != "waiting":
            self._ask()

    def _fill_tasks(self) -> None:
        tasks = self._tasks()
        current = self._session.recipe.data.task
        items = [(task.title, task.name) for task in tasks]
        if current not in [name for _, name in items]:
            items.insert(0, (named(current), current))
        self._task.fill(items, current)
        self._show_chats()

    def _follow(self) -> None:
        data = self._session.recipe.data
        self._source.setText(data.source)
        self._source.setModified(False)
        self._task.choose(data.task)
        if self._template.toPlainText() != data.template:
            self._template.setPlainText(data.template)
        self._show_chats()
        for name, field in self._fields.items():
            field.set_value(getattr(data, name))

    def _show_chats(self) -> None:
        data = self._session.recipe.data
        self._chats.setChecked(data.chat_template)
        self._chats.setVisible(any(task.name == data.task and task.chat_template for task in self._tasks()))

    def _tasks(self) -> list[Any]:
        return self._session.answers.get("tasks") or []

    def _mapping(self) -> dict[str, str]:
        """Column for each prompt field: from the recipe, else as detected."""
        preview = self._session.answers.get("preview")
        found = dict(preview.columns_of) if preview else {}
        return {**found, **self._session.recipe.data.columns}

    def _show(self) -> None:
        session = self._session
        if progress := session.busy.get("preview"):
            self._rows.setText(self._pace.words(progress))
            return
        preview, problem = session.answers.get("preview"), session.problems.get("preview")
        known = preview is not None and problem is None
        fault = problem.what if problem else preview.problem if preview else ""
        self._fault.setVisible(bool(fault))
        self._fault.setText(fault)
        self._results.setVisible(known)
        self._rows_card.setVisible(problem is None)
        self._show_banner(preview if known else None, problem)
        if not known:
            loaded = session.engine_state == "ready"
            waiting = "Reading the data…" if loaded else "Rows appear once the engine is loaded."
            self._rows.setText("" if problem else waiting)
            self._totals.setText("")
            self.table.show_page((), (), 0, (), {})
            for control in (self._before, self._after):
                control.setEnabled(False)
            return
        task = next((t for t in self._tasks() if t.name == session.recipe.data.task), None)
        parts = list(task.columns) if task else []
        first, total = preview.page * PAGE_SIZE, preview.available
        last = first + len(preview.rows)
        self.table.show_page(preview.columns, preview.rows, first, parts, self._mapping())
        shown = f"{words.count(first + 1)} to {words.count(last)} of {words.count(total)}"
        self._rows.setText(shown if preview.rows else "No rows")
        self._before.setEnabled(first > 0)
        self._after.setEnabled(last < total)
        self._totals.setText(" · ".join(f"{name} {words.count(count)}" for name, count in preview.totals.items()))
        self.tokens.show_examples(preview.examples, preview.longest_tokens > 0, preview.left_out)
        self._show_figures(preview)

    def _show_banner(self, preview: Any, problem: Problem | None) -> None:
        """Bugs, else a suggested mapping, else notices; other problems are shown below the source."""
        if problem is not None or preview is None:
            self.banner.follow(problem if problem and problem.defect else None)
        elif preview.suggestion:
            said = " and ".join(f"column '{name}' as {part}" for part, name in preview.suggestion.items())
            columns = {**self._session.recipe.data.columns, **preview.suggestion}
            self.banner.follow(
                Problem(f"Some prompt fields have no column yet. Suggested: {said}."), "info",
                ("Use suggestion", lambda: self._set(columns=columns)),
            )  # fmt: skip
        else:
            self._show_notices(preview)

    def _show_notices(self, preview: Any) -> None:
        """An unusable tokenizer, missing values, and the notices of a run, with a button that fixes the problem."""
        told = ["Some rows are incomplete; see below."] if preview.problem and preview.offer else []
        told += [notice.text for notice in preview.notices]
        if preview.tokenizer_problem:
            why = preview.tokenizer_problem.split("\n")[0]  # the Model page shows all of it
            told.insert(0, f"Tokens cannot be shown. {why}")
        warns = preview.problem or preview.tokenizer_problem or any(n.level == "warning" for n in preview.notices)
        offer, mark = preview.offer, "• " if len(told) > 1 else ""
        action = (OFFERS[offer], lambda: self._set(**{offer: True})) if offer else None
        text = "\n".join(f"{mark}{each}" for each in told)
        self.banner.follow(Problem(text) if told else None, "warning" if warns else "info", action)

    def _show_figures(self, preview: Any) -> None:
        limit = self._session.recipe.data.max_tokens
        bars, low = [], 0
        for high, number in preview.lengths:
            bars.append((low, high, number))
            low = high
        self.lengths.show_bars(bars, limit)
        self.lengths.setVisible(bool(bars))
        longest, cut = preview.longest_tokens, preview.cut
        unknown = NO_TOKENIZER if preview.tokenizer_problem else NO_LENGTHS
        self._longest.setText(f"Longest: {words.count(longest)} tokens." if longest else unknown)
        text = "No example is truncated."
        if cut:
            many = "example exceeds" if cut == 1 else "examples exceed"
            text = f"{words.count(cut)} {many} {limit} tokens; the beginning is cut off."
        self._cut.setText(text)
        self._cut.setVisible(longest > 0)
        restyle(self._cut, role="error" if cut else "dim")
        classes = preview.classes or {}
        self.balance.show_shares(list(classes.items()))
        for widget in (self.balance, self._balance_title):
            widget.setVisible(bool(classes))


def _dropped(event: QDropEvent) -> list[str]:
    """Local folders, and files of a kind that can be read."""
    paths = [url.toLocalFile() for url in event.mimeData().urls() if url.isLocalFile()]
    return [path for path in paths if os.path.isdir(path) or data_format(Path(path))]
