"""The questions that the window asks the engine, one class each.

A request says what it asks (its fields), which method of the engine answers it (`ask`), how it is named while it runs,
and how it is served. Its base class, `calls.Request`, names the type of the answer. To add one, write a class here, or
in `run_requests` for saved runs, and a method of the engine (`calls.EngineCalls`, `worker.Engine`); then use
``workspace.ask(…)`` and ``workspace.of(…)``.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsezo_gui import answers as a
from sparsezo_gui.gui.calls import EngineCalls, Request, RunRequest, Work
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe.events import Event
from sparsezo_gui.recipe.noise import NoiseProbed


@dataclass(frozen=True)
class LoadEngine(Request[None]):
    """Imports the ML stack; stops early when the window is ``closing``."""

    activity = "loading the engine"
    long = True
    closing: threading.Event

    def ask(self, engine: EngineCalls) -> Work[None]:
        return engine.load(self.closing)


@dataclass(frozen=True)
class GiveConsent(Request[None]):
    """Saves that the user allows ``code`` to run, which the request ``waiting`` needs."""

    activity = "saving your consent"
    code: a.ModelCode
    waiting: Request[Any]

    def ask(self, engine: EngineCalls) -> None:
        engine.consent(self.code)


# Before a run


@dataclass(frozen=True)
class CheckComputer(Request[list[a.Finding]]):
    """What is installed on this computer, and what is wrong with it."""

    activity = "checking this computer"

    def ask(self, engine: EngineCalls) -> list[a.Finding]:
        return engine.computer()


@dataclass(frozen=True)
class FindCrashes(Request[list[a.Crash]]):
    """The windows that ended without being closed, newest first; each is told once."""

    activity = "looking for interrupted runs"

    def ask(self, engine: EngineCalls) -> list[a.Crash]:
        return engine.crashes()


@dataclass(frozen=True)
class ListTasks(Request[list[a.Task]]):
    """The tasks that data can be used for."""

    activity = "listing tasks"

    def ask(self, engine: EngineCalls) -> list[a.Task]:
        return engine.tasks()


@dataclass(frozen=True)
class ListModels(Request[list[a.ModelSummary]]):
    """The models on this computer."""

    activity = "looking for models"

    def ask(self, engine: EngineCalls) -> list[a.ModelSummary]:
        return engine.models()


@dataclass(frozen=True)
class ReadModel(Request[a.ModelSummary]):
    """The recipe's model, from its config and tokenizer alone."""

    activity = "reading the model"
    only_last = True
    recipe: Recipe

    def ask(self, engine: EngineCalls) -> a.ModelSummary:
        return engine.summary(self.recipe)


@dataclass(frozen=True)
class CheckFits(Request[dict[str, str]]):
    """Verdict of the memory estimate by model, otherwise as in the recipe."""

    activity = "checking which models fit"
    only_last = True
    shows_progress = False
    recipe: Recipe
    models: tuple[str, ...]

    def ask(self, engine: EngineCalls) -> Work[dict[str, str]]:
        return engine.fits(self.recipe, self.models)


@dataclass(frozen=True)
class JudgeFound(Request[list[a.Found]]):
    """The models that a search found, with the verdicts for another recipe."""

    activity = "checking which models fit"
    only_last = True
    recipe: Recipe
    found: tuple[a.Found, ...]

    def ask(self, engine: EngineCalls) -> list[a.Found]:
        return engine.judge(self.recipe, self.found)


@dataclass(frozen=True)
class EstimateMemory(Request[a.MemoryEstimate]):
    """Memory by formula."""

    activity = "estimating memory"
    only_last = True
    shows_progress = False
    recipe: Recipe

    def ask(self, engine: EngineCalls) -> Work[a.MemoryEstimate]:
        return engine.estimate(self.recipe)


@dataclass(frozen=True)
class MeasureMemory(Request[a.MemoryEstimate]):
    """Memory by two real steps."""

    activity = "measuring memory"
    long = True
    recipe: Recipe

    def ask(self, engine: EngineCalls) -> Work[a.MemoryEstimate]:
        return engine.measure(self.recipe)


@dataclass(frozen=True)
class EstimateWays(Request[a.Plan]):
    """The ways to tune, with their memory by formula."""

    activity = "comparing ways to tune"
    only_last = True
    shows_progress = False
    recipe: Recipe

    def ask(self, engine: EngineCalls) -> Work[a.Plan]:
        return engine.ways(self.recipe)


@dataclass(frozen=True)
class CompareWays(Request[a.Plan]):
    """The ways to tune, with their memory and time by measurement."""

    activity = "comparing ways to tune"
    long = True
    recipe: Recipe

    def ask(self, engine: EngineCalls) -> Work[a.Plan]:
        return engine.plan(self.recipe)


@dataclass(frozen=True)
class PreviewData(Request[a.DataPreview]):
    """One page of the data, and the text that the model will see."""

    activity = "reading the data"
    only_last = True
    recipe: Recipe
    page: int

    def ask(self, engine: EngineCalls) -> Work[a.DataPreview]:
        return engine.preview(self.recipe, self.page)


@dataclass(frozen=True)
class FindMask(Request[a.MaskReport]):
    """The mask that a run of the recipe would use."""

    activity = "finding the mask"
    long = True
    recipe: Recipe

    def ask(self, engine: EngineCalls) -> Work[a.MaskReport]:
        return engine.mask(self.recipe)


@dataclass(frozen=True)
class FindRate(Request[a.RateReport]):
    """A suitable learning rate."""

    activity = "finding a learning rate"
    long = True
    recipe: Recipe

    def ask(self, engine: EngineCalls) -> Work[a.RateReport]:
        return engine.rates(self.recipe)


@dataclass(frozen=True)
class ProbeNoise(Request[NoiseProbed]):
    """Differences of the loss and their rounding noise, by epsilon."""

    activity = "measuring noise"
    long = True
    recipe: Recipe

    def ask(self, engine: EngineCalls) -> Work[NoiseProbed]:
        return engine.noise(self.recipe)


# Runs that hold the engine


@dataclass(frozen=True)
class StartRun(RunRequest):
    """A new run."""

    activity = "training"
    recipe: Recipe

    def ask(self, engine: EngineCalls) -> Iterator[Event]:
        return engine.train(self.recipe, self.commands)


@dataclass(frozen=True)
class ResumeRun(RunRequest):
    """A run that was stopped or interrupted."""

    activity = "resuming the run"
    folder: Path

    def ask(self, engine: EngineCalls) -> Iterator[Event]:
        return engine.resume(self.folder, self.commands)


@dataclass(frozen=True)
class InspectRun(RunRequest):
    """A run with its model loaded, paused, for commands about any of its steps; ``accept`` is whether to go ahead
    despite changed inputs."""

    activity = "opening the run"
    folder: Path
    accept: bool = False

    def ask(self, engine: EngineCalls) -> Iterator[Event]:
        return engine.inspect(self.folder, self.accept, self.commands)


RUNS: tuple[type[RunRequest], ...] = (StartRun, ResumeRun, InspectRun)
