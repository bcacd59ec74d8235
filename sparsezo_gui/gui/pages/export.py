"""Exports any step of a run, and checks the files after writing them."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import Qt
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QCheckBox, QFileDialog, QGridLayout, QLineEdit, QWidget

from sparsezo_gui.answers import Exported, RunSummary
from sparsezo_gui.formats import default_export, export_formats
from sparsezo_gui.gui import formatting
from sparsezo_gui.gui.formatting import file_name, out_of
from sparsezo_gui.gui.hub_requests import PushExport
from sparsezo_gui.gui.problems import Problem
from sparsezo_gui.gui.record import STATES
from sparsezo_gui.gui.run_requests import ExportRun, ListRuns
from sparsezo_gui.gui.theme import GRID
from sparsezo_gui.gui.widgets.basic import Empty, Page, ProgressBar, button, card, column, label, row
from sparsezo_gui.gui.widgets.export_result import ExportResult
from sparsezo_gui.gui.widgets.fields import Combo, ComboGroup, RadioGroup
from sparsezo_gui.gui.widgets.format_cards import FormatCards
from sparsezo_gui.gui.widgets.safe_text import safe_name, safe_sentence
from sparsezo_gui.gui.widgets.sides import Sides
from sparsezo_gui.gui.widgets.steps import StepSlider
from sparsezo_gui.gui.wording import in_form_words
from sparsezo_gui.gui.workspace import Workspace
from sparsezo_gui.names import free
from sparsezo_gui.recipe.registry import SPACES
from sparsezo_gui.stages import ONE, Stages

if TYPE_CHECKING:
    from sparsezo_gui.engine.export.form import ExportFormat, Option

MOST_BUTTONS = 4  # choices side by side; more are in a list
FIELD_TOP, BUTTON_TOP = 8, 3  # pixels from the top of a field or radio button to that of its text


class ExportPage(Page):
    """Run, step, format and target; then a button, progress, and the result of the check."""

    banner_last = True

    def __init__(self, workspace: Workspace) -> None:
        super().__init__("Export", "Export any step of a run. Each export is checked after it is written.")
        self._workspace = workspace
        self._stages = Stages(ONE)
        self._offered: str | None = None  # the run whose formats are shown
        self.header.addWidget(button("Refresh", workspace.run.list_runs, name="Refresh the list of runs"))
        self._empty = Empty(
            "Nothing to export yet", "Start a run first. Each of its steps can be exported.",
            "Go to the Run page", lambda: self.go_to.emit("run"),
        )  # fmt: skip
        self.body.addWidget(self._empty, 99)
        self._form = self._make_form()
        self.body.addWidget(self._form)
        self._bar = ProgressBar("Export progress")
        self.body.addWidget(self._bar)
        self._said = label("", wrap=True, name="Export progress in words")
        self._result = ExportResult(workspace)
        self._result.deleted.connect(self._suggest)
        self._result.refused.connect(lambda why: self.banner.show_problem(Problem(why)))
        self._cancel = button("Cancel", self._stop, name="Cancel export")
        self._go = button("Export", lambda: self._export(), role="primary", image="export", name="Export now")
        said = row(self._said, self._cancel, self._go)
        said.setStretch(0, 1)
        self.body.addLayout(said)
        self.body.addWidget(self._result)
        self.body.addStretch(1)
        workspace.on(ListRuns, call=self._fill)
        workspace.on(ExportRun, PushExport, call=self._show)
        workspace.of(ExportRun).answered.connect(lambda _, exported: self._push_export(exported))
        workspace.of(ExportRun).answered.connect(lambda *_: self._out.setModified(False))
        workspace.of(ExportRun).answered.connect(lambda *_: self._suggest())  # the last name is taken now
        for signal in (workspace.run.changed, workspace.blocker_changed):
            signal.connect(self._show)
        self._fill()

    def _make_form(self) -> QWidget:
        self._run = Combo("Run to export")
        self._run.currentIndexChanged.connect(self._run_chosen)
        self._step = StepSlider("Step to export")
        self._forms = export_formats()
        self._format = FormatCards(self._forms)
        self._format.changed.connect(self._suggest)
        self._options = {
            (name, option.name): (label(option.title, "heading"), _choices(option))
            for name, form in self._forms.items() for option in form.options
        }  # fmt: skip
        for _, choices in self._options.values():
            choices.changed.connect(self._suggest)
        self._serve = label("", "hint", wrap=True, name="Serve with")
        format_title, out_title = label("Format", "heading"), label("To", "heading")
        self._out = QLineEdit()
        self._out.setAccessibleName("Export to")
        self._out.textChanged.connect(lambda: self._show_serving())
        self._browse = button("Choose…", self._choose, image="folder", name="Choose where to export")
        self._push = QCheckBox("Then upload it to the Hugging Face Hub as")
        self._push.setAccessibleName("Push to the Hub")
        self._push.toggled.connect(self._show)
        self._name = QLineEdit()
        self._name.setAccessibleName("Name on the Hub")
        self._name.setPlaceholderText("your-name/my-model")
        self._name.textChanged.connect(self._show)
        self._seen = Combo("Who can see it")
        self._seen.fill([("Private", False), ("Public", True)], False)
        form = QGridLayout()
        form.setHorizontalSpacing(3 * GRID)
        form.setVerticalSpacing(2 * GRID)
        form.setColumnStretch(1, 1)
        form.setColumnMinimumWidth(0, 7 * GRID)  # for the widest title, which is hidden at first
        entries = (
            (label("Run", "heading"), row(self._run)),
            (label("Step", "heading"), row(self._step)),
            (format_title, row(self._format)), *((title, row(choices)) for title, choices in self._options.values()),
            (out_title, column(row(self._out, self._browse), self._serve, spacing=2)),
            (label("Hub", "heading"), row(Sides(row(self._push), row(self._name, self._seen), spacing=GRID))),
        )  # fmt: skip
        for line, (title, part) in enumerate(entries):
            form.addWidget(title, line, 0)
            form.addLayout(part, line, 1)
        for title, field in ((format_title, self._format), (out_title, self._out), *self._options.values()):
            title.setContentsMargins(0, BUTTON_TOP if isinstance(field, RadioGroup) else FIELD_TOP, 0, 0)
            form.setAlignment(title, Qt.AlignmentFlag.AlignTop)
        return card(form)

    def _fill(self) -> None:
        runs = [run for run in self._workspace.of(ListRuns).answer or [] if run.step > 0]
        chosen = self._run.currentData()
        items = [(safe_name(_line(run)), run.path) for run in runs]
        if chosen not in [path for _, path in items]:
            chosen = items[0][1] if items else None
        self._run.fill(items, chosen)
        self._empty.setVisible(not runs)
        for part in (self._form, self._said, self._go):
            part.setVisible(bool(runs))
        self._run_chosen()

    def _run_chosen(self) -> None:
        run = self._chosen()
        self._step.set_range(1 if run else 0, run.step if run else 0, run.best if run else None)
        if run is not None and run.path != self._offered:
            self._offered, space = run.path, SPACES[run.space]
            self._format.refuse({name: in_form_words(form.refusal(space)) for name, form in self._forms.items()})
            self._format.choose(default_export(space))
        self._suggest()
        self._show()

    def showEvent(self, event: QShowEvent) -> None:
        """Finds runs that have begun meanwhile."""
        super().showEvent(event)
        self._workspace.run.list_runs()

    def _chosen(self) -> RunSummary | None:
        path = self._run.currentData()
        return next((run for run in self._workspace.of(ListRuns).answer or [] if str(run.path) == path), None)

    def choose(self, folder: Path, step: int) -> None:
        """Selects a run and one of its steps."""
        place = self._run.findData(str(folder))
        if place >= 0:
            self._run.setCurrentIndex(place)
            self._step.set_value(step)

    def _suggest(self) -> None:
        chosen = self._format.value()
        run = self._chosen()
        if run is not None and run.parameters:
            facts = run.tuned, run.parameters, SPACES[run.space]
            options = self._chosen_options()
            self._format.show_sizes({name: form.size(*facts, options) for name, form in self._forms.items()})
        for (form, _), parts in self._options.items():
            for part in parts:
                part.setVisible(form == chosen)
        if run is not None and not self._out.isModified():
            self._out.setText(str(free(self._place(run.name, self._forms[chosen]))))
        self._show_serving()

    def _show_serving(self) -> None:
        """The commands that serve the export, where it will be."""
        commands = self._serving(self._out.text().strip())
        self._serve.setText("\n".join(safe_sentence(f"{name}: {command}") for name, command in commands.items()))
        self._serve.setVisible(bool(commands))

    def _serving(self, out: str) -> dict[str, str]:
        run, form = self._chosen(), self._forms[self._format.value()]
        return form.serve(out, run.model, SPACES[run.space]) if run is not None else {}

    def _place(self, run: str, form: ExportFormat) -> Path:
        """Where an export of ``run`` goes, unless the user decides otherwise."""
        name = file_name(run).replace(" ", "-") or "model"
        return form.place(name, **self._chosen_options()) or self._folder() / f"{name}-tuned{form.suffix}"

    def _folder(self) -> Path:
        """Where the last export went, else the user's folder."""
        last = Path(str(self._workspace.store.value("export_folder", "", str)) or Path.home())
        return last if os.path.isdir(last) else Path.home()

    def _chosen_options(self) -> dict[str, str]:
        """The options of the chosen format."""
        chosen = self._format.value()
        return {option: choices.value() for (name, option), (_, choices) in self._options.items() if name == chosen}

    def _choose(self) -> None:
        form = self._forms[self._format.value()]
        if not form.folder:
            pattern = f"{form.title} (*{form.suffix})"
            path, _ = QFileDialog.getSaveFileName(self, "Export to", self._out.text(), pattern)
        else:
            path = QFileDialog.getExistingDirectory(self, "Export to an empty folder", str(self._folder()))
        if path:
            self._out.setText(path)
            self._out.setModified(True)

    def _export(self, accept: bool = False) -> None:
        run, out = self._chosen(), self._out.text().strip()
        if run is None or not out:
            self.banner.show_problem(Problem("Choose where to export to."))
            return
        self._workspace.of(ExportRun).forget()
        self._workspace.of(PushExport).forget()
        form = self._format.value()
        target, options = Path(out).expanduser(), self._chosen_options()
        if self._out.isModified():
            self._workspace.store.setValue("export_folder", str(target.parent))
        self._workspace.ask(ExportRun(Path(run.path), form, target, self._step.value(), options, accept))
        self._show()

    def _push_export(self, exported: Exported) -> None:
        """Uploads what was exported, if the user wants that."""
        if self._push.isChecked():
            public = bool(self._seen.currentData())
            name = self._name.text().strip()
            self._workspace.ask(PushExport(Path(exported.out), name, public, exported.card))

    def _push_again(self) -> None:
        if exported := self._workspace.of(ExportRun).answer:
            self._workspace.of(PushExport).forget()
            self._push_export(exported)
            self._show()

    def _stop(self) -> None:
        for kind in (ExportRun, PushExport):
            self._workspace.cancel(kind)

    def _show(self) -> None:
        workspace = self._workspace
        export, push = workspace.of(ExportRun), workspace.of(PushExport)
        busy, progress = export.busy or push.busy, push.progress if push.busy else export.progress
        run = self._chosen()
        named = not self._push.isChecked() or bool(self._name.text().strip())
        self._go.setEnabled(run is not None and named and not workspace.blocker)
        self._go.setToolTip(workspace.blocker)
        self._cancel.setVisible(busy)
        self._bar.setVisible(busy)
        options = [choices for _, choices in self._options.values()]
        for control in (self._run, self._step, self._format, *options, self._out, self._browse, self._push):
            control.setEnabled(run is not None and not busy)
        for control in (self._name, self._seen):
            control.setEnabled(self._push.isChecked() and self._push.isEnabled())
        self._bar.show_progress(progress)
        self._show_banner()
        if busy:
            told = formatting.progress(progress, self._stages.at(progress)) if progress else ""
            self._said.setText(f"{told if progress and progress.unit == 'bytes' else progress.stage}…" if progress
                               else "Waiting for the engine…")  # fmt: skip
        elif workspace.blocker:
            self._said.setText(workspace.blocker)
        else:
            self._said.setText("")
        self._result.show_export(export.answer if not busy else None, push.answer, self._serving)

    def _show_banner(self) -> None:
        problem, notices = (
            self._workspace.problem_of(ExportRun, PushExport, ListRuns),
            self._workspace.of(ExportRun).notices,
        )
        action = None
        if problem is not None and problem.can_continue:
            action = "Export anyway", lambda: self._export(accept=True)
        elif problem is not None and problem is self._workspace.of(PushExport).problem:
            action = "Upload again", self._push_again
        text = "\n".join(notices)
        self.banner.track(problem or (Problem(text) if text else None), "error" if problem else "info", action)


def _choices(option: Option) -> RadioGroup | ComboGroup:
    return (RadioGroup if len(option.choices) <= MOST_BUTTONS else partial(ComboGroup, option.title))(option.choices)


def _line(run: RunSummary) -> str:
    state, created = STATES.get(run.state, run.state).lower(), run.created[:16].replace("T", " ")
    return f"{run.name} · {state}, step {out_of(run.step, run.steps)} · {created}"
