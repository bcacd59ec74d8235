"""The run folder: making, opening, locking and listing runs. See the package's docstring for the layout."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import filelock

from sparsezo_gui import recipe as recipes
from sparsezo_gui.engine.files import cannot_write, home, write_text
from sparsezo_gui.engine.runs import journal
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe.events import Evaluation, Event, Finished, Notice

VERSION = 1
LIBRARIES = ("sparsezo-gui", "torch", "transformers", "bitsandbytes", "numpy")
_TOLD = {"evaluation": Evaluation, "notice": Notice, "finished": Finished}


def runs_home() -> Path:
    """Folder of all runs, in the program's `home`."""
    return home() / "runs"


@dataclass(frozen=True)
class RunFolder:
    """An existing run: its folder and what ``run.json`` says."""

    path: Path
    facts: dict[str, Any]

    @property
    def journal(self) -> Path:
        """The journal's path."""
        return self.path / "journal.bin"

    @property
    def mask(self) -> Path:
        """The mask's path."""
        return self.path / "mask.safetensors"

    @property
    def recipe(self) -> Recipe:
        """The recipe as it runs."""
        return recipes.load(self.path / "recipe.toml")

    @property
    def name(self) -> str:
        """The run's name."""
        return str(self.facts.get("name") or self.path.name)

    def tell(self, event: Event) -> None:
        """Appends an event to ``events.jsonl``."""
        path = self.path / "events.jsonl"
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(event.as_json(), ensure_ascii=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise cannot_write(path, error) from error

    def events(self) -> list[Event]:
        """The events told so far; a torn last line is left out."""
        try:
            lines = (self.path / "events.jsonl").read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return []
        return [event for line in lines if (event := _event(line)) is not None]


def _event(line: str) -> Event | None:
    try:
        fields = json.loads(line)
        return _TOLD[fields.pop("event")](**fields)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def new_path(recipe: Recipe) -> Path:
    """Where a new run of ``recipe`` goes: its own ``[run] folder``, or a dated one among the runs."""
    if recipe.run.folder:
        return Path(recipe.run.folder)
    name = re.sub(r"[^\w.-]+", "-", recipe.run.name or "run").strip("-.") or "run"
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    path, number = runs_home() / f"{name}-{stamp}", 2
    while path.exists():
        path, number = runs_home() / f"{name}-{stamp}-{number}", number + 1
    return path


def prepare(path: Path) -> None:
    """Checks, before any long work, that a new run can be put in ``path``."""
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise UserError(f"{path}: already exists. Name a new folder, or go on with that run: sparsezo resume {path}")
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise cannot_write(path, error) from error


def create(path: Path, recipe: Recipe, facts: dict[str, Any]) -> RunFolder:
    """Writes a new run's recipe and ``run.json``; the latter last, since it is what makes the folder a run."""
    facts = {
        "version": VERSION,
        "name": recipe.run.name or path.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {library: version(library) for library in LIBRARIES},
        **facts,
    }
    write_text(path / "recipe.toml", recipes.dump(recipe))
    write_text(path / "run.json", json.dumps(facts, indent=2) + "\n")
    return RunFolder(path, facts)


def open_run(path: str | Path) -> RunFolder:
    """The run in a folder, or of that name among the runs. Raises `UserError` when there is none."""
    path = Path(path)
    if not path.exists() and (runs_home() / path).is_dir():
        path = runs_home() / path
    if not path.is_dir():
        raise UserError(f"There is no run folder '{path}'. 'sparsezo runs' lists the runs.")
    try:
        facts = json.loads((path / "run.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: not a run (it holds no run.json).") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path / 'run.json'}: cannot be read ({error}).") from error
    if not isinstance(facts, dict) or facts.get("version") != VERSION:
        raise UserError(f"{path}: not a run of a version that is known here. Update SparseZO.")
    return RunFolder(path.resolve(), facts)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Within: no other process writes this run."""
    lock = filelock.FileLock(path / "lock", timeout=0)
    try:
        with lock:
            yield
    except filelock.Timeout as error:
        raise UserError(f"{path}: another window or terminal is writing this run. Stop it there first.") from error


@dataclass(frozen=True)
class RunSummary:
    """A line in the list of runs. ``state`` is 'done', 'stopped', 'running' or 'damaged'."""

    path: str
    name: str
    state: str
    step: int
    steps: int
    created: str
    model: str
    metrics: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        """Plain object."""
        return dataclasses.asdict(self)


def list_runs(also: Path | None = None) -> list[RunSummary]:
    """All runs, the newest first, and the one in ``also``, which may lie anywhere."""
    folders = {path.parent.resolve(): path.parent for path in runs_home().glob("*/run.json")}
    if also is not None and (also / "run.json").is_file():
        folders.setdefault(also.resolve(), also)
    found = [summary(path) for path in folders.values()]
    return sorted(found, key=lambda run: run.created, reverse=True)


def summary(path: Path) -> RunSummary:
    """What the list shows of a run; a damaged one is listed as such."""
    try:
        run = open_run(path)
        recipe, events = run.recipe, run.events()
        step = journal.read(run.journal).steps if run.journal.exists() else 0
    except UserError:
        return RunSummary(str(path), path.name, "damaged", 0, 0, "", "", {})
    metrics = [event.metrics for event in events if isinstance(event, Evaluation)]
    state = "running" if _is_locked(run.path) else "done" if step >= recipe.loop.steps else "stopped"
    return RunSummary(
        str(run.path), run.name, state, step, recipe.loop.steps, str(run.facts.get("created", "")), recipe.model.id,
        metrics[-1] if metrics else {},
    )  # fmt: skip


def _is_locked(path: Path) -> bool:
    if not (path / "lock").exists():
        return False
    try:
        with locked(path):
            return False
    except UserError:
        return True
