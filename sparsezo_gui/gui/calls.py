"""The border between window and engine, as types: what a request is, and the methods that answer them.

`worker.Engine` has these methods for the real engine, the window's tests have a stand-in.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import ClassVar, Generic, Protocol, TypeVar

from sparsezo_gui.answers import (
    Cache,
    Crash,
    DataPreview,
    Downloaded,
    Exported,
    Finding,
    Found,
    History,
    MaskReport,
    MemoryEstimate,
    ModelCode,
    ModelSummary,
    Plan,
    Pushed,
    RateReport,
    Received,
    RunSummary,
    Shareable,
    Shared,
    Task,
)
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe.events import Command, Event

A = TypeVar("A")
Work = Generator[Event, None, A]
"""Work that yields events and returns its answer. Closing it cancels."""
Commands = SimpleQueue[Command]


class EngineCalls(Protocol):
    """One method per request; see `sparsezo_gui.gui.requests` for what each is for. All may raise `UserError`."""

    def load(self, closing: threading.Event) -> Work[None]: ...
    def computer(self) -> list[Finding]: ...
    def crashes(self) -> list[Crash]: ...
    def tasks(self) -> list[Task]: ...
    def models(self) -> list[ModelSummary]: ...
    def summary(self, recipe: Recipe) -> ModelSummary: ...
    def fits(self, recipe: Recipe, models: tuple[str, ...]) -> Work[dict[str, str]]: ...
    def estimate(self, recipe: Recipe) -> Work[MemoryEstimate]: ...
    def measure(self, recipe: Recipe) -> Work[MemoryEstimate]: ...
    def ways(self, recipe: Recipe) -> Work[Plan]: ...
    def plan(self, recipe: Recipe) -> Work[Plan]: ...
    def mask(self, recipe: Recipe) -> Work[MaskReport]: ...
    def rates(self, recipe: Recipe) -> Work[RateReport]: ...
    def preview(self, recipe: Recipe, page: int) -> Work[DataPreview]: ...
    def runs(self, also: Path | None) -> list[RunSummary]: ...
    def history(self, folder: Path) -> History: ...
    def train(self, recipe: Recipe, commands: Commands) -> Iterator[Event]: ...
    def resume(self, folder: Path, commands: Commands) -> Iterator[Event]: ...
    def inspect(self, folder: Path, accept: bool, commands: Commands) -> Iterator[Event]: ...
    def branch(self, folder: Path, step: int, settings: list[str], name: str) -> Path: ...
    def note(self, folder: Path, text: str) -> None: ...
    def contents(self, folder: Path) -> Shareable: ...
    def share(self, folder: Path, out: Path, with_examples: bool) -> Shared: ...
    def receive(self, file: Path) -> Received: ...
    def export(
        self, folder: Path, form: str, out: Path, step: int | None, options: dict[str, str], accept: bool
    ) -> Work[Exported]: ...
    def consent(self, code: ModelCode) -> None: ...
    def search(self, recipe: Recipe, words: str, datasets: bool) -> Work[list[Found]]: ...
    def download(self, id: str, datasets: bool) -> Work[Downloaded]: ...
    def discard(self, id: str, datasets: bool) -> None: ...
    def remove(self, id: str, datasets: bool) -> Cache: ...
    def push(self, out: Path, id: str, public: bool, card: str) -> Work[Pushed]: ...


@dataclass(frozen=True)
class Request(ABC, Generic[A]):
    """Base of all requests; ``A`` is the type of the answer."""

    activity: ClassVar[str]
    """Completes 'The engine is busy …' and 'Something unexpected happened while …'."""
    long: ClassVar[bool] = False
    """Whether it needs the engine to itself: it is never served between two steps of a run."""
    only_last: ClassVar[bool] = False
    """Whether a new request of this kind replaces those before it."""
    shows_progress: ClassVar[bool] = True

    @abstractmethod
    def ask(self, engine: EngineCalls) -> A | Iterator[Event]:
        """The answer, or work that yields events and returns the answer."""


@dataclass(frozen=True)
class RunRequest(Request[None]):
    """Base of those that start a loop; the loop reads its ``commands`` between steps."""

    long = True
    commands: Commands = field(default_factory=SimpleQueue, kw_only=True)
