"""The examples, and the exact text that the model will see."""

from __future__ import annotations

from typing import Any

from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QCheckBox, QFileDialog, QGridLayout, QLineEdit, QWidget

from sparsezo_gui.answers import DataPreview, Task
from sparsezo_gui.gui import formatting, inputs
from sparsezo_gui.gui.data_advice import FIXES, about
from sparsezo_gui.gui.problems import Problem
from sparsezo_gui.gui.requests import ListTasks, PreviewData
from sparsezo_gui.gui.theme import GRID
from sparsezo_gui.gui.widgets.basic import Page, button, card, label, row
from sparsezo_gui.gui.widgets.data_files import FILES
from sparsezo_gui.gui.widgets.data_rows import DataRows
from sparsezo_gui.gui.widgets.example_figures import ExampleFigures
from sparsezo_gui.gui.widgets.fields import Combo, SettingField
from sparsezo_gui.gui.widgets.hub import HubDialog
from sparsezo_gui.gui.widgets.safe_text import safe_name
from sparsezo_gui.gui.widgets.sides import AROUND, NARROW, Columns, Sides, halves
from sparsezo_gui.gui.widgets.template import TemplateEdit
from sparsezo_gui.gui.widgets.tokens import TokenView
from sparsezo_gui.gui.wording import in_form_words
from sparsezo_gui.gui.workspace import Workspace
from sparsezo_gui.recipe.recipe import DataTable
from sparsezo_gui.stages import ONE, Stages

LIMITS = (
    "train", "validation", "test", "split_seed", "max_tokens", "duplicates", "leave_out_gaps", "merge_labels",
)  # fmt: skip
SPLITTING = (
    "Validation and test rows that do not have files of their own are taken from the training rows, by their content: "
    "with the same seed, the same rows are always split alike."
)
GROUPS = ("Your own data", "Tests with fixed answers", "Tests with written answers")


def group_of(task: Task) -> str:
    """The group of `GROUPS` that a task is listed in."""
    return GROUPS[0] if not task.paper else GROUPS[1 if task.kind == "choice" else 2]


class DataPage(Page):
    """Source and task at the top, rows with their column mapping, then the rendered examples and their statistics."""

    def __init__(self, workspace: Workspace) -> None:
        super().__init__("Data", "Choose examples, map their columns, and check what the model will see.")
        self._workspace = workspace
        self._page, self._stages = 0, Stages(ONE)
        self._asked: object = None
        self.hub: HubDialog | None = None
        self._seen = Sides(self._make_seen(), self._make_template(), stacked=NARROW, spacing=2 * GRID)
        self._seen.box.setStretch(0, 3)
        self._seen.box.setStretch(1, 2)
        self.rows = DataRows()
        self.rows.paged.connect(self._change_page)
        self.rows.left_out.connect(lambda names: self._set(leave_out=names))
        self.rows.table.mapping.mapped.connect(self._mapped)
        for part in (self._make_source(), self.rows, self._seen, *self._make_figures()):
            self.body.addWidget(part)
        self.body.addStretch(1)
        self.body.addLayout(row(None, button("Continue to Method", lambda: self.go_to.emit("method"))))
        workspace.on(ListTasks, call=self._fill_tasks)
        workspace.on(PreviewData, call=self._show)
        workspace.recipe_changed.connect(self._refresh)
        workspace.recipe_stable.connect(self._ask)
        self._fill_tasks()
        self._refresh()
        self._show()

    def _make_source(self) -> QWidget:
        self._source = QLineEdit()
        self._source.setAccessibleName("Data source")
        self._source.setPlaceholderText("File, folder, Hub data set or 'starter'; or drop a file here")
        self._source.editingFinished.connect(self._typed)
        again = button("Reload", lambda: self._change_page(0), name="Reload the data")
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
        files = (button("File…", self._choose_file, image="file", name="Choose a data file"),
                 button("Folder…", self._choose_folder, image="folder", name="Choose a data folder"))  # fmt: skip
        others = (button("Hub…", self._search_hub, name="Search the Hub for data sets"),
                  button("Starter", lambda: self.use("starter"), name="Use the bundled data"), again)  # fmt: skip
        buttons = halves(files, others, GRID)
        source = Sides(self._source, buttons, stacked=NARROW - AROUND, spacing=GRID)
        source.box.setStretch(0, 1)
        for line, (title, part) in enumerate((("Source", row(source)), ("Task", row(self._task, None)))):
            form.addWidget(label(title, "heading"), line, 0)
            form.addLayout(part, line, 1)
        return card(form, self._fault)

    def _make_seen(self) -> QWidget:
        self.tokens = TokenView()
        return card(
            label("What the model will see", "heading"),
            label("The loss covers the bold, underlined tokens; the rest is context.", "hint", wrap=True),
            self.tokens,
        )  # fmt: skip

    def _make_template(self) -> QWidget:
        self._template = TemplateEdit()
        self._template.typed.connect(lambda text: self._set(template=text))
        self._chats = QCheckBox("Use the model's chat template")
        self._chats.setAccessibleName("Use the model's chat template")
        self._chats.setToolTip(DataTable.model_fields["chat_template"].description or "")
        self._chats.clicked.connect(lambda wanted: self._set(chat_template=wanted))
        return card(label("Prompt template", "heading"), self._template, self._chats, None)

    def _make_figures(self) -> tuple[QWidget, QWidget]:
        self.figures = ExampleFigures()
        self._fields = {name: SettingField(name, DataTable.model_fields[name], "data") for name in LIMITS}
        limits = Columns(4, 22 * GRID, 2 * GRID, GRID)
        for field in self._fields.values():
            field.edited.connect(self._limit)
        limits.fill([*self._fields.values()])
        self._results = card(self.figures)
        return self._results, card(label("Examples to use", "heading"), label(SPLITTING, "hint", wrap=True), limits)

    # User actions

    def _limit(self, name: str, value: Any) -> None:
        fault = self._workspace.change("data", **{name: value})
        self._workspace.faults.note("data", name, self._fields[name].refused(fault))

    def _set(self, **values: Any) -> None:
        self._page = self._page if "leave_out" in values else 0
        fault = self._workspace.change("data", **values)
        if fault:
            self.banner.show_problem(Problem(fault))
            self._task.choose(self._workspace.recipe.data.task)
        else:
            self.banner.clear_refusal()

    def use(self, source: str) -> None:
        """Takes other data, and forgets what was set for the data before."""
        task = {"task": "choice"} if source == "starter" else {}
        usual = {name: DataTable.model_fields[name].default for name in (*FIXES, "leave_out")}
        self._page = 0
        self._set(source=source, columns={}, answers=[], template="", **usual, **task)

    def _typed(self) -> None:
        text = self._source.text().strip()
        if self._source.isModified() and text and text != self._workspace.recipe.data.source:
            self._source.setModified(False)
            self.use(text)

    def _choose_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Choose a data file", "", FILES)
        if path:
            self.use(path)

    def _search_hub(self) -> None:
        self.hub = self.hub or HubDialog(self._workspace, self.use, self)
        self.hub.show()

    def _choose_folder(self) -> None:
        if folder := QFileDialog.getExistingDirectory(self, "Choose a folder with train, validation and test files"):
            self.use(folder)

    def _mapped(self, name: str, part: str) -> None:
        columns = {p: c for p, c in self._mapping().items() if c != name and p != part}
        self._set(columns={**columns, **({part: name} if part else {})})

    def _change_page(self, by: int) -> None:
        self._page = max(self._page + by, 0)
        self._workspace.preview(self._page)

    # Display

    def _ask(self) -> None:
        """Asks for a preview if the data or its tokens may have changed."""
        recipe = self._workspace.recipe
        wanted = (recipe.data, recipe.model.id, recipe.model.revision)
        if wanted != self._asked or self._workspace.of(PreviewData).problem is not None:
            self._asked = wanted
            self._workspace.preview(self._page)

    def showEvent(self, event: QShowEvent) -> None:
        """Asks for a preview if there is none yet."""
        super().showEvent(event)
        if self._workspace.engine_state != "waiting":
            self._ask()

    def _fill_tasks(self) -> None:
        tasks = self._tasks()
        current = self._workspace.recipe.data.task
        groups = {title: [(task.title, task.name) for task in tasks if group_of(task) == title] for title in GROUPS}
        if current not in [task.name for task in tasks]:
            groups = {"": [(safe_name(current), current)], **groups}
        self._task.fill_groups(groups, current)
        self._show_chat_template()

    def _refresh(self) -> None:
        data = self._workspace.recipe.data
        self._source.setText(data.source)
        self._source.setModified(False)
        self._task.choose(data.task)
        self._template.show_template(data.template)
        self._show_chat_template()
        self.rows.show_left_out(data.leave_out)
        if self._workspace.preview_answer is None:
            self._show()  # at once, not when the engine has read the other data
        for name, field in self._fields.items():
            if not self._workspace.faults.of("data", name):
                field.set_value(getattr(data, name))

    def _show_chat_template(self) -> None:
        data = self._workspace.recipe.data
        self._chats.setChecked(data.chat_template)
        self._chats.setVisible(any(task.name == data.task and task.chat_template for task in self._tasks()))

    def _tasks(self) -> list[Task]:
        return self._workspace.of(ListTasks).answer or []

    def _mapping(self) -> dict[str, str]:
        """Column for each prompt field: from the recipe, else as detected."""
        preview = self._workspace.preview_answer
        return {**(preview.columns_of if preview else {}), **self._workspace.recipe.data.columns}

    def _show(self) -> None:
        workspace = self._workspace
        progress = workspace.of(PreviewData).progress
        if progress and workspace.preview_answer is not None:
            self.rows.say(formatting.progress(progress, self._stages.at(progress)))
            return
        shown, problem = workspace.preview_answer, workspace.of(PreviewData).problem
        fault = in_form_words(problem.message if problem else shown.problem if shown else "")
        of_template = fault.startswith("Prompt template")
        if of_template and inputs.same_data(workspace.of(PreviewData).answered_request, workspace.recipe):
            shown = workspace.of(PreviewData).answer  # what it was before stays in sight
        self._template.show_fault(fault.removeprefix("Prompt template").lstrip(",: ") if of_template else "")
        self._fault.setVisible(bool(fault) and not of_template)
        self._fault.setText(fault)
        for part in (self._seen, self._results):
            part.setVisible(shown is not None)
        self.rows.setVisible(problem is None or of_template)
        self._show_banner(shown, None if of_template else problem)
        if shown is None:
            loaded = workspace.engine_state == "ready"
            waiting = "Reading the data…" if loaded else "Rows appear once the engine is loaded."
            if progress:
                waiting = formatting.progress(progress, self._stages.at(progress))
            self.rows.wait("" if problem else waiting)
            return
        task = next((t for t in self._tasks() if t.name == workspace.recipe.data.task), None)
        self.rows.show_preview(shown, list(task.columns) if task else [], self._mapping())
        self.tokens.show_examples(shown.examples, shown.longest_tokens > 0, shown.left_out)
        self.figures.show_preview(shown, workspace.recipe.data.max_tokens)

    def _show_banner(self, preview: DataPreview | None, problem: Problem | None) -> None:
        """Bugs, else what is worth knowing about the data; other problems are shown where they are."""
        if problem is not None or preview is None:
            self.banner.track(problem if problem and problem.is_bug else None)
            return
        told = about(preview, self._workspace.recipe.data, self._tasks())
        action = (told.button, lambda: self._set(**told.sets)) if told.button else None
        self.banner.track(Problem(told.text) if told.text else None, told.level, action)
