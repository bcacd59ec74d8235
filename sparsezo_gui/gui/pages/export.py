"""Any step of a run as files, checked after they are written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QButtonGroup, QFileDialog, QGridLayout, QLineEdit, QProgressBar, QRadioButton, QSlider

from sparsezo_gui.gui.problems import Problem
from sparsezo_gui.gui.session import Session
from sparsezo_gui.gui.theme import GRID
from sparsezo_gui.gui.widgets.basic import Page, button, card, column, label, row
from sparsezo_gui.gui.widgets.fields import Combo, NumberEdit
from sparsezo_gui.gui.words import count

FORMATS = {
    "overlay": ("Overlay file", "Only the tuned values: small to keep and to send. Needs SparseZO and the base model."),
    "hf": (
        "Hugging Face folder",
        "The whole model with the tuned values put in: runs in any program that reads such a folder.",
    ),
}


class ExportPage(Page):
    """Run, step, format, target; then a button, progress, and what the check found."""

    def __init__(self, session: Session, go: Callable[[str], None]) -> None:
        super().__init__("Export", "Take any step of a run with you. Each export is checked after it is written.")
        self._session = session
        self._run = Combo("Run to export")
        self._run.setMinimumWidth(48 * GRID)
        self._run.currentIndexChanged.connect(self._run_chosen)
        self._slider = QSlider(Qt.Orientation.Horizontal)
        self._slider.setAccessibleName("Step to export, slider")
        self._slider.valueChanged.connect(lambda value: self._step.setText(str(value)))
        self._step = NumberEdit(whole=True)
        self._step.setAccessibleName("Step to export")
        self._step.setFixedWidth(12 * GRID)
        self._step.editingFinished.connect(self._step_typed)
        self._of = label("", "dim")
        self._group = QButtonGroup(self)
        choices = column()
        for name, (title, sentence) in FORMATS.items():
            choice = QRadioButton(title)
            choice.setAccessibleName(title)
            choice.setAccessibleDescription(sentence)
            choice.setProperty("format", name)
            choice.setChecked(name == "overlay")
            choice.toggled.connect(lambda _: self._suggest())
            self._group.addButton(choice)
            hint = label(sentence, "hint", wrap=True)
            hint.setIndent(3 * GRID)
            choices.addLayout(column(choice, hint, spacing=2))
        self._out = QLineEdit()
        self._out.setAccessibleName("Where to export")
        self._go = button("Export", self._export, role="primary", image="export", name="Export now")
        self._cancel = button("Cancel", session.cancel, name="Cancel export")
        self._bar = QProgressBar()
        self._bar.setTextVisible(False)
        self._bar.setAccessibleName("Progress of the export")
        self._said = label("", wrap=True, name="Export result")
        form = QGridLayout()
        form.setHorizontalSpacing(3 * GRID)
        form.setVerticalSpacing(3 * GRID)
        form.setColumnStretch(1, 1)
        refresh = button("Refresh", lambda: session.ask("runs"), name="Refresh the list of runs")
        entries: tuple[tuple[str, Any], ...] = (
            ("Run", row(self._run, refresh, None)),
            ("Step", row(self._slider, self._step, self._of)), ("Format", choices),
            ("To", row(self._out, button("Choose…", self._choose, image="folder", name="Choose where to export"))),
        )  # fmt: skip
        for line, (title, part) in enumerate(entries):
            form.addWidget(label(title, "heading"), line, 0, Qt.AlignmentFlag.AlignTop)
            form.addLayout(part, line, 1)
        self.body.addWidget(card(form))
        said = row(self._said, self._cancel, self._go)
        said.setStretch(0, 1)
        self.body.addWidget(self._bar)
        self.body.addLayout(said)
        self.body.addStretch(1)
        session.runs_changed.connect(self._fill)
        session.run_changed.connect(self._show)
        session.export_changed.connect(self._show)
        session.engine_changed.connect(self._show)
        self._fill()

    def _fill(self) -> None:
        runs = [run for run in self._session.answers.get("runs") or [] if run.step > 0]
        chosen = self._run.currentData()
        items = [(f"{run.name} · {run.state}, step {run.step} of {run.steps} · {run.created[:16].replace('T', ' ')}",
                  str(run.path)) for run in runs]  # fmt: skip
        if chosen not in [path for _, path in items]:
            chosen = items[0][1] if items else None
        self._run.fill(items, chosen)
        if "runs" in self._session.problems:
            self.banner.show_problem(self._session.problems["runs"])
        self._run_chosen()

    def _run_chosen(self) -> None:
        run = self._chosen()
        self._slider.setRange(1 if run else 0, run.step if run else 0)
        self._slider.setValue(run.step if run else 0)
        self._step.setText(str(run.step) if run else "")
        self._of.setText(f"of {count(run.step)}" if run else "")
        self._suggest()
        self._show()

    def _chosen(self) -> Any:
        path = self._run.currentData()
        return next((run for run in self._session.answers.get("runs") or [] if str(run.path) == path), None)

    def _step_typed(self) -> None:
        value = self._step.value()
        self._slider.setValue(value if isinstance(value, int) else self._slider.maximum())
        self._step.setText(str(self._slider.value()))

    def _format(self) -> str:
        return str(self._group.checkedButton().property("format"))

    def _suggest(self) -> None:
        run = self._chosen()
        if run is not None and not self._out.isModified():
            name = "".join(c if c.isalnum() or c in "-_." else "-" for c in run.name) or "model"
            self._out.setText(str(Path.home() / f"{name}-tuned{'.safetensors' if self._format() == 'overlay' else ''}"))

    def _choose(self) -> None:
        if self._format() == "overlay":
            path, _ = QFileDialog.getSaveFileName(self, "Export to", self._out.text(), "Overlay (*.safetensors)")
        else:
            path = QFileDialog.getExistingDirectory(self, "Export into an empty folder", str(Path.home()))
        if path:
            self._out.setText(path)
            self._out.setModified(True)

    def _export(self) -> None:
        run, out = self._chosen(), self._out.text().strip()
        if run is None or not out:
            self.banner.show_problem(Problem("Say where to export to."))
            return
        self.banner.clear()
        self._session.answers.pop("export", None)
        self._session.problems.pop("export", None)
        self._session.ask("export", Path(run.path), self._format(), Path(out).expanduser(), self._slider.value())
        self._show()

    def _show(self) -> None:
        session = self._session
        busy = "export" in session.busy
        progress = session.busy.get("export")
        run = self._chosen()
        self._go.setEnabled(run is not None and not busy and not session.running)
        self._cancel.setVisible(busy)
        self._bar.setVisible(busy)
        for control in (self._run, self._slider, self._step, self._out):
            control.setEnabled(run is not None and not busy)
        self._bar.setRange(0, progress.total if progress else 0)
        self._bar.setValue(progress.done if progress else 0)
        if "export" in session.notices:
            self.banner.show_problem(Problem("\n".join(session.notices["export"])), "info")
        if "export" in session.problems:
            self.banner.show_problem(session.problems["export"])
        if busy:
            self._said.setText(f"{progress.stage}…" if progress else "Waiting for the engine…")
        elif session.running:
            self._said.setText("A run is using the engine. Stop it to export.")
        elif run is None:
            self._said.setText("There is no run with a step yet. Start one on the Run page.")
        else:
            self._said.setText(_told(session.answers["export"]) if "export" in session.answers else "")


def _told(answer: Any) -> str:
    """The result of the last export, in words."""
    return " ".join([f"Step {count(answer['step'])} is exported and checked.", *answer["told"]])
