"""The bar above every page: what the next run is, what is wrong with it, and the button that starts it."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QFrame, QVBoxLayout

from sparsezo_gui.gui.following import short
from sparsezo_gui.gui.formatting import count
from sparsezo_gui.gui.requests import EstimateMemory, LoadEngine, MeasureMemory, PreviewData, ReadModel
from sparsezo_gui.gui.theme import GRID
from sparsezo_gui.gui.widgets.basic import badge, button, label, restyle, row
from sparsezo_gui.gui.widgets.memory import verdict_of
from sparsezo_gui.gui.widgets.queue import QueueDialog
from sparsezo_gui.gui.wording import in_form_words
from sparsezo_gui.gui.workspace import Workspace
from sparsezo_gui.recipe.presets import matching

STARTS = "Starts a new run."


class NextRun(QFrame):
    """Follows the workspace."""

    start = Signal()

    def __init__(self, workspace: Workspace) -> None:
        super().__init__()
        self.setProperty("role", "next")
        self._workspace = workspace
        self._page = ""  # that is shown below
        self._text = label("", wrap=True, name="Next run")
        self._fits = badge("Whether the next run fits")
        self._fault = label("", "error", wrap=True, name="Why the next run cannot start")
        self._again = button("Check again", workspace.look_again, name="Check the next run again",
                             tip="Looks at the model and the data again.")  # fmt: skip
        self._start = button("Start", self.start.emit, role="primary", image="play", name="Start run")
        self._add = button("Add to queue", workspace.enqueue, name="Add to the queue",
                           tip="Starts this run when those before it have ended.")  # fmt: skip
        self._queue = button("", self._open_queue, role="flat", name="Queue of runs")
        self._waits = label("Starts when the engine is ready.", "hint", name="Waiting to start")
        self._cancel = button("Cancel", workspace.run.take_back, name="Cancel the start")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(3 * GRID, GRID, 3 * GRID, GRID)
        layout.setSpacing(GRID // 2)
        line = row(label("Next run", "heading"), self._text, self._fits, self._waits, self._again, self._cancel,
                   self._queue, self._add, self._start, spacing=2 * GRID)  # fmt: skip
        line.setStretch(1, 1)
        layout.addLayout(line)
        layout.addWidget(self._fault)
        for signal in (workspace.recipe_changed, workspace.faults.changed, workspace.blocker_changed,
                       workspace.run.changed, workspace.queue.changed):  # fmt: skip
            signal.connect(self.refresh)
        workspace.on(LoadEngine, ReadModel, PreviewData, EstimateMemory, MeasureMemory, call=self.refresh)
        self.refresh()

    def show_page(self, name: str) -> None:
        """Says nothing that the page below says."""
        self._page = name
        self.refresh()

    def refresh(self) -> None:
        """Shows the recipe, and what stands in its way."""
        workspace, recipe, estimate = self._workspace, self._workspace.recipe, self._workspace.memory
        preset = matching(recipe)
        method = preset.title if preset else f"{type(recipe.mask).title} · {type(recipe.estimator).title}"
        steps = f"{count(recipe.loop.steps)} steps"
        self._text.setText(" · ".join((short(recipe.model.id), short(recipe.data.source), method, steps)))
        self._fits.setVisible(estimate is not None)
        if estimate is not None:
            word, level = verdict_of(estimate.verdict)
            self._fits.setText(word)
            restyle(self._fits, level=level)
        found, page = ("", "") if workspace.faults.first else fault_of(workspace)
        self._fault.setText(in_form_words(workspace.faults.first or found))
        self._fault.setVisible(bool(self._fault.text()) and (not page or page != self._page))
        self._again.setVisible(bool(found))
        waits, blocker = workspace.run.waits, workspace.start_blocker
        self._start.setVisible(not waits)
        for part in (self._waits, self._cancel):
            part.setVisible(waits)
        waiting = len(workspace.queue.recipes)
        self._queue.setText(f"Queue: {waiting}")
        self._queue.setVisible(waiting > 0)
        self._add.setVisible(not waits and (waiting > 0 or (workspace.run.running and not workspace.run.inspecting)))
        self._add.setEnabled(not self._fault.text())
        self._start.setEnabled(not self._fault.text() and not blocker)
        self._start.setToolTip(self._fault.text() or blocker or STARTS)

    def _open_queue(self) -> None:
        QueueDialog(self._workspace, self).open()


def fault_of(workspace: Workspace) -> tuple[str, str]:
    """What is wrong with the model or the data of the next run, as far as the engine has looked, and the page that
    says so at its top, if one does."""
    model, preview = workspace.model, workspace.of(PreviewData)
    problem, asked = workspace.problem_of(ReadModel, PreviewData), preview.answered_request
    if problem is not None:  # consent is asked for at the start, and a fault of ours need not stop a run
        told = "" if problem.is_bug or problem.code else problem.message.split("\n")[0]
        return told, _page(told, problem is workspace.of(ReadModel).problem)
    same = isinstance(asked, PreviewData) and asked.recipe.data == workspace.recipe.data
    of_model = model.problem if model else ""
    told = of_model or (preview.answer.problem if same and preview.answer else "")
    return told, _page(told, bool(of_model))


def _page(told: str, of_model: bool) -> str:
    template = in_form_words(told).startswith("Prompt template")  # whose field is far down on its page
    return "model" if of_model else "" if template else "data"
