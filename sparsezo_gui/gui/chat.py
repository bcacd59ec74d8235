"""The chat: answers of the base and the tuned model side by side, even during a run."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QCheckBox, QDockWidget, QFrame, QPlainTextEdit, QScrollArea, QWidget

from sparsezo_gui.answers import Task
from sparsezo_gui.errors import UserError
from sparsezo_gui.gui.formatting import count
from sparsezo_gui.gui.requests import InspectRun, ListTasks
from sparsezo_gui.gui.run_requests import ReadRun
from sparsezo_gui.gui.theme import GRID
from sparsezo_gui.gui.widgets.basic import add, button, card, clear, column, label, row
from sparsezo_gui.gui.widgets.exchange import STOPPED, AnswerSettings, Exchange, columns
from sparsezo_gui.gui.widgets.probes import EVERY, Probe, Probes
from sparsezo_gui.gui.widgets.safe_text import safe_sentence
from sparsezo_gui.gui.workspace import Workspace
from sparsezo_gui.recipe import Recipe, load
from sparsezo_gui.recipe.events import Answer, StopAnswer

HINT = (
    "Compare the base and the tuned model. {how} If the task has a list of answers, you see their probabilities. "
    "During a run, the models answer between two steps."
)
RAW = "Without the template: the model continues your text as it is."
_COLUMN = re.compile(r"{{-?\s*([^\W\d]\w*)")
_OPTIONAL = re.compile(r"{%-?\s*if\s+(\w+)\s*-?%}")


def _task(recipe: Recipe | None, tasks: list[Task]) -> Task | None:
    return next((each for each in tasks if recipe and each.name == recipe.data.task), None)


def hint(recipe: Recipe | None, tasks: list[Task]) -> str:
    """What the chat is for, and which templates the recipe puts a text into."""
    task = _task(recipe, tasks)
    into, but = "the run's template", ""
    if task is not None and task.kind == "chat":
        into = "the model's chat template"
    elif recipe and task is not None and task.chat_template:
        into += ", and into the model's chat template where there is one" if recipe.data.chat_template else ""
        but = "" if recipe.data.chat_template else " The model's chat template is not used."
    how = f"Your text goes into {into}, as the run's examples did.{but}"
    return HINT.format(how="The model continues your text." if task is not None and task.kind == "text" else how)


def placeholder(recipe: Recipe | None, tasks: list[Task], raw: bool) -> str:
    """Placeholder for the prompt, from the columns of the recipe's template: text for one column, else JSON."""
    task = _task(recipe, tasks)
    if raw or recipe is None or task is None or task.kind == "text":
        return "Type some text to continue…"
    if task.kind == "chat":
        return "Type a message…"
    data = recipe.data
    template = " ".join((data.template or task.prompt, task.item, *(answer.text for answer in task.answers)))
    names = dict.fromkeys(_COLUMN.findall(template)).keys() - {"row", "item", *_OPTIONAL.findall(template)}
    columns = sorted(data.columns.get(name, name) for name in {*names, task.items} - {""})
    if len(columns) == 1:
        return safe_sentence(f"Type the {columns[0]}…")
    return safe_sentence(f"Type {json.dumps(dict.fromkeys(columns, '…'), ensure_ascii=False)}")


def _turns(exchanges: Sequence[Exchange]) -> list[list[tuple[str, str]]]:
    """What each model was told and answered, in the exchanges in which the last ones' models took part."""
    done = [each for each in exchanges if not each.waiting]
    names = [column.name for column in done[-1].columns] if done else []
    same = [each for each in done if [column.name for column in each.columns] == names]
    return [[(each.prompt, each.text[place].strip()) for each in same] for place in range(len(names))]


class ChatDock(QDockWidget):
    """Beside the pages. If no run is active, the displayed run is loaded to answer."""

    def __init__(self, workspace: Workspace, parent: QWidget) -> None:
        super().__init__("Chat", parent)
        self.setObjectName("chat")
        self.setAccessibleName("Chat")
        self.setAllowedAreas(Qt.DockWidgetArea.RightDockWidgetArea | Qt.DockWidgetArea.BottomDockWidgetArea)
        self._workspace = workspace
        self._place: tuple[Path, int | None] | None = None
        self._exchanges: list[Exchange] = []
        self._waiting: deque[Exchange | Probe] = deque()  # in the order in which they were asked
        self._possible = False  # someone can be asked now
        self._of_chat = False  # the task is a chat, which has turns and a system prompt
        self._described: tuple[Any, ...] = ()
        self._advice = hint(None, [])
        self._list = column(spacing=2 * GRID)
        inner = QWidget()
        self._probes = Probes(self._keep_probes)
        inner.setLayout(column(self._probes, self._list, None, spacing=2 * GRID))
        self._area = QScrollArea()
        self._area.setAccessibleName("Questions and answers")
        self._area.setWidgetResizable(True)
        self._area.setFrameShape(QFrame.Shape.NoFrame)
        self._area.setProperty("role", "plain")
        self._area.setWidget(inner)
        self._area.verticalScrollBar().rangeChanged.connect(
            lambda _, high: self._area.verticalScrollBar().setValue(high)
        )
        self._target_label = label("", "dim", wrap=True, name="Answering model")
        self._prompt = QPlainTextEdit()
        self._prompt.setAccessibleName("Prompt")
        self._raw = QCheckBox("Raw")
        self._raw.setAccessibleName("Raw prompt")
        self._raw.setToolTip(RAW)
        self._raw.toggled.connect(self._refresh)
        self._prompt.setTabChangesFocus(True)
        self._prompt.setFixedHeight(9 * GRID)
        self._prompt.textChanged.connect(self._refresh)
        self._ask = button("Ask", self.ask, role="primary", name="Ask the model")
        self._ask.setShortcut("Ctrl+Return")
        self._clear = button("Clear", self.empty, role="flat", name="Clear chat")
        self._settings = AnswerSettings()
        self._settings.hide()
        more = button("Settings", lambda: self._settings.setVisible(self._settings.isHidden()), role="flat",
                      name="Settings of the answers")  # fmt: skip
        self._stop = button("Stop", self.stop, image="stop", name="Stop the answer")
        whole = card(self._area, self._target_label, self._settings, self._prompt,
                     row(self._clear, more, None, self._raw, self._stop, self._ask))  # fmt: skip
        whole.box.setStretch(0, 1)
        whole.setMinimumWidth(38 * GRID)
        self.setWidget(whole)
        self._add_title()
        workspace.run.answered.connect(self._take)
        workspace.run.advanced.connect(self._ask_probes)
        self._load_probes()
        workspace.on(ListTasks, call=self._refresh)
        for signal in (workspace.run.changed, workspace.blocker_changed):
            signal.connect(self._refresh)
        self.empty()

    def _add_title(self) -> None:
        """In the window, a title in its style; floating, that of the desktop."""
        bar = QWidget(self)
        line = row(
            label("Chat", "heading"), None,
            button("", lambda: self.setFloating(True), role="info", image="copy", tip="Moves the chat out.",
                   name="Move the chat out of the window"),
            button("", self.close, role="info", image="close", tip="Closes the chat.", name="Close the chat"),
        )  # fmt: skip
        line.setContentsMargins(2 * GRID, GRID, 2 * GRID, GRID)
        bar.setLayout(line)
        self.setTitleBarWidget(bar)

        def swap(floating: bool) -> None:
            bar.setVisible(not floating)
            self.setTitleBarWidget(None if floating else bar)  # type: ignore[arg-type]

        self.topLevelChanged.connect(swap)

    def set_target(self, folder: Path | None, step: int | None) -> None:
        """Chooses who answers: the run in ``folder`` after ``step``, or with None the displayed run."""
        self._place = (folder, step) if folder is not None else None
        self._refresh()

    def ask_about(self, folder: Path, step: int) -> None:
        """Opens with a run to ask."""
        self.set_target(folder, step)
        self.show()
        self.raise_()
        self._prompt.setFocus()

    def ask(self) -> None:
        """Asks both models."""
        raw, place = self._raw.isChecked(), self._chosen()
        prompt = self._prompt.toPlainText() if raw else self._prompt.toPlainText().strip("\n")
        if not prompt or place is None or not self._ask.isEnabled():
            return
        self._send(prompt, raw, self._exchanges)
        self._prompt.clear()

    def _send(self, prompt: str, raw: bool, before: Sequence[Exchange]) -> None:
        """Asks the models; in a chat, after what was said in the exchanges ``before``."""
        if (place := self._chosen()) is None:
            return
        folder, step = place
        if not self._exchanges:
            clear(self._list)
        turns = _turns(before) if self._of_chat else ()
        asked = columns(prompt, step, raw, self._settings, len(self._exchanges) + 1, turns)
        exchange = Exchange(prompt, asked, self._again, self._watch)
        self._exchanges.append(exchange)
        self._waiting.append(exchange)
        add(self._list, exchange)
        self._workspace.run.inspect(folder, *(each.ask for each in asked))
        self._refresh()

    def _again(self, exchange: Exchange) -> None:
        """Asks once more, as if nothing had been said since."""
        if self._possible:
            self._send(exchange.prompt, exchange.columns[0].ask.raw, self._exchanges[: self._exchanges.index(exchange)])

    def stop(self) -> None:
        """Ends the answer that is being written; those after it are not begun."""
        for exchange in self._exchanges:
            exchange.stopped = exchange.waiting
        self._workspace.run.command(StopAnswer())

    def empty(self) -> None:
        """Removes all answers."""
        for exchange in self._exchanges:
            exchange.gone = True
        clear(self._list)
        self._exchanges = []
        self._hint = label(self._advice, "hint", wrap=True)
        add(self._list, self._hint)
        self._refresh()

    def _chosen(self) -> tuple[Path, int | None] | None:
        record = self._workspace.run.record
        if self._place is not None:
            return self._place
        return (record.folder, None) if record is not None and record.folder is not None else None

    def _take(self, answer: Answer) -> None:
        if self._waiting and self._waiting[0].add_piece(answer):
            if isinstance(self._waiting.popleft(), Probe):
                self._probes.show_all()
            self._refresh()

    # Watched prompts

    def _watch(self, exchange: Exchange) -> None:
        self._probes.watch(exchange.prompt, exchange.columns[0].ask.raw)
        self._keep_probes()

    def _keep_probes(self) -> None:
        self._workspace.store.setValue("probes", json.dumps([[each.prompt, each.raw] for each in self._probes.probes]))

    def _load_probes(self) -> None:
        try:
            for prompt, raw in json.loads(str(self._workspace.store.value("probes", "[]", str))):
                self._probes.watch(str(prompt), bool(raw))
        except (ValueError, TypeError, RecursionError):
            return  # not written by this program

    def _ask_probes(self) -> None:
        """Asks the watched prompts that are due."""
        run = self._workspace.run
        record = run.record
        if not self._probes.probes or record is None or record.state != "running" or run.inspecting:
            return
        every = (record.recipe.loop.evaluate_every if record.recipe else 0) or EVERY
        for probe in self._probes.due(record.step, every):
            self._waiting.append(probe)
            run.command(probe.ask)

    def _refresh(self) -> None:
        workspace, place = self._workspace, self._chosen()
        record = workspace.run.record
        active = record if workspace.run.running and record is not None and record.folder is not None else None
        mine = active is not None and place is not None and place[0] == active.folder
        why = "" if mine else workspace.blocker
        if place is None:
            why = "There is no run to ask yet."
        elif active is not None and not mine:
            why = f"The run '{active.name}' is using the engine. Stop it to ask another run."
        if not workspace.run.running and not workspace.of(ReadRun).busy:
            problem = workspace.problem_of(InspectRun, ReadRun)
            for waiting in self._waiting:
                waiting.fail(problem.message if problem else STOPPED)
            self._waiting.clear()
        name = place[0].name if place is not None else ""
        at = f"after step {count(place[1])}" if place is not None and place[1] is not None else "latest step"
        self._target_label.setText(why or f"{name}, {at}")
        self._stop.setVisible(workspace.run.running and bool(self._waiting))
        self._possible = not why
        self._ask.setEnabled(not why and bool(self._prompt.toPlainText().strip()))
        self._describe(place[0] if place is not None else None)

    def _describe(self, folder: Path | None) -> None:
        """Sets the placeholder for the run in ``folder``, whose recipe is read once."""
        tasks, raw = self._workspace.of(ListTasks).answer or [], self._raw.isChecked()
        if self._described == (folder, raw, len(tasks)):
            return
        self._described = (folder, raw, len(tasks))
        try:
            recipe = load(folder / "recipe.toml") if folder is not None else None
        except UserError:  # shown where the run is opened
            recipe = None
        self._advice = hint(recipe, tasks)
        task = _task(recipe, tasks)
        self._of_chat = task is not None and task.kind == "chat"
        self._settings.show_chat(self._of_chat)
        if not self._exchanges:
            self._hint.setText(self._advice)
        self._prompt.setPlaceholderText(f"{placeholder(recipe, tasks, raw)}\nCtrl+Enter to ask")
