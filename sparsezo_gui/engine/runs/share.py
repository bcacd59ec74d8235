"""A run to give away: a small file from which another computer with the same base model rebuilds every step.

The shared run (version 1)
--------------------------
A zip file (deflated or stored; other methods can ask a reader for gigabytes) with the files of the run folder, and of
the runs it branched off from, in their places: ``run.json``, ``recipe.toml``, ``journal.bin`` (of a run that was
branched off from, only the records that the branch begins from), ``events.jsonl`` and ``notes.md`` where there are any,
and ``mask.safetensors`` where it is small or was asked for. Key frames, locks and data are not in it. A reader MUST
refuse a file with any other name in it, and entries that unfold to more than their limits; it MUST NOT write outside of
the new run's folder, and MUST NOT run code of the model, whatever the recipe says. A mask that is not there is found
again by its rule and MUST have the hash that ``run.json`` tells.
"""

from __future__ import annotations

import json
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sparsezo_gui.engine.drafts import drafting, new_folder, publish
from sparsezo_gui.engine.files import cannot_write, replacing, sync, write_text
from sparsezo_gui.engine.runs import journal
from sparsezo_gui.engine.runs.folder import BRANCHES, NOTES, RunFolder, open_run, runs_home
from sparsezo_gui.engine.runs.line import line
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import dump, judge, with_settings
from sparsezo_gui.recipe.events import Event, Finished, Returned

MASK, MASK_BYTES = "mask.safetensors", 250_000  # what a packed mask may take without being asked for
LIMITS = {  # bytes an entry may unfold to
    "run.json": 1 << 20, "recipe.toml": 1 << 20, "journal.bin": 1 << 30, "events.jsonl": 1 << 28, NOTES: 1 << 24,
    MASK: 1 << 32,
}  # fmt: skip
_PLACE = re.compile(rf"((?:{BRANCHES}/[\w][\w.-]*/)*)({'|'.join(map(re.escape, LIMITS))})")


@dataclass(frozen=True)
class Shared:
    """What was written: bytes of the file, and whether the mask is in it."""

    bytes: int
    with_mask: bool


def share(run: RunFolder, out: Path, with_mask: bool = False, replace: bool = False) -> Shared:
    """Writes the shared run to ``out``, which it may ``replace``. Raises `UserError`."""
    if out.exists() and not replace:
        raise UserError(f"{out}: already exists. Name another file.")
    line(run)  # what is wrong with it is told here, and not where it is received
    small = False
    with (
        replacing(out, new=not replace) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file,
    ):
        for name, content in _contents(run):
            file.writestr(name, content)
        if run.mask.exists():
            small = with_mask or len(zlib.compress(run.mask.read_bytes())) <= MASK_BYTES
            if small:
                file.write(run.mask, MASK)
    return Shared(out.stat().st_size, small)


def _contents(run: RunFolder) -> Iterator[tuple[str, bytes]]:
    """Names and contents of all entries but the mask."""
    root, count, step = run.root.path, None, 0
    while True:
        folder = run.path.relative_to(root).as_posix()
        prefix = "" if folder == "." else f"{folder}/"
        for name in ("run.json", "recipe.toml", NOTES):
            if (run.path / name).exists():
                yield prefix + name, (run.path / name).read_bytes()
        events = run.events() if count is None else _until(run, step)
        yield f"{prefix}events.jsonl", "".join(json.dumps(event.as_json()) + "\n" for event in events).encode()
        if run.journal.exists():
            found = journal.read(run.journal, count)
            yield f"{prefix}journal.bin", run.header.pack() + found.records.tobytes()
        if run.parent is None:
            return
        run, count, step = run.parent, run.facts.branched.records, run.facts.branched.step


def _until(run: RunFolder, step: int) -> list[Event]:
    """What was told of a run that was branched off from, as far as its steps are in the file."""
    events = (event for event in judge.on_line(run.events()) if not isinstance(event, Finished | Returned))
    return [event for event in events if getattr(event, "step", 0) <= step]


def receive(file: Path, folder: Path | None = None, settings: Sequence[str] = ()) -> RunFolder:
    """Unpacks a shared run into ``folder`` (None: a new one among the runs) and gives the run, or its last branch.

    ``settings`` change its recipes, such as where the model lies here. Raises `UserError`.
    """
    if not file.is_file():
        raise UserError(f"There is no file '{file}'. 'sparsezo share' writes one.")
    if folder and folder.exists():
        raise UserError(f"{folder}: already exists. Name another folder.")
    parent = folder.parent if folder else runs_home()
    try:
        with drafting(parent) as draft:
            last = _unpack(file, draft)
            _settle(draft, settings)
            line(open_run(draft / last))  # whatever is wrong with it is told before it takes its place
            target = folder or new_folder(parent, file.stem)
            publish(draft, target)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{file}: not a shared run, or damaged ({error}). Ask for it again.") from error
    except OSError as error:
        raise cannot_write(folder or parent, error) from error
    return open_run(target / last)


def _unpack(file: Path, folder: Path) -> str:
    """Writes the entries into ``folder``; gives the place of the innermost run, '' for the root."""
    last = ""
    with zipfile.ZipFile(file) as packed:
        for entry in packed.infolist():
            place = _PLACE.fullmatch(entry.filename)
            if place is None or ".." in entry.filename.split("/"):
                raise UserError(f"{file}: not a shared run (it holds '{entry.filename[:60]}').")
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise UserError(f"{file}: not a shared run (it is packed in another way than they are).")
            if entry.file_size > LIMITS[place[2]]:
                raise UserError(f"{file}: its '{entry.filename}' is larger than a run's can be.")
            path = folder / entry.filename
            path.parent.mkdir(parents=True, exist_ok=True)
            with packed.open(entry) as source, path.open("wb") as sink:
                shutil.copyfileobj(source, sink)  # reads no more than the size it tells
            sync(path)
            last = max(last, place[1], key=len)
    return last


def _settle(folder: Path, settings: Sequence[str]) -> None:
    """Puts ``settings`` into every recipe, and refuses those that would make it another run."""
    for path in sorted(folder.rglob("recipe.toml")):
        run = open_run(path.parent)
        changed = with_settings(run.recipe, settings)
        where = {"model": {"id", "revision", "device", "trust_remote_code"}, "data": {"source"}, "run": {"name"}}
        same = changed.model_dump(exclude=where) == run.recipe.model_dump(exclude=where)
        if not same:
            raise UserError("--set: a received run can be told where its model and data lie here, and nothing else.")
        write_text(path, dump(changed))
