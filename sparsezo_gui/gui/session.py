"""What the pages share: the current recipe, the engine's answers, and the displayed run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, QSettings, QThread, QTimer, Signal

from sparsezo_gui.errors import UserError
from sparsezo_gui.gui.problems import Problem
from sparsezo_gui.gui.record import RunRecord
from sparsezo_gui.gui.worker import DOING, LONG, RUNS, Engine, Message, Request, Worker
from sparsezo_gui.recipe import Recipe, dump, load, loads
from sparsezo_gui.recipe.events import Answer, Ask, Command, EvaluateNow, Notice, Pause, Progress, Release, Resume, Stop
from sparsezo_gui.recipe.tables import changed

DRAIN_MS = 66
SETTLE_MS = 250  # after the last recipe change, before the engine is asked again
RECENT_RECIPES = 8
FITS_LOOKED_AT = 24  # models in the list that get a verdict


class Session(QObject):
    """Owns the worker's thread. Everything here runs in the window's thread."""

    recipe_changed = Signal()
    settled = Signal()  # the recipe has not changed for a moment: time to ask the engine
    engine_changed = Signal()
    hindrance_changed = Signal()
    models_changed = Signal()
    summary_changed = Signal()
    estimate_changed = Signal()
    mask_changed = Signal()
    rates_changed = Signal()
    preview_changed = Signal()
    tasks_changed = Signal()
    runs_changed = Signal()
    run_changed = Signal()  # another run is displayed, or its state changed
    run_advanced = Signal()  # steps or notices arrived
    export_changed = Signal()
    answered = Signal(object)  # an Answer: a piece of what the model writes
    run_made = Signal(object, str)  # folder of a new branch or a received run, and what that run lacks
    consent_wanted = Signal(str, object)  # kind of a refused request, and the model code that it needs

    def __init__(self, engine: Engine | None = None) -> None:
        super().__init__()
        self.store = QSettings()
        self.recipe = _first_recipe(self.store)
        self.recipe_path: Path | None = None
        self.engine_state = "waiting"  # then 'loading', 'ready' or 'failed'
        self.busy: dict[str, Progress | None] = {}  # kinds in progress, with their last progress
        self.answers: dict[str, Any] = {}  # last answer by kind
        self.notices: dict[str, list[str]] = {}  # from the last request of each kind
        self.problems: dict[str, Problem] = {}  # last problem by kind, until its next answer
        self.measured = False  # whether the estimate was measured
        self.record: RunRecord | None = None
        self.asked = ""  # what the running loop still has to do: 'pause', 'stop', 'evaluate' or 'ask'
        self._arguments: dict[str, tuple[Any, ...]] = {}  # of the last request by kind
        self._allowed = ""  # kind of the request that waits for the consent to be saved
        self._wanted: tuple[Path, str, tuple[Command, ...]] | None = None  # run to open, how, and its commands
        self._visited: tuple[Path, tuple[Command, ...]] | None = None  # last run opened to view, its commands
        self._accepts = False  # whether to open it despite changed inputs
        self._hindered = self.blocker  # as last announced
        self._number = 0
        self._newest: dict[str, int] = {}
        self._thread = QThread()
        self._thread.setObjectName("engine")
        self._worker = Worker(engine or Engine())
        self._worker.moveToThread(self._thread)
        self._thread.started.connect(self._worker.serve)
        self._drain = QTimer(self, interval=DRAIN_MS)
        self._drain.timeout.connect(self.drain)
        self._settle = QTimer(self, interval=SETTLE_MS, singleShot=True)
        self._settle.timeout.connect(self._on_settled)

    # The worker

    def start(self, run: Path | None = None) -> None:
        """Starts the worker: first what needs no ML stack (such as opening ``run`` or the last run), then the stack."""
        self._thread.start(QThread.Priority.LowPriority)
        self._drain.start()
        self.ask("tasks")
        self.list_runs()
        last = str(run or self.store.value("last_run", "", str))
        if last and self.record is None and Path(last).is_dir():
            self.open_run(Path(last))
        self.ask("load")
        self.engine_state = "loading"
        self.engine_changed.emit()
        self.ask("models")
        self._on_settled()

    def ask(self, kind: str, *arguments: Any) -> None:
        """Queues a request for the worker; a signal announces the answer."""
        self._number += 1
        self._newest[kind] = self._worker.latest[kind] = self._number
        self.busy[kind], self._arguments[kind] = None, arguments
        self.notices.pop(kind, None)
        self._worker.inbox.put(Request(kind, self._number, arguments))
        self._update_blocker()

    def drain(self) -> None:
        """Empties the worker's outbox; emits each signal at most once."""
        outbox, signals = self._worker.outbox, dict[str, Any]()
        events = []
        while outbox:
            message = outbox.popleft()
            if message.kind in RUNS and message.what == "event":
                events.append(message.value)
            else:
                self._take(events)
                events = []
                signal = self._receive(message)
                if signal is not None:
                    signals[str(signal)] = signal
        self._take(events)
        for signal in signals.values():
            signal.emit()
        self._update_blocker()

    def _take(self, events: list[Any]) -> None:
        if not events or self.record is None:
            return
        state, folder, evaluations = self.record.state, self.record.folder, len(self.record.evaluations)
        self.record.add(events)
        for event in events:
            if isinstance(event, Answer):
                self.answered.emit(event)
        if self.record.state != state or self.record.folder != folder:
            self.asked = "" if self.asked != "stop" or not self.record.active else self.asked
            self.store.setValue("last_run", str(self.record.folder or ""))
            self.run_changed.emit()
        elif self.asked == "evaluate" and (
            self.record.progress
            or len(self.record.evaluations) != evaluations
            or any(isinstance(event, Notice) for event in events)
        ):
            self.asked = ""
        if self.asked == "ask" and any(isinstance(event, Answer) and event.last for event in events):
            self.asked = ""
        self.run_advanced.emit()

    def _signal(self, kind: str) -> Any:
        """The signal that announces results of this kind of request."""
        return {
            "load": self.engine_changed, "tasks": self.tasks_changed, "models": self.models_changed,
            "fits": self.models_changed, "summary": self.summary_changed,
            "estimate": self.estimate_changed, "measure": self.estimate_changed, "mask": self.mask_changed,
            "rates": self.rates_changed,
            "preview": self.preview_changed, "runs": self.runs_changed, "history": self.run_changed,
            **dict.fromkeys(RUNS, self.run_changed), "export": self.export_changed,
            **dict.fromkeys(("branch", "note", "contents", "share", "receive"), self.runs_changed),
            "consent": self.hindrance_changed,
        }[kind]  # fmt: skip

    def _receive(self, message: Message) -> Any:
        kind = message.kind
        signal = self._signal(kind)
        if message.number != self._newest.get(kind):
            return None
        if message.what == "event":
            if isinstance(message.value, Progress):
                self.busy[kind] = message.value
            elif isinstance(message.value, Notice):
                self.notices.setdefault(kind, []).append(message.value.text)
            return None if kind in ("fits", "estimate") else signal  # no page shows their progress
        self.busy.pop(kind, None)
        self.problems.pop(kind, None)
        if message.what == "problem":
            self.problems[kind] = message.value
        elif message.what == "answer":
            self.answers[kind] = message.value
        if kind == "load":
            self.engine_state = "failed" if message.what == "problem" else "ready"
        elif kind == "models" and message.what == "answer":
            self.ask(
                "fits", self.recipe, tuple(model.id for model in message.value if not model.problem)[:FITS_LOOKED_AT]
            )
        elif kind == "estimate":
            self.measured = False
            self.problems.pop("measure", None)
        elif kind == "measure" and message.what == "answer":
            self.answers["estimate"], self.measured = message.value, True
            self.problems.pop("estimate", None)
        elif kind == "history":
            self._opened(message)
        elif kind == "consent":
            self._consented(message)
        elif kind in ("branch", "note", "receive") and message.what == "answer":
            self.list_runs()
            if message.value is not None:
                self.run_made.emit(*(message.value if kind == "receive" else (message.value, "")))
        elif kind in RUNS and self.record is not None:
            if self.record.active:
                self.record.state = "failed" if message.what == "problem" else "stopped"
            self.record.progress = None
            self.asked = ""
            self.list_runs()
            if kind == "look" and self.record.folder is not None:
                self.open_run(self.record.folder)  # in its state on disk
        if kind in LONG and message.what == "problem" and message.value.code is not None:
            self.consent_wanted.emit(kind, message.value.code)
        return signal

    def allow(self, kind: str, code: Any) -> None:
        """The user allows a model's code to run: saves this, then repeats the request that needed it."""
        self._allowed = kind
        self.ask("consent", code)

    def refuse(self, kind: str) -> None:
        """The user does not allow it: the request is dropped, and its page shows why."""
        self.problems[kind] = Problem(
            "Nothing was done, because you did not allow the model's code to run. Try again to be asked again, or "
            "choose another model."
        )
        self._signal(kind).emit()

    def _consented(self, message: Message) -> None:
        kind, arguments = self._allowed, self._arguments[self._allowed]
        if message.what != "answer":
            self.problems[kind] = self.problems.pop("consent")
        else:
            self._on_settled()  # memory and examples are available now
            if kind in RUNS and self.record is not None:
                if kind == "train" and self.record.folder is not None:  # its code changed during the run
                    kind, arguments = "resume", (self.record.folder,)
                self.record.state, self.record.finished = "starting", None
            self.problems.pop(self._allowed, None)
            self.ask(kind, *arguments)
        self._signal(kind).emit()

    def _opened(self, message: Message) -> None:
        folder, history = message.value if message.what == "answer" else (None, None)
        wanted, self._wanted = self._wanted, None
        if history is not None and not self.running:
            self.record = RunRecord.from_history(folder, history)
            self.store.setValue("last_run", str(folder))
            self.list_runs()
            if wanted is not None and wanted[0] == folder and not self.blocker:
                self.record.state, self.record.finished = "starting", None
                self._begin(self.record, wanted[1], folder, *([self._accepts] if wanted[1] == "look" else []))
                for command in wanted[2]:
                    self.command(command)

    def list_runs(self) -> None:
        """Asks for all runs, including the displayed one wherever it is stored."""
        self.ask("runs", self.record.folder if self.record else None)

    def close(self, patience: float = 2.0) -> bool:
        """Ends the worker; returns False if it is still in a call that cannot be interrupted."""
        self._drain.stop()
        self._settle.stop()
        self.store.setValue("recipe", dump(self.recipe))
        self.store.sync()
        self._worker.leave.set()
        self._worker.commands.put(Stop())
        self._worker.inbox.put(None)
        self._thread.quit()
        return not self._thread.isRunning() or self._thread.wait(int(patience * 1000))

    # The recipe

    def set_recipe(self, recipe: Recipe, path: Path | None = None) -> None:
        """Replaces the recipe."""
        self.recipe, self.recipe_path = recipe, path
        if path is not None:
            paths = [str(path), *(p for p in self.recent_recipes() if p != str(path))]
            self.store.setValue("recent_recipes", paths[:RECENT_RECIPES])
        self._settle.start()
        self.recipe_changed.emit()

    def recent_recipes(self) -> list[str]:
        """Paths of recent recipe files, newest first."""
        value = self.store.value("recent_recipes", [])
        return [value] if isinstance(value, str) else list(value or [])

    def change(self, table: str, **values: Any) -> str:
        """Changes settings of one table; returns a sentence about what is wrong with them, or an empty string."""
        return self.change_all({table: values})

    def change_all(self, tables: dict[str, dict[str, Any]]) -> str:
        """Like `change`, for several tables at once."""
        try:
            recipe = changed(self.recipe, tables)
        except UserError as error:
            return str(error).replace("recipe: ", "")
        if recipe != self.recipe:
            self.recipe = recipe
            self._settle.start()
            self.recipe_changed.emit()
        return ""

    def apply_text(self, text: str) -> None:
        """Sets the recipe from TOML text. Raises `UserError` with one sentence per mistake."""
        self.set_recipe(loads(text, "recipe"), self.recipe_path)

    def _on_settled(self) -> None:
        for kind in ("summary", "estimate"):
            self.ask(kind, self.recipe)
        self.settled.emit()

    def preview(self, page: int = 0) -> None:
        """Asks for one page of the data."""
        self.ask("preview", self.recipe, page)
        self.preview_changed.emit()

    def measure(self) -> None:
        """Asks for a memory measurement."""
        if not self.blocker:
            self.ask("measure", self.recipe)
            self.estimate_changed.emit()

    def find_mask(self) -> None:
        """Asks for the recipe's mask."""
        if not self.blocker:
            self.problems.pop("mask", None)
            self.ask("mask", self.recipe)
            self.mask_changed.emit()

    def find_rate(self) -> None:
        """Asks for a suitable learning rate."""
        if not self.blocker:
            self.problems.pop("rates", None)
            self.ask("rates", self.recipe)
            self.rates_changed.emit()

    @property
    def rates(self) -> Any:
        """Report of the learning rates tried for this method, model and data, or None."""
        recipe, report = self.answers.get("rates", (None, None))
        return report if recipe is not None and _of_rates(recipe) == _of_rates(self.recipe) else None

    @property
    def mask(self) -> Any:
        """Report of the mask found for this model and rule, or None."""
        recipe, report = self.answers.get("mask", (None, None))
        return report if recipe is not None and _of_mask(recipe) == _of_mask(self.recipe) else None

    @property
    def blocker(self) -> str:
        """Why no long request can start now, as a sentence; empty if one can."""
        if self.engine_state != "ready":
            return "The engine failed to load." if self.engine_state == "failed" else "The engine is still loading."
        doing = next((DOING[kind] for kind in self.busy if kind in LONG), "")
        return f"The engine is busy {doing}." if doing else ""

    def _update_blocker(self) -> None:
        if self.blocker != self._hindered:
            self._hindered = self.blocker
            self.hindrance_changed.emit()

    def cancel(self, kind: str) -> None:
        """Cancels long work of this kind at its next event, or drops it if it has not started."""
        self._worker.cancelled[kind] = self._newest.get(kind, 0)
        self._worker.inbox.put(Request("wake", 0))

    # The run

    @property
    def running(self) -> bool:
        """Whether a run holds the engine."""
        return any(kind in self.busy for kind in RUNS)

    @property
    def looking(self) -> bool:
        """Whether a run holds the engine only to be viewed."""
        return "look" in self.busy

    def train(self) -> None:
        """Starts a run with the recipe."""
        if not self.running:
            self._begin(RunRecord(self.recipe), "train", self.recipe)

    def resume_run(self) -> None:
        """Resumes the displayed run."""
        if not self.running and self.record is not None and self.record.folder is not None:
            self.record.state, self.record.finished = "starting", None
            self._begin(self.record, "resume", self.record.folder)

    def _begin(self, record: RunRecord, kind: str, *arguments: Any) -> None:
        while not self._worker.commands.empty():
            self._worker.commands.get_nowait()
        self.record, self.asked, self._wanted = record, "", None
        for key in (*RUNS, "history"):
            self.problems.pop(key, None)
        self.ask(kind, *arguments)
        self.run_changed.emit()

    def open_run(self, folder: Path) -> None:
        """Shows a run from disk."""
        self.ask("history", folder)

    def visit(self, folder: Path, *commands: Command) -> None:
        """Sends commands to the run in ``folder``; if it is not active, its model is loaded for them."""
        self._visited, self._accepts = (folder, commands), False
        self._want(folder, "look", commands)

    def visit_changed(self) -> None:
        """Repeats the last `visit` despite changed inputs, without its prompts, which the chat has dropped by then."""
        if self._visited is not None:
            folder, commands = self._visited
            self._accepts = True
            self._want(folder, "look", tuple(each for each in commands if not isinstance(each, Ask)))

    def go_on(self, folder: Path) -> None:
        """Resumes the run in ``folder``."""
        self._want(folder, "resume", (Resume(),))

    def _want(self, folder: Path, kind: str, commands: tuple[Command, ...]) -> None:
        if self.running and self.record is not None and self.record.folder == folder:
            for command in commands:
                self.command(command)
        elif not self.blocker:
            if self._wanted is not None and self._wanted[:2] == (folder, kind):
                commands = (*self._wanted[2], *commands)
            self._wanted = (folder, kind, commands)
            self.open_run(folder)

    def command(self, command: Command) -> None:
        """Sends a command to the running loop, which reads it between steps."""
        names = {Pause: "pause", Release: "pause", Resume: "", Stop: "stop", EvaluateNow: "evaluate", Ask: "ask"}
        self.asked = names.get(type(command), self.asked)
        if isinstance(command, Stop) and self.record is not None and self.record.state == "starting":
            for kind in RUNS:
                self.cancel(kind)  # the loop reads no commands yet
        self._worker.commands.put(command)
        self._worker.inbox.put(Request("wake", 0))
        self.run_changed.emit()


def _of_mask(recipe: Recipe) -> tuple[Any, ...]:
    """The settings that a mask depends on."""
    return recipe.model, recipe.mask, recipe.loop.seed, recipe.data if recipe.mask.reads_task else None


def _of_rates(recipe: Recipe) -> tuple[Any, ...]:
    """The settings that a suitable learning rate depends on."""
    update = recipe.update.model_copy(update={"learning_rate": 1.0, "schedule": "constant"})
    loop = recipe.loop.batch_size, recipe.loop.seed
    return recipe.model, recipe.data, recipe.mask, recipe.estimator, update, recipe.objective, recipe.privacy, loop


def _first_recipe(store: QSettings) -> Recipe:
    """The last session's recipe, else the bundled one, else the defaults."""
    text = store.value("recipe", "", str)
    for attempt in (lambda: loads(text) if text else load("starter"), lambda: load("starter")):
        try:
            return attempt()
        except UserError:
            continue  # from another version of SparseZO, or not installed
    return Recipe()
