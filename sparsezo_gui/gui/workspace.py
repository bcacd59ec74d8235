"""What the pages share: the current recipe, the state of every request to the engine, and the displayed run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from PySide6.QtCore import QSettings, QTimer, Signal

from sparsezo_gui.answers import (
    MemoryEstimate,
    ModelCode,
    ModelSummary,
    Received,
)
from sparsezo_gui.errors import UserError
from sparsezo_gui.gui import inputs
from sparsezo_gui.gui.calls import EngineCalls, Request, RunRequest
from sparsezo_gui.gui.client import Channel
from sparsezo_gui.gui.current import Current
from sparsezo_gui.gui.faults import Faults, differing
from sparsezo_gui.gui.following import following, named
from sparsezo_gui.gui.kept import texts
from sparsezo_gui.gui.problems import Problem
from sparsezo_gui.gui.requests import (
    CheckComputer,
    CheckFits,
    CompareWays,
    EstimateMemory,
    EstimateWays,
    FindCrashes,
    FindMask,
    FindRate,
    GiveConsent,
    ListModels,
    ListTasks,
    MeasureMemory,
    PreviewData,
    ProbeNoise,
    ReadModel,
)
from sparsezo_gui.gui.run_control import RunControl
from sparsezo_gui.gui.run_queue import Queue
from sparsezo_gui.gui.run_requests import BranchRun, ReceiveRun, SaveNotes
from sparsezo_gui.recipe import Recipe, dump, load, loads
from sparsezo_gui.recipe.presets import METHOD, Preset
from sparsezo_gui.recipe.registry import ESTIMATORS, UPDATES
from sparsezo_gui.recipe.tables import changed
from sparsezo_gui.recipe.ways import AUTO

DEBOUNCE_MS = 250  # after the last recipe change, before the engine is asked again
RECENT_RECIPES = 8
FITS_CHECKED = 24  # models in the list that get a verdict
ABOUT_RECIPE = (ReadModel, EstimateMemory, MeasureMemory, EstimateWays, PreviewData)


class Workspace(Current):
    """Created once, before the window; pages read it and listen to its signals."""

    recipe_changed = Signal()
    recipe_stable = Signal()  # the recipe has not changed for a moment: time to ask the engine
    run_created = Signal(object, str)  # folder of a new branch or a received run, and what that run lacks

    def __init__(self, engine: EngineCalls | None = None) -> None:
        super().__init__(engine)
        self.store = QSettings()
        self.recipe = _first_recipe(self.store)
        self.recipe_path: Path | None = None
        self.faults = Faults()
        self._bits: tuple[dict[str, Any], dict[str, Any]] = {}, {}  # as a preset needs them, and from before it
        self.run = RunControl(self, self.store)
        self.queue = Queue(self.run, self.store)
        self._debounce = QTimer(self, interval=DEBOUNCE_MS, singleShot=True)
        self._debounce.timeout.connect(self._ask_about_recipe)
        self.of(ListModels).answered.connect(self._check_fits)
        self.of(EstimateMemory).finished.connect(lambda _: self.of(MeasureMemory).forget())
        self.of(MeasureMemory).answered.connect(self._measured)
        self.of(GiveConsent).finished.connect(self._repeat)
        self.of(SaveNotes).answered.connect(lambda *_: self.run.list_runs())
        self.of(BranchRun).answered.connect(lambda _, folder: self._created(folder, ""))
        self.of(ReceiveRun).answered.connect(self._received)

    def start(self, run: Path | None = None) -> None:
        """Starts the worker: first what needs no ML stack (such as opening ``run`` or the last run), then the stack."""
        self.open()
        self.ask(ListTasks())
        self.run.list_runs()
        last = str(run or self.store.value("last_run", "", str))
        if last and self.run.record is None and os.path.isdir(last):
            self.run.open(Path(last))
        self.ask(CheckComputer())
        self.ask(FindCrashes())
        self.load()
        self.ask(ListModels())
        self._ask_about_recipe()

    def close(self, patience: float = 2.0) -> bool:
        """Saves the recipe and ends the worker; see `Client.close`."""
        self._debounce.stop()
        self.store.setValue("recipe", dump(self.recipe))
        self.store.sync()
        self.run.close()
        return super().close(patience)

    # The recipe

    def set_recipe(self, recipe: Recipe, path: Path | None = None) -> None:
        """Replaces the recipe."""
        self.recipe_path = path
        if path is not None:
            paths = [str(path), *(p for p in self.recent_recipes() if p != str(path))]
            self.store.setValue("recent_recipes", paths[:RECENT_RECIPES])
        self.faults.clear()
        self._bits = {}, {}
        self._changed(recipe)

    def recent_recipes(self) -> list[str]:
        """Paths of recent recipe files, newest first."""
        return texts(self.store, "recent_recipes")

    def change(self, table: str, **values: Any) -> str:
        """Changes settings of one table; returns a sentence about what is wrong with them, or an empty string."""
        return self.change_all({table: values})

    def change_all(self, tables: dict[str, dict[str, Any]]) -> str:
        """Like `change`, for several tables at once."""
        return self._take(lambda: changed(self.recipe, tables), tables)

    def use_preset(self, preset: Preset) -> str:
        """Sets the whole method, and takes back the bits that an earlier preset needed; returns what is wrong."""
        table = self.recipe.model.model_dump(include={"bits", "compute"})
        own = preset.settings.get("model")
        needed, usual = self._bits
        back = usual if table == needed and own is None else {}
        fault = self._take(lambda: preset.recipe(self.recipe, **back), dict.fromkeys(METHOD, ("rule",)))
        if not fault:
            self._bits = (own, usual if table == needed else table) if own else ({}, {})
        return fault

    def _take(self, make: Callable[[], Recipe], tables: Mapping[str, Iterable[str]]) -> str:
        """Uses the recipe that ``make`` returns, which sets ``tables``; returns what is wrong with it."""
        try:
            recipe = make()
        except UserError as error:
            return str(error).replace("recipe: ", "")
        self.faults.settle(tables)
        if recipe != self.recipe:
            self._changed(following(self.recipe, recipe, self.recipe_path.stem if self.recipe_path else ""))
        return ""

    def apply_text(self, text: str) -> None:
        """Sets the recipe from TOML text. Raises `UserError` with one sentence per mistake."""
        self.set_recipe(loads(text, "recipe"), self.recipe_path)

    @property
    def automatic(self) -> bool:
        """Whether the user wants recipes to choose their method automatically."""
        return bool(self.store.value("automatic", False, bool))

    def set_automatic(self, on: bool) -> None:
        """Saves what the user wants, and changes the recipe accordingly."""
        self.store.setValue("automatic", on)
        if on and self.recipe.estimator.rule != AUTO:
            update = {"update": {"rule": UPDATES.default}} if self.recipe.estimator.backwards else {}
            self.change_all({"estimator": {"rule": AUTO}, **update})
        elif not on and self.recipe.estimator.rule == AUTO:
            self.change("estimator", rule=ESTIMATORS.default)

    def _changed(self, recipe: Recipe) -> None:
        if recipe.model != self.recipe.model or recipe.data != self.recipe.data:
            for kind in ABOUT_RECIPE:
                channel: Channel[Any] = self.of(kind)
                if channel.problem is not None:  # which is that of another model, or of other data
                    channel.problem = None
                    channel.changed.emit()
        self.faults.settle(differing(self.recipe, recipe))
        self.recipe = recipe
        self._debounce.start()
        self.recipe_changed.emit()

    def _ask_about_recipe(self) -> None:
        self.store.setValue("recipe", dump(self.recipe))  # now, because the process may be killed
        self.ask(ReadModel(self.recipe))
        self.ask(EstimateMemory(self.recipe))
        self.ask(EstimateWays(self.recipe))
        asked, models = self.of(CheckFits).request, self.of(ListModels)
        if (
            isinstance(asked, CheckFits)
            and inputs.of_fits(asked.recipe) != inputs.of_fits(self.recipe)
            and models.answer
        ):
            self._check_fits(ListModels(), models.answer)
        self.recipe_stable.emit()

    # Questions about the recipe

    def preview(self, page: int = 0) -> None:
        """Asks for one page of the data."""
        self._ask_now(PreviewData(self.recipe, page))

    def measure(self) -> None:
        """Asks for a memory measurement."""
        if not self.blocker:
            self._ask_now(MeasureMemory(self.recipe))

    def find_mask(self) -> None:
        """Asks for the recipe's mask."""
        if not self.blocker:
            self.of(FindMask).problem = None
            self._ask_now(FindMask(self.recipe))

    def find_rate(self) -> None:
        """Asks for a suitable learning rate."""
        if not self.blocker:
            self.of(FindRate).problem = None
            self._ask_now(FindRate(self.recipe))

    def probe_noise(self) -> None:
        """Asks for the noise of the loss differences."""
        if not self.blocker:
            self.of(ProbeNoise).problem = None
            self._ask_now(ProbeNoise(self.recipe))

    def compare_ways(self) -> None:
        """Asks for a comparison of the ways to tune."""
        if not self.blocker:
            self.of(CompareWays).problem = None
            self._ask_now(CompareWays(self.recipe))

    def look_again(self) -> None:
        """Asks again what is wrong with the recipe, which may be mended by now."""
        self._ask_about_recipe()
        self.preview()

    @property
    def start_blocker(self) -> str:
        """Why no run can be started now, as a sentence: a start waits for the engine to load, but only one does."""
        return "" if self.engine_state == "loading" and not self.run.running else self.blocker

    def train(self) -> None:
        """Starts a run with the recipe, unless a field shows what the recipe does not say."""
        if not self.faults.first:
            self.run.start(named(self.recipe))

    def enqueue(self) -> None:
        """Adds a run with the recipe to the queue."""
        if not self.faults.first:
            self.queue.add(named(self.recipe))

    def _ask_now(self, request: Request[Any]) -> None:
        """Asks, and immediately shows that the request is in progress."""
        self.ask(request)
        self.of(type(request)).changed.emit()

    # Answers that lead to more

    def _check_fits(self, request: ListModels, models: list[ModelSummary]) -> None:
        names = tuple(model.id for model in models if not model.problem)
        self.ask(CheckFits(self.recipe, names[:FITS_CHECKED]))

    def _measured(self, request: MeasureMemory, measured: MemoryEstimate) -> None:
        estimate = self.of(EstimateMemory)
        estimate.answer, estimate.answered_request = measured, EstimateMemory(request.recipe)
        estimate.problem = None

    def _received(self, request: ReceiveRun, received: Received) -> None:
        self._created(received.folder, received.lacks)

    def _created(self, folder: Path, lacks: str) -> None:
        self.run.list_runs()
        self.run_created.emit(folder, lacks)

    # Consent to run a model's code

    def allow(self, request: Request[Any], code: ModelCode) -> None:
        """The user allows a model's code to run: saves this, then repeats the request that needed it."""
        self.ask(GiveConsent(code, request))

    def refuse(self, request: Request[Any]) -> None:
        """The user does not allow it: the request is dropped, and its page shows why."""
        channel = self.of(type(request))
        channel.problem = Problem(
            "Nothing was done, because you did not allow the model's code to run. Try again to be asked again, or "
            "choose another model."
        )
        channel.changed.emit()

    def _repeat(self, consent: GiveConsent) -> None:
        """The consent was saved, or could not be."""
        request, problem = consent.waiting, self.of(GiveConsent).problem
        channel = self.of(type(request))
        channel.problem, self.of(GiveConsent).problem = problem, None
        if problem is None:
            self._ask_about_recipe()  # memory and examples are available now
            if isinstance(request, RunRequest):
                self.run.ask_again(request)
            else:
                self.ask(request)
        channel.changed.emit()


def _first_recipe(store: QSettings) -> Recipe:
    """The last session's recipe, else the bundled one, else the defaults."""
    text = str(store.value("recipe", "", str))
    attempts: list[Callable[[], Recipe]] = [lambda: loads(text), lambda: load("starter")]
    for attempt in attempts if text else attempts[1:]:
        try:
            return attempt()
        except UserError:
            continue  # from another version of SparseZO, or not installed
    return Recipe.model_validate({})
