"""What is asked about a saved run: its name and tags, how to branch or share it, and whether to delete it."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtWidgets import QLineEdit, QWidget

from sparsezo_gui.answers import RunSummary
from sparsezo_gui.errors import UserError
from sparsezo_gui.gui import formatting
from sparsezo_gui.gui.problems import Problem
from sparsezo_gui.gui.run_requests import BranchRun, LabelRun, MeasureRun, RemoveRun, ShareRun
from sparsezo_gui.gui.theme import GRID
from sparsezo_gui.gui.widgets.banner import Banner
from sparsezo_gui.gui.widgets.basic import button, label, row
from sparsezo_gui.gui.widgets.branch import BranchDialog
from sparsezo_gui.gui.widgets.dialogs import Dialog
from sparsezo_gui.gui.widgets.share import ShareDialog
from sparsezo_gui.gui.workspace import Workspace
from sparsezo_gui.recipe import load


class LabelDialog(Dialog):
    """A name and tags, separated by commas."""

    def __init__(self, workspace: Workspace, run: RunSummary, parent: QWidget) -> None:
        super().__init__(f"Rename {run.name}", parent)
        self._workspace, self._folder = workspace, Path(run.path)
        self._name, self._tags = QLineEdit(run.name), QLineEdit(", ".join(run.tags))
        self._name.setAccessibleName("Name of the run")
        self._tags.setAccessibleName("Tags of the run")
        self._tags.setPlaceholderText("such as: paper, keep")
        for edit in (self._name, self._tags):
            edit.setMinimumWidth(44 * GRID)
        self._name.selectAll()
        self.layout_.addWidget(label("Name", "heading"))
        self.layout_.addWidget(self._name)
        self.layout_.addWidget(label("Tags, separated by commas", "heading"))
        self.layout_.addWidget(self._tags)
        save = button("Save", self._save, role="primary", name="Save name and tags")
        save.setDefault(True)
        self.layout_.addLayout(row(None, button("Cancel", self.reject, name="Cancel renaming"), save))

    def _save(self) -> None:
        tags = tuple(self._tags.text().split(","))
        self._workspace.ask(LabelRun(self._folder, self._name.text(), tags))
        self.accept()


class DeleteDialog(Dialog):
    """Tells what is deleted, and how large it is, before anything is."""

    def __init__(self, workspace: Workspace, run: RunSummary, parent: QWidget) -> None:
        super().__init__(f"Delete {run.name}", parent)
        self._workspace, self._run = workspace, run
        self._text = label("Measuring its size…", wrap=True, name="What is deleted")
        self._text.setMinimumWidth(52 * GRID)
        keep = button("Cancel", self.reject, name="Keep the run")
        keep.setDefault(True)
        self._delete = button("Delete", self._remove, name="Delete the run")
        self.layout_.addWidget(self._text)
        self.layout_.addLayout(row(None, keep, self._delete))
        workspace.of(MeasureRun).forget()
        workspace.on(MeasureRun, call=self._show)
        workspace.ask(MeasureRun(Path(run.path)))
        self._show()

    def _show(self) -> None:
        channel = self._workspace.of(MeasureRun)
        found = channel.answer if channel.answered_request == MeasureRun(Path(self._run.path)) else None
        self._delete.setEnabled(found is not None)
        if channel.problem is not None:
            self._text.setText(channel.problem.message)
        elif found is not None:
            below = f" and its {found.branches} branch{'es' if found.branches != 1 else ''}" if found.branches else ""
            self._text.setText(
                f"'{self._run.name}'{below} will be deleted for good: {formatting.size(found.bytes)} with its steps, "
                f"checkpoints and notes. Exported files stay."
            )

    def _remove(self) -> None:
        self._workspace.ask(RemoveRun(Path(self._run.path)))
        self.accept()


def ask_branch(workspace: Workspace, run: RunSummary, step: int, banner: Banner) -> None:
    """Asks what to change in a branch from ``step``, and creates it."""
    folder = Path(run.path)
    try:
        recipe = load(folder / "recipe.toml")
    except UserError as error:
        banner.show_problem(Problem(str(error)))
        return

    def accepted(settings: list[str], name: str) -> None:
        workspace.of(BranchRun).problem = None
        workspace.ask(BranchRun(folder, step, settings, name))

    BranchDialog(recipe, run.name, step, accepted, banner.window()).open()


def ask_share(workspace: Workspace, run: RunSummary, banner: Banner) -> None:
    """Asks where to and whether with examples, and shares the run."""
    folder = Path(run.path)

    def accepted(out: Path, with_examples: bool) -> None:
        workspace.ask(ShareRun(folder, out, with_examples))
        banner.show_problem(Problem(f"Sharing to {out}"), "info")

    ShareDialog(workspace, folder, run.name, accepted, banner.window()).open()
