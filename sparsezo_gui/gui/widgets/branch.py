"""The dialog for a branch: its name and its changes to the recipe."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtWidgets import QGridLayout, QLineEdit, QPlainTextEdit, QWidget

from sparsezo_gui.errors import UserError
from sparsezo_gui.gui.formatting import count
from sparsezo_gui.gui.theme import GRID
from sparsezo_gui.gui.widgets.basic import button, label, row
from sparsezo_gui.gui.widgets.dialogs import Dialog
from sparsezo_gui.recipe import Recipe, with_settings

BASIC = {"update.learning_rate": "Learning rate", "loop.steps": "Steps", "loop.seed": "Seed"}


class BranchDialog(Dialog):
    """The settings that change most often, and any others as text; only changes are passed on."""

    def __init__(
        self, recipe: Recipe, of: str, step: int, on_accept: Callable[[list[str], str], None], parent: QWidget
    ) -> None:
        super().__init__(f"Branch from step {count(step)}", parent)
        self._recipe, self._step, self._on_accept = recipe, step, on_accept
        self._name = QLineEdit(f"{of} from {step}"[:80])
        self._name.setAccessibleName("Name of the branch")
        self._name.setMaxLength(80)
        grid = QGridLayout()
        grid.setHorizontalSpacing(2 * GRID)
        grid.setVerticalSpacing(GRID)
        grid.setColumnStretch(1, 1)
        grid.addWidget(label("Name", "heading"), 0, 0)
        grid.addWidget(self._name, 0, 1)
        self._edits: dict[str, QLineEdit] = {}
        for line, (key, title) in enumerate(BASIC.items(), 1):
            table, name = key.split(".")
            edit = QLineEdit(str(getattr(getattr(recipe, table), name)))
            edit.setAccessibleName(title)
            self._edits[key] = edit
            grid.addWidget(label(title, "heading"), line, 0)
            grid.addWidget(edit, line, 1)
        self._more = QPlainTextEdit()
        self._more.setAccessibleName("Other settings")
        self._more.setPlaceholderText("One per line, such as  loop.batch_size=32")
        self._more.setTabChangesFocus(True)
        self._more.setFixedHeight(9 * GRID)
        self._say = label("", "error", wrap=True, name="Problem")
        note = label(f"A separate run that starts from step {count(step)} of '{of}'.", "dim", wrap=True)
        note.setMinimumWidth(56 * GRID)
        self.layout_.addWidget(note)
        self.layout_.addLayout(grid)
        self.layout_.addWidget(label("Other settings", "heading"))
        self.layout_.addWidget(self._more)
        self.layout_.addWidget(self._say)
        make = button("Create branch", self._take, role="primary", name="Create branch")
        make.setDefault(True)
        self.layout_.addLayout(row(None, button("Cancel", self.reject, name="Cancel branch"), make))

    def settings(self) -> list[str]:
        """The changes as key=value."""
        changed = []
        for key, edit in self._edits.items():
            table, name = key.split(".")
            if edit.text().strip() != str(getattr(getattr(self._recipe, table), name)):
                changed.append(f"{key}={edit.text().strip()}")
        return changed + [line.strip() for line in self._more.toPlainText().splitlines() if line.strip()]

    def _take(self) -> None:
        try:
            recipe = with_settings(self._recipe, self.settings())
        except UserError as error:
            self._say.setText(str(error).replace("--set: ", "").replace("--set ", ""))
            return
        if recipe.loop.steps <= self._step:
            self._say.setText(f"Steps must be greater than {count(self._step)}, where the branch starts.")
            return
        self._on_accept(self.settings(), self._name.text().strip())
        self.accept()
