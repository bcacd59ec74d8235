"""The calls that are about runs; see `sparsezo_gui.gui.worker`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sparsezo_gui import answers as a
from sparsezo_gui.gui.calls import Commands, Work
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe.events import Event


class RunEngine:
    """A part of `worker.Engine`. Imports are inside the methods."""

    def runs(self, also: Path | None) -> list[a.RunSummary]:
        """Summaries of all runs, newest first, and of the one in the folder ``also``."""
        from sparsezo_gui.engine.runs.listing import list_runs

        return list_runs(also)

    def history(self, folder: Path) -> a.History:
        """A run from its journal."""
        from sparsezo_gui.engine.runs.history import history

        return history(folder)

    def curves(self, folders: tuple[Path, ...]) -> list[a.History]:
        """Runs from their journals."""
        return [self.history(folder) for folder in folders]

    def train(self, recipe: Recipe, commands: Commands) -> Iterator[Event]:
        """A new run."""
        from sparsezo_gui.engine.training import train

        return train(recipe, commands)

    def resume(self, folder: Path, commands: Commands) -> Iterator[Event]:
        """A run that was stopped or interrupted."""
        from sparsezo_gui.engine.training import resume

        return resume(folder, commands)

    def inspect(self, folder: Path, accept: bool, commands: Commands) -> Iterator[Event]:
        """A run with its model loaded, paused, for commands about any of its steps; ``accept`` is whether to go ahead
        despite changed inputs."""
        from sparsezo_gui.engine.training import resume

        return resume(folder, commands, paused=True, accept=accept)

    def branch(self, folder: Path, step: int, settings: list[str], name: str) -> Path:
        """Folder of a new run that continues from a step."""
        from sparsezo_gui.engine.runs.branch import branch
        from sparsezo_gui.engine.runs.folder import open_run

        return branch(open_run(folder), step, settings, name).path

    def note(self, folder: Path, text: str) -> None:
        """Replaces a run's notes."""
        from sparsezo_gui.engine.runs.folder import open_run

        open_run(folder).note(text)

    def label(self, folder: Path, name: str, tags: tuple[str, ...]) -> None:
        """Replaces what the user calls a run, and its tags."""
        from sparsezo_gui.engine.runs.folder import open_run
        from sparsezo_gui.engine.runs.labels import label

        label(open_run(folder).path, name, tags)

    def removable(self, folder: Path) -> a.Removable:
        """What deleting a run removes."""
        from sparsezo_gui.engine.runs.remove import removable

        return removable(folder)

    def remove_run(self, folder: Path) -> a.Removable:
        """Deletes a run with its branches."""
        from sparsezo_gui.engine.runs.remove import remove

        return remove(folder)

    def contents(self, folder: Path) -> a.Shareable:
        """The contents of a shared file of a run."""
        from sparsezo_gui.engine.runs.folder import open_run
        from sparsezo_gui.engine.runs.share import contents

        run = open_run(folder)
        return a.Shareable(contents(run), contents(run, with_examples=True))

    def share(self, folder: Path, out: Path, with_examples: bool) -> a.Shared:
        """A run as a small file; replaces an existing one, which the user agreed to."""
        from sparsezo_gui.engine.runs.folder import open_run
        from sparsezo_gui.engine.runs.share import share

        return share(open_run(folder), out, with_examples=with_examples, replace=True)

    def receive(self, file: Path) -> a.Received:
        """Folder of an unpacked run, and a sentence on what it came without."""
        from sparsezo_gui.engine.runs.share import lacks, receive

        run = receive(file)
        return a.Received(run.path, lacks(run)[1])

    def export(
        self, folder: Path, form: str, out: Path, step: int | None, options: dict[str, str], accept: bool
    ) -> Work[a.Exported]:
        """One step of a run as files, with the format's options; ``accept`` allows changed inputs."""
        from sparsezo_gui.engine.export import export_run

        facts = yield from export_run(folder, form, out, step, accept=accept, **options)
        return a.Exported(facts["step"], facts["tuned"], tuple(facts["told"]), facts["out"], facts.get("card", ""))

    def ask_export(self, folder: Path, out: Path, prompt: str) -> Work[str]:
        """The answer of what was exported of a run, loaded from its files."""
        from sparsezo_gui.engine.export.ask import ask_export

        return ask_export(folder, out, prompt)
