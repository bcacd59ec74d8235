"""The questions that the window asks the engine about the Hub; see `sparsezo_gui.gui.requests`.

They wait for the network, so none is served between two steps of a run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from sparsezo_gui import answers as a
from sparsezo_gui.gui.calls import EngineCalls, Request, Work
from sparsezo_gui.recipe import Recipe


@dataclass(frozen=True)
class SearchModels(Request[list[a.Found]]):
    """Models on the Hub for some words, with the verdict of the memory estimate on each, otherwise as in the recipe."""

    activity = "searching the Hub"
    long = True
    datasets: ClassVar[bool] = False
    recipe: Recipe
    words: str

    def ask(self, engine: EngineCalls) -> Work[list[a.Found]]:
        return engine.search(self.recipe, self.words, self.datasets)


@dataclass(frozen=True)
class SearchDataSets(SearchModels):
    """Data sets on the Hub for some words."""

    datasets = True


@dataclass(frozen=True)
class DownloadModel(Request[a.Downloaded]):
    """Downloads what is missing of a model."""

    activity = "downloading"
    long = True
    datasets: ClassVar[bool] = False
    id: str

    def ask(self, engine: EngineCalls) -> Work[a.Downloaded]:
        return engine.download(self.id, self.datasets)


@dataclass(frozen=True)
class DownloadDataSet(DownloadModel):
    """Downloads what is missing of a data set."""

    datasets = True


@dataclass(frozen=True)
class DiscardParts(Request[None]):
    """Removes the parts of a cancelled download."""

    activity = "removing the parts of a download"
    long = True
    id: str
    datasets: bool

    def ask(self, engine: EngineCalls) -> None:
        engine.discard(self.id, self.datasets)


@dataclass(frozen=True)
class RemoveDownload(Request[a.Cache]):
    """Removes a model or data set from this computer."""

    activity = "removing a download"
    long = True
    id: str
    datasets: bool

    def ask(self, engine: EngineCalls) -> a.Cache:
        return engine.remove(self.id, self.datasets)


@dataclass(frozen=True)
class PushExport(Request[a.Pushed]):
    """Uploads an export as a new model on the Hub; ``card`` is for a file that has none."""

    activity = "uploading"
    long = True
    out: Path
    id: str
    public: bool
    card: str = ""

    def ask(self, engine: EngineCalls) -> Work[a.Pushed]:
        return engine.push(self.out, self.id, self.public, self.card)
