"""The run folder: making, opening, locking and listing runs. See the package's docstring for the layout."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import filelock
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sparsezo_gui import recipe as recipes
from sparsezo_gui.engine.files import cannot_write, home, make_folder, own, private, sync, write_text
from sparsezo_gui.engine.runs import journal
from sparsezo_gui.engine.runs.journal import Header
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import Recipe, judge
from sparsezo_gui.recipe.events import Event

VERSION = 2
LIBRARIES = ("sparsezo-gui", "torch", "transformers", "bitsandbytes", "numpy")
NOTES = "notes.md"
BRANCHES = "branches"
LOCK_SECONDS = 0.5  # that a writer waits: who lists the runs holds each lock for a moment
_SHA256 = Field(pattern="^[0-9a-f]{64}$")


def runs_home() -> Path:
    """Folder of all runs, in the program's `home`."""
    return home() / "runs"


class Branched(BaseModel):
    """Where a branch begins: at ``step`` of its parent, as the first ``records`` of its journal tell it, with
    ``factor`` on the scheduled rate."""

    model_config = ConfigDict(frozen=True)

    step: int = Field(ge=0, lt=2**32)
    records: int = Field(ge=0)
    factor: float = Field(1.0, ge=0, allow_inf_nan=False)


class Facts(BaseModel):
    """What ``run.json`` says, from the start of the run on."""

    model_config = ConfigDict(frozen=True)

    version: Literal[1, 2] = VERSION
    name: str = ""
    created: str = ""
    versions: dict[str, str] = {}
    model: str
    revision: str
    fingerprint: str = _SHA256
    generator: str = Field(max_length=48)
    mask_hash: str = _SHA256
    data_hash: str | None = Field(None, pattern="^[0-9a-f]{64}$")  # None in a branch with other data, until it starts
    examples: int | None = Field(None, ge=1)  # to train on; not told by runs that are older than this field
    inputs: dict[str, str] = {}  # hashes, see `sparsezo_gui.engine.provenance`; of old runs and new branches not all
    recipe: dict[str, Any] | None = None  # its values as they began, see `sparsezo_gui.recipe.values`
    parameters: int
    eligible: int
    tuned: int
    pack_rows: int | None = Field(None, ge=1)  # version 1 did not always tell it
    mask_seconds: float | None = None  # that finding the mask took
    device: str
    branched: Branched | None = None


@dataclass(frozen=True)
class RunFolder:
    """An existing run: its folder and what ``run.json`` says."""

    path: Path
    facts: Facts

    @property
    def journal(self) -> Path:
        """The journal's path."""
        return self.path / "journal.bin"

    @property
    def parent(self) -> RunFolder | None:
        """The run that this one branched off from, in whose folder it lies."""
        if self.facts.branched is None:
            return None
        try:
            return open_run(self.path.parent.parent)
        except UserError as error:
            raise UserError(
                f"{self.path}: a branch, and the run that it came from is not around it any more. Restore or copy the "
                "whole folder of that run; 'sparsezo share' takes a branch out of it."
            ) from error

    @property
    def root(self) -> RunFolder:
        """The run that all of a tree began with."""
        parent = self.parent
        return parent.root if parent else self

    @property
    def mask(self) -> Path:
        """The path of the tree's mask."""
        return self.root.path / "mask.safetensors"

    @property
    def header(self) -> Header:
        """What its journal begins with."""
        facts, recipe = self.facts, self.recipe
        start = facts.branched.step if facts.branched else 0
        return Header(recipe.scalars, start, facts.fingerprint, facts.mask_hash, facts.generator)

    @property
    def recipe(self) -> Recipe:
        """The recipe as it runs. Raises `UserError` where its file tells other values than those that the run began
        with, of which some would be obeyed from now on, and some were recorded."""
        path = self.path / "recipe.toml"
        recipe = recipes.load(path)
        changed = recipes.differences(self.facts.recipe, recipe) if self.facts.recipe else []
        if changed:
            told = ", ".join(f"{key} is {new!r}, was {old!r}" for key, old, new in changed)
            settings = " ".join(f"--set {shlex.quote(f'{key}={new}')}" for key, _, new in changed)
            raise UserError(
                f"{path}: changed since the run began ({told}). A run keeps its recipe: put back what was there, and "
                f"try other values in a branch: sparsezo branch {self.path} {settings}"
            )
        return recipe

    @property
    def name(self) -> str:
        """The run's name."""
        return self.facts.name or self.path.name

    @property
    def notes(self) -> str:
        """What the user wrote about it."""
        try:
            return (self.path / NOTES).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def note(self, text: str) -> None:
        """Replaces the notes. Raises `UserError`."""
        write_text(self.path / NOTES, text)

    def tell(self, event: Event) -> None:
        """Appends an event to ``events.jsonl``. A line that was torn before stands alone and is read by nobody."""
        path = self.path / "events.jsonl"
        line = json.dumps(event.as_json(), ensure_ascii=False) + "\n"
        try:
            new = not path.exists()
            with open(path, "a+b", buffering=0, opener=private) as file:
                size = file.seek(0, os.SEEK_END)
                if size:
                    file.seek(size - 1)
                    line = line if file.read(1) == b"\n" else "\n" + line
                content = line.encode("utf-8", "replace")
                if file.write(content) != len(content):
                    file.truncate(size)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file.fileno())
            if new:
                sync(self.path)
        except OSError as error:
            raise cannot_write(path, error) from error

    def events(self) -> list[Event]:
        """The events told so far, all of them; see `sparsezo_gui.recipe.judge.on_line`."""
        try:
            lines = (self.path / "events.jsonl").read_text(encoding="utf-8", errors="replace").split("\n")
        except FileNotFoundError:
            return []
        return [event for line in lines if (event := judge.event_of(line)) is not None]


def new_path(recipe: Recipe) -> Path:
    """Where a new run of ``recipe`` goes: its own ``[run] folder``, or a dated one among the runs."""
    if recipe.run.folder:
        return Path(recipe.run.folder)
    return free_path(runs_home(), f"{recipe.run.name or 'run'}-{datetime.now():%Y%m%d-%H%M%S}")


def free_path(folder: Path, name: str) -> Path:
    """A path in ``folder`` that is not taken, called ``name`` as far as a file may be called so."""
    stem = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "run"
    path, number = folder / stem, 2
    while path.exists():
        path, number = folder / f"{stem}-{number}", number + 1
    return path


def prepare(path: Path) -> None:
    """Checks, before any long work, that a new run can be put in ``path``."""
    if path.is_file() or (path.is_dir() and not all(map(_of_start, path.iterdir()))):
        raise UserError(f"{path}: already exists. Name a new folder, or go on with that run: sparsezo resume {path}")
    try:
        make_folder(path)
        own(path)
        probe = path / ".probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise cannot_write(path, error) from error


def _of_start(path: Path) -> bool:
    """Whether a start that was killed before there was a run can have left this file."""
    return path.name in ("mask.safetensors", "recipe.toml", "lock") or _is_temporary(path)


def _is_temporary(path: Path) -> bool:
    return re.fullmatch(r"\.(probe|.+\.\w{8})", path.name) is not None and path.is_file()


def sweep(path: Path) -> None:
    """Removes what a killed process was about to write; only for who holds the lock."""
    for folder in (path, path / "frames"):
        for each in folder.glob(".*"):
            if _is_temporary(each):
                each.unlink(missing_ok=True)


def create(path: Path, recipe: Recipe, facts: dict[str, Any]) -> RunFolder:
    """Writes a new run's recipe and ``run.json``; the latter last, since it is what makes the folder a run."""
    told = Facts(
        name=recipe.run.name or path.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={library: version(library) for library in LIBRARIES},
        **{**facts, "recipe": recipes.values(recipe)},
    )
    write_text(path / "recipe.toml", recipes.dump(recipe))
    run = _write(path, told)
    for folder in (path.parent, path.parent.parent):  # a branch's folder of branches may be new as well
        sync(folder)
    return run


def with_data(run: RunFolder, data_hash: str, examples: int, inputs: dict[str, str]) -> RunFolder:
    """The run once it is known which examples it has. Raises `UserError`."""
    known = {"data_hash": data_hash, "examples": examples, "inputs": {**run.facts.inputs, **inputs}}
    return _write(run.path, run.facts.model_copy(update=known))


def _write(path: Path, facts: Facts) -> RunFolder:
    write_text(path / "run.json", facts.model_dump_json(indent=2, exclude_none=True) + "\n")
    return RunFolder(path, facts)


def open_run(path: str | Path) -> RunFolder:
    """The run in a folder, or of that name among the runs. Raises `UserError` when there is none."""
    path = Path(path)
    if not path.exists() and (runs_home() / path).is_dir():
        path = runs_home() / path
    if not path.is_dir():
        raise UserError(f"There is no run folder '{path}'. 'sparsezo runs' lists the runs.")
    try:
        facts = Facts.model_validate_json((path / "run.json").read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{path}: not a run (it holds no run.json).") from error
    except OSError as error:
        raise UserError(f"{path / 'run.json'}: cannot be read ({error.strerror}).") from error
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"])) or "its content"
        if place == "version":
            raise UserError(f"{path}: not a run of a version that is known here. Update SparseZO.") from error
        raise UserError(
            f"{path / 'run.json'}: damaged ({place}: {fault['msg'].lower()}). Restore it from a copy of the run."
        ) from error
    return RunFolder(path.resolve(), facts)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Within: no other process writes this run."""
    try:
        with filelock.FileLock(path / "lock", timeout=LOCK_SECONDS):
            sweep(path)
            yield
    except filelock.Timeout as error:
        raise UserError(f"{path}: another window or terminal is writing this run. Stop it there first.") from error
    except OSError as error:
        if error.filename != str(path / "lock"):
            raise
        raise cannot_write(path, error) from error


@dataclass(frozen=True)
class RunSummary:
    """A line in the list of runs. ``state`` is 'done', 'stopped', 'running' or 'damaged'; ``parent`` is the path of the
    run that it branched off from, at step ``start``; ``best`` the step that did best on the validation examples;
    ``epsilon`` and ``delta`` what a private run spent, once it has told so after its last step."""

    path: str
    name: str
    state: str
    step: int
    steps: int
    created: str
    model: str
    metrics: dict[str, float]
    parent: str = ""
    start: int = 0
    best: int | None = None
    notes: str = ""
    problem: str = ""  # why it is damaged
    epsilon: float | None = None
    delta: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain object."""
        return dataclasses.asdict(self)


def list_runs(also: Path | None = None) -> list[RunSummary]:
    """All runs, the newest first, each followed by its branches; and the tree in ``also``, which may lie anywhere."""
    roots = {path.parent.resolve(): path.parent for path in runs_home().glob("*/run.json")}
    if also is not None and (also / "run.json").is_file():
        while also.parent.name == BRANCHES and (also.parent.parent / "run.json").is_file():
            also = also.parent.parent
        roots.setdefault(also.resolve(), also)
    found = sorted((summary(path) for path in roots.values()), key=lambda run: run.created, reverse=True)
    return [each for run in found for each in _with_branches(run)]


def _with_branches(run: RunSummary) -> Iterator[RunSummary]:
    yield run
    branches = [summary(path.parent) for path in (Path(run.path) / BRANCHES).glob("*/run.json")]
    for branch in sorted(branches, key=lambda each: (each.start, each.created)):
        yield from _with_branches(branch)


def summary(path: Path) -> RunSummary:
    """What the list shows of a run; a damaged one is listed as such."""
    try:
        run = open_run(path)
        recipe, told = run.recipe, run.events()
        found = journal.read(run.journal) if run.journal.exists() else None
    except (UserError, OSError) as error:
        parent = str(path.resolve().parent.parent) if path.parent.name == BRANCHES else ""
        return RunSummary(str(path), path.name, "damaged", 0, 0, "", "", {}, parent, problem=str(error))
    events, step = judge.on_line(told), found.step if found else run.header.start
    spent = judge.spent(told, len(found.records) if found else 0)
    metrics = judge.last_metrics(events)
    ended = step >= recipe.loop.steps or judge.ended_early(events, step)
    best = judge.best(events)
    return RunSummary(
        str(run.path), run.name, "running" if _is_locked(run.path) else "done" if ended else "stopped", step,
        recipe.loop.steps, run.facts.created, recipe.model.id, metrics,
        str(run.path.parent.parent) if run.facts.branched else "", run.header.start, best.step if best else None,
        run.notes, epsilon=spent.epsilon if spent else None, delta=spent.delta if spent else None,
    )  # fmt: skip


def _is_locked(path: Path) -> bool:
    if not (path / "lock").exists():
        return False
    try:
        with filelock.FileLock(path / "lock", timeout=0):
            return False
    except (filelock.Timeout, OSError):
        return True
