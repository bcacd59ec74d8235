"""The run folder: creating, opening and locking runs. See the package's docstring for the layout."""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import filelock
from pydantic import ValidationError

from sparsezo_gui import recipe as recipes
from sparsezo_gui.engine.drafts import AGE
from sparsezo_gui.engine.files import (
    cannot_write,
    home,
    open_plain,
    private,
    set_mode,
    sync,
    sync_open,
    write_all,
    write_text,
)
from sparsezo_gui.engine.locks import Lock, held
from sparsezo_gui.engine.runs.facts import PREPARED, Facts
from sparsezo_gui.engine.runs.journal import Header
from sparsezo_gui.engine.runs.labels import labels_of
from sparsezo_gui.engine.runs.preparing import LOCK, LOCK_MARKER, MASK, RECIPE, TEMPORARY, is_start
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import Recipe, outcome
from sparsezo_gui.recipe.events import Event
from sparsezo_gui.untrusted import resolved

LIBRARIES = ("sparsezo-gui", "torch", "transformers", "bitsandbytes", "numpy")
NOTES = "notes.md"
BRANCHES = "branches"
EVENTS = "events.jsonl"
DEEPEST = 500  # nested branches
LARGEST_FACTS, LARGEST_NOTES, LARGEST_EVENTS = 1 << 20, 1 << 24, 1 << 28  # bytes
LOCK_SECONDS = 0.5  # how long a writer waits: listing the runs takes each lock for a moment


def runs_home() -> Path:
    """The folder of all runs, in the program's `home`."""
    return home() / "runs"


@dataclass(frozen=True)
class RunFolder:
    """An existing run: its folder and the content of ``run.json``."""

    path: Path
    facts: Facts

    @property
    def journal(self) -> Path:
        """The journal's path."""
        return self.path / "journal.bin"

    @property
    def gradients(self) -> Path:
        """The path of the exact gradients of its steps."""
        return self.path / "gradients.bin"

    @property
    def parent(self) -> RunFolder | None:
        """The run that this one branched from; its folder contains this one."""
        if self.facts.branched is None:
            return None
        try:
            return open_resolved(self.path.parent.parent)
        except UserError as error:
            raise UserError(
                f"{self.path}: this branch is no longer inside the folder of the run that it started from. Restore or "
                "copy all of that folder; to move only the branch, use 'sparsezo share'."
            ) from error

    @property
    def lineage(self) -> list[RunFolder]:
        """The runs that led to this one, from the root of the tree on."""
        found = [self]
        while (parent := found[-1].parent) is not None:
            if len(found) == DEEPEST:
                raise UserError(
                    f"{self.path}: is nested more than {DEEPEST} branches deep. Branch from an earlier run instead."
                )
            found.append(parent)
        return found[::-1]

    @property
    def root(self) -> RunFolder:
        """The root of the tree of branches."""
        return self.lineage[0]

    @property
    def mask(self) -> Path:
        """The path of the mask, which the whole tree shares."""
        return self.root.path / MASK

    @property
    def start(self) -> int:
        """The step that the run starts from."""
        return self.facts.branched.step if self.facts.branched else 0

    @property
    def header(self) -> Header:
        """The header of its journal."""
        facts = self.facts
        return Header(self.recipe.recorded, self.start, facts.fingerprint, facts.mask_hash, facts.generator)

    @property
    def recipe(self) -> Recipe:
        """The run's recipe. Raises `UserError` if its file was changed since the run started, as only part of it would
        take effect."""
        path = self.path / RECIPE
        recipe = recipes.load(path)
        changed = recipes.differences(self.facts.recipe, recipe) if self.facts.recipe else []
        if changed:
            what = ", ".join(f"{key} is {new!r}, was {old!r}" for key, old, new in changed)
            settings = [word for key, _, new in changed for word in ("--set", f"{key}={new}")]
            branch = shlex.join(["sparsezo", "branch", str(self.path), *settings])
            raise UserError(
                f"{path}: changed since the run started ({what}). A run's recipe is fixed: undo the change, then try "
                f"new values in a branch: {branch}"
            )
        return recipe

    @property
    def name(self) -> str:
        """The run's name: what the user calls it, else its own."""
        return labels_of(self.path).name or self.own_name

    @property
    def own_name(self) -> str:
        """The name that the run was started with."""
        return self.facts.name or self.path.name

    @property
    def notes(self) -> str:
        """The user's notes."""
        try:
            with open_plain(self.path / NOTES) as file:
                return file.read(LARGEST_NOTES).decode("utf-8", "replace")
        except OSError:
            return ""

    def note(self, text: str) -> None:
        """Replaces the notes. Raises `UserError`."""
        write_text(self.path / NOTES, text)

    def record(self, event: Event) -> None:
        """Appends an event to ``events.jsonl``; an incomplete line at its end is closed first, and readers skip it."""
        path = self.path / EVENTS
        line = json.dumps(event.as_json(), ensure_ascii=False) + "\n"
        try:
            new = not path.exists()
            with open(path, "a+b", buffering=0, opener=private) as file:
                size = file.seek(0, os.SEEK_END)
                if size:
                    file.seek(size - 1)
                    line = line if file.read(1) == b"\n" else "\n" + line
                try:
                    write_all(file, line.encode("utf-8", "replace"))
                except OSError:
                    file.truncate(size)
                    raise
                sync_open(file.fileno())
            if new:
                sync(self.path)
        except OSError as error:
            raise cannot_write(path, error) from error

    def events(self) -> list[Event]:
        """All events recorded so far; see `sparsezo_gui.recipe.outcome.on_lineage`."""
        path = self.path / EVENTS
        try:
            with open_plain(path) as file:
                if os.fstat(file.fileno()).st_size > LARGEST_EVENTS:
                    raise UserError(f"{path}: larger than a run's events can be. Restore it from a copy of the run.")
                lines = (line.decode("utf-8", "replace") for line in file)
                return [event for line in lines if (event := outcome.event_of(line)) is not None]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}). Change its permissions.") from error


def sweep(path: Path) -> None:
    """Removes temporary files that a killed process left in a run; only for the process that holds the lock.

    Recent files are left alone, since notes and a mask that was found again are written without the lock.
    """
    for folder in (path, path / "frames"):
        for each in folder.glob(".*"):
            with suppress(OSError):
                if TEMPORARY.fullmatch(each.name) and each.is_file() and time.time() - each.stat().st_mtime > AGE:
                    each.unlink()


def create(path: Path, recipe: Recipe, facts: dict[str, Any]) -> RunFolder:
    """Writes a new run's recipe and ``run.json``; the latter last, since it makes the folder a run."""
    content = Facts(
        name=recipe.run.name or path.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={library: version(library) for library in LIBRARIES},
        **{"prepared": PREPARED, **facts, "recipe": recipes.values(recipe)},
    )
    write_text(path / RECIPE, recipes.dump(recipe))
    run = _write(path, content)
    for folder in (path.parent, path.parent.parent):  # a branch's parent folder may be new too
        sync(folder)
    return run


def with_data(run: RunFolder, data_hash: str, examples: int, inputs: dict[str, str]) -> RunFolder:
    """The run, with its examples recorded. Raises `UserError`."""
    known = {"data_hash": data_hash, "examples": examples, "inputs": {**run.facts.inputs, **inputs}}
    known["prepared"] = PREPARED
    return _write(run.path, run.facts.model_copy(update=known))


def _write(path: Path, facts: Facts) -> RunFolder:
    write_text(path / "run.json", facts.model_dump_json(indent=2, exclude_none=True) + "\n")
    return RunFolder(path, facts)


def open_run(path: str | Path) -> RunFolder:
    """The run in a folder, or with that name in the runs folder. Raises `UserError` if there is none."""
    return open_resolved(find(path))


def find(path: str | Path) -> Path:
    """The folder ``path``, without links, or that of this name in the runs folder. Raises `UserError`."""
    path = Path(path)
    if not path.exists() and (runs_home() / path).is_dir():
        path = runs_home() / path
    if not path.is_dir():
        raise UserError(f"There is no run folder '{path}'. 'sparsezo runs' lists the runs.")
    return resolved(path)


def open_resolved(path: Path) -> RunFolder:
    """The run in a folder whose path contains no links. Raises `UserError`."""
    try:
        with open_plain(path / "run.json") as file:
            facts = Facts.model_validate_json(file.read(LARGEST_FACTS))
    except FileNotFoundError as error:
        if is_start(path):
            resume = shlex.join(["sparsezo", "resume", str(path)])
            raise UserError(f"{path}: this run has no steps yet. Resume it first: {resume}") from error
        raise UserError(f"{path}: not a run (it has no run.json). Choose a run folder.") from error
    except OSError as error:
        raise UserError(f"{path / 'run.json'}: cannot be read ({error.strerror}).") from error
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"])) or "its content"
        if place == "version":
            raise UserError(f"{path}: a run of an unknown version. Update SparseZO.") from error
        raise UserError(
            f"{path / 'run.json'}: damaged ({place}: {recipes.in_words(fault)}). Restore it from a copy of the run."
        ) from error
    return RunFolder(path, facts)


@contextmanager
def locked(path: Path) -> Iterator[Lock]:
    """Locks the run against other writers within its block. Raises `UserError` if it is locked already."""
    with ExitStack() as stack:
        try:
            lock = stack.enter_context(held(path / LOCK, LOCK_SECONDS))
            lock.weaker += _weaker(path)
        except filelock.Timeout as error:
            sentence = f"{path}: another window or terminal is writing this run. Stop it there first."
            if (path / LOCK_MARKER).exists():
                sentence += f" If nothing is, for example after a crash, delete {path / LOCK_MARKER}."
            raise UserError(sentence) from error
        except OSError as error:
            raise cannot_write(path, error) from error
        sweep(path)
        yield lock


def _weaker(path: Path) -> list[str]:
    """What the run's disk does not support besides locking, in sentences."""
    found = []
    if os.name != "nt" and not sync(path):
        found.append(f"The disk of {path} cannot sync folders: new files may be lost in a power cut.")
    if os.name != "nt" and not set_mode(path / LOCK, 0o600):
        found.append(f"The disk of {path} has no file permissions: anyone who can read the disk can read the run.")
    return found
