"""The questions that the window asks the engine about saved runs; see `sparsezo_gui.gui.requests`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sparsezo_gui import answers as a
from sparsezo_gui.gui.calls import EngineCalls, Request, Work
from sparsezo_gui.gui.record import RunRecord


@dataclass(frozen=True)
class ListRuns(Request[list[a.RunSummary]]):
    """All runs, newest first, and the one in the folder ``also``."""

    activity = "listing runs"
    only_last = True
    also: Path | None = None

    def ask(self, engine: EngineCalls) -> list[a.RunSummary]:
        return engine.runs(self.also)


@dataclass(frozen=True)
class ReadRun(Request[a.History]):
    """A run from its journal."""

    activity = "reading the run"
    only_last = True
    folder: Path

    def ask(self, engine: EngineCalls) -> a.History:
        return engine.history(self.folder)


@dataclass(frozen=True)
class BranchRun(Request[Path]):
    """Folder of a new run that continues from a step with other settings."""

    activity = "creating the branch"
    folder: Path
    step: int
    settings: list[str]
    name: str

    def ask(self, engine: EngineCalls) -> Path:
        return engine.branch(self.folder, self.step, self.settings, self.name)


@dataclass(frozen=True)
class SaveNotes(Request[None]):
    """Replaces a run's notes."""

    activity = "saving the notes"
    folder: Path
    text: str

    def ask(self, engine: EngineCalls) -> None:
        engine.note(self.folder, self.text)


@dataclass(frozen=True)
class LabelRun(Request[None]):
    """Replaces what the user calls a run, and its tags."""

    activity = "renaming the run"
    folder: Path
    name: str
    tags: tuple[str, ...]

    def ask(self, engine: EngineCalls) -> None:
        engine.label(self.folder, self.name, self.tags)


@dataclass(frozen=True)
class MeasureRun(Request[a.Removable]):
    """What deleting a run removes."""

    activity = "measuring the run"
    folder: Path

    def ask(self, engine: EngineCalls) -> a.Removable:
        return engine.removable(self.folder)


@dataclass(frozen=True)
class RemoveRun(Request[a.Removable]):
    """Deletes a run with its branches, which the user agreed to."""

    activity = "deleting the run"
    folder: Path

    def ask(self, engine: EngineCalls) -> a.Removable:
        return engine.remove_run(self.folder)


@dataclass(frozen=True)
class ReadCurves(Request[list[RunRecord]]):
    """The runs in some folders, to be plotted over one another."""

    activity = "reading curves"
    only_last = True
    folders: tuple[Path, ...]

    def ask(self, engine: EngineCalls) -> list[RunRecord]:
        return [RunRecord.from_history(*each) for each in zip(self.folders, engine.curves(self.folders), strict=True)]


@dataclass(frozen=True)
class ListContents(Request[a.Shareable]):
    """The contents of a shared file of the run."""

    activity = "listing the files to share"
    folder: Path

    def ask(self, engine: EngineCalls) -> a.Shareable:
        return engine.contents(self.folder)


@dataclass(frozen=True)
class ShareRun(Request[a.Shared]):
    """A run as a small file; replaces an existing one, which the user agreed to."""

    activity = "sharing the run"
    folder: Path
    out: Path
    with_examples: bool

    def ask(self, engine: EngineCalls) -> a.Shared:
        return engine.share(self.folder, self.out, self.with_examples)


@dataclass(frozen=True)
class ReceiveRun(Request[a.Received]):
    """Unpacks a shared run."""

    activity = "unpacking the run"
    file: Path

    def ask(self, engine: EngineCalls) -> a.Received:
        return engine.receive(self.file)


@dataclass(frozen=True)
class ExportRun(Request[a.Exported]):
    """One step of a run as files; ``accept`` is whether to go ahead despite changed inputs."""

    activity = "exporting"
    long = True
    folder: Path
    form: str
    out: Path
    step: int | None
    options: dict[str, str]  # of the format
    accept: bool = False

    def ask(self, engine: EngineCalls) -> Work[a.Exported]:
        return engine.export(self.folder, self.form, self.out, self.step, self.options, self.accept)


@dataclass(frozen=True)
class AskExport(Request[str]):
    """The answer of what was exported of a run, loaded from its files, to a prompt."""

    activity = "asking the exported file"
    long = True
    folder: Path
    out: Path
    prompt: str

    def ask(self, engine: EngineCalls) -> Work[str]:
        return engine.ask_export(self.folder, self.out, self.prompt)
