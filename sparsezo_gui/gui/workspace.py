"""What the pages share: the current recipe, the state of every request to the engine, and the displayed run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from PySide6.QtCore import QSettings, QTimer, Signal

from sparsezo_gui.answers import (
    MemoryEstimate,
    ModelCode,
    ModelSummary,
    Received,
)
from sparsezo_gui.gui import inputs
from sparsezo_gui.gui.calls import EngineCalls, Request, RunRequest
from sparsezo_gui.gui.client import Channel
from sparsezo_gui.gui.editing import Editing
from sparsezo_gui.gui.following import named
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
from sparsezo_gui.recipe import Recipe, dump

DEBOUNCE_MS = 250  # after the last recipe change, before the engine is asked again
FITS_CHECKED = 24  # models in the list that get a verdict
ABOUT_RECIPE = (ReadModel, EstimateMemory, MeasureMemory, EstimateWays, PreviewData)


class Workspace(Editing):
    """Created once, before the window; pages read it and listen to its signals."""

    recipe_stable = Signal()  # the recipe has not changed for a moment: time to ask the engine
    run_created = Signal(object, str)  # folder of a new branch or a received run, and what that run lacks

    def __init__(self, engine: EngineCalls | None = None) -> None:
        super().__init__(QSettings(), engine)
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

    def _changed(self, recipe: Recipe) -> None:
        if recipe.model != self.recipe.model or recipe.data != self.recipe.data:
            for kind in ABOUT_RECIPE:
                channel: Channel[Any] = self.of(kind)
                if channel.problem is not None:  # which is that of another model, or of other data
                    channel.problem = None
                    channel.changed.emit()
        self._debounce.start()
        super()._changed(recipe)

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
