"""The calls that are about the Hub or this computer; see `sparsezo_gui.gui.worker`."""

from __future__ import annotations

from pathlib import Path

from sparsezo_gui import answers as a
from sparsezo_gui.gui.calls import Work
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe.recipe import ModelTable


class HubEngine:
    """A part of `worker.Engine`. Imports are inside the methods."""

    def computer(self) -> list[a.Finding]:
        """What is installed on this computer, and what is wrong with it."""
        from sparsezo_gui import doctor

        return doctor.examine(doctor.look())

    def crashes(self) -> list[a.Crash]:
        """The windows that ended without being closed, newest first; each is told once."""
        from sparsezo_gui import crashes

        return crashes.collect()

    def search(self, recipe: Recipe, words: str, datasets: bool) -> Work[list[a.Found]]:
        """Models, with their verdicts, or data sets on the Hub."""
        from sparsezo_gui.engine.search import search

        return search(words, recipe, datasets)

    def judge(self, recipe: Recipe, found: tuple[a.Found, ...]) -> list[a.Found]:
        """Results of a search for models, with their verdicts for another recipe."""
        from sparsezo_gui.engine.search import judge

        return judge(found, recipe)

    def download(self, id: str, datasets: bool) -> Work[a.Downloaded]:
        """Downloads what is missing of a model or data set."""
        if datasets:
            from sparsezo_gui.engine.data import hub_download

            return hub_download.download(id)
        from sparsezo_gui.engine.hub import cache

        return cache.download(ModelTable(id=id))

    def discard(self, id: str, datasets: bool) -> None:
        """Removes the parts of a download."""
        from sparsezo_gui.engine.hub import downloads

        downloads.discard(id, datasets)

    def remove(self, id: str, datasets: bool) -> a.Cache:
        """Removes a download from this computer; returns what it was."""
        from sparsezo_gui.engine.hub import downloads

        found = downloads.named(id, datasets)
        downloads.remove_download(found)
        return found

    def push(self, out: Path, id: str, public: bool, card: str) -> Work[a.Pushed]:
        """Uploads an export."""
        from sparsezo_gui.engine.export.push import push

        return push(out, id, public, card)
