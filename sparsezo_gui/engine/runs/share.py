"""Sharing a run: a small file from which another computer with the same base model can rebuild every step.

The shared run (version 2)
--------------------------
A zip file (deflated or stored; other methods can demand gigabytes from a reader) with files of the run folder, and of
the runs that it branched from, at the same relative paths: ``run.json``, ``recipe.toml``, ``journal.bin`` (of a parent,
only the records before the branch), ``gradients.bin`` (only of the steps that led to the run) if they are small enough,
``events.jsonl`` and ``notes.md`` if they exist, and ``mask.safetensors`` if it is small or requested. Checkpoints,
locks and data are not included. Version 1 had no ``gradients.bin``.

A writer MUST leave out the best and worst examples of the evaluations, which are rows of the data, unless requested,
and MUST reduce each path to ``./`` and its last part, which a reader resolves from the outermost run's folder. All
entries together MUST NOT unpack to more than 1 GiB, nor to more than both 20 MiB and 100 times the file's size, and
there MUST NOT be more than 1,000 of them; a writer stores data that compresses too well.

A reader MUST refuse a file with any other name in it, with two names that a disk may treat as equal, with a folder that
lacks ``run.json`` or ``recipe.toml`` (including parent folders), and with entries that unpack to more than their own or
the total limit, before writing much of it. It MUST NOT write outside the new run's folder, and MUST NOT run code of the
model, even if the recipe allows it. A missing mask is found again by its rule and MUST have the hash in ``run.json``.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import unicodedata
import zipfile
import zlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from sparsezo_gui.answers import Content, Shared
from sparsezo_gui.engine.drafts import drafting, new_folder, publish
from sparsezo_gui.engine.files import cannot_write, make_folder, private, replacing, sync, write_text
from sparsezo_gui.engine.runs import gradients, journal
from sparsezo_gui.engine.runs.folder import BRANCHES, NOTES, RunFolder, open_run, runs_home
from sparsezo_gui.engine.runs.gradients import Gradients
from sparsezo_gui.engine.runs.lineage import lineage_of
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import Recipe, dump, loads, outcome, portable, values, with_settings
from sparsezo_gui.recipe.events import Event, Examples, Finished, Notice, Returned
from sparsezo_gui.sizes import size

if TYPE_CHECKING:
    import numpy as np

MASK, MASK_BYTES = "mask.safetensors", 1 << 18  # size up to which a compressed mask is always included
GRADIENTS, GRADIENTS_BYTES = "gradients.bin", 1 << 28  # size of all files up to which they are included
MOST_BYTES, MOST_TIMES, SMALL, MOST_ENTRIES = 1 << 30, 100, 20 << 20, 1000  # of all entries; see the format
LIMITS = {  # maximum unpacked bytes of an entry
    "run.json": 1 << 20, "recipe.toml": 1 << 20, "journal.bin": 1 << 30, "events.jsonl": 1 << 28, NOTES: 1 << 24,
    MASK: 1 << 30, GRADIENTS: GRADIENTS_BYTES,
}  # fmt: skip
HOLDS = {
    "run.json": "name, date, device, versions, and hashes of model and data",
    "recipe.toml": "the recipe with its template; file names without their folders",
    "journal.bin": "loss, rate, time and memory of every step",
    "events.jsonl": "metrics and notices",
    NOTES: "your notes, word for word",
    MASK: "which weights are tuned",
    GRADIENTS: "exact gradients of the steps, from which parts of your training data may be reconstructed",
}
_PIECE = 1 << 20  # bytes unpacked at a time
_PLACE = re.compile(rf"((?:{BRANCHES}/[\w][\w.-]*/)*)({'|'.join(map(re.escape, LIMITS))})")


def contents(run: RunFolder, with_mask: bool = False, with_examples: bool = False) -> tuple[Content, ...]:
    """The contents that `share` would write. Raises `UserError`."""
    return tuple(content for content, _ in _entries(run, with_mask, with_examples))


def share(
    run: RunFolder, out: Path, with_mask: bool = False, with_examples: bool = False, replace: bool = False
) -> Shared:
    """Writes the shared run to ``out``, which it may ``replace``; ``with_mask`` includes even a large mask,
    ``with_examples`` the best and worst examples. Raises `UserError`."""
    if out.exists() and not replace:
        raise UserError(f"{out}: already exists. Choose another file.")
    lineage = lineage_of(run)  # reports errors here, not to the recipient
    entries = list(_entries(run, with_mask, with_examples))
    total, masked = sum(content.bytes for content, _ in entries), entries[-1][0].file == MASK
    large = any(content.bytes > LIMITS[content.file.rsplit("/", 1)[-1]] for content, _ in entries)
    if total > MOST_BYTES or large or len(entries) > MOST_ENTRIES:
        raise UserError(
            f"{run.path}: too large to share ({size(total)} in {len(entries):,} files). Leave out the mask, shorten "
            "the notes, or share a branch from an earlier step."
        )
    with (
        replacing(out, new=not replace) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file,
    ):
        for content, data in entries:
            # Readers treat data that compresses too well as an attack.
            shrinks = len(data) > SMALL and len(zlib.compress(data)) * MOST_TIMES < len(data)
            file.writestr(content.file, data, zipfile.ZIP_STORED if shrinks else zipfile.ZIP_DEFLATED)
    kept = _fitting(run)
    again = sum(_gradients(part.run, kept).missing(_recording(part.recipe, part.steps)) for part in lineage.segments)
    return Shared(out.stat().st_size, masked, tuple(content for content, _ in entries), again)


def _fitting(run: RunFolder) -> bool:
    """Whether the exact gradients of ``run`` and its parents are small enough to include."""
    files = (each.gradients for each in run.lineage)
    return sum(file.stat().st_size for file in files if file.is_file()) <= GRADIENTS_BYTES


def _gradients(run: RunFolder, fitting: bool) -> Gradients:
    """The exact gradients of ``run`` that are included."""
    if not fitting:
        return Gradients(run.gradients)
    return gradients.read(run.gradients, run.recipe.gradient_size(run.facts.tuned), run.facts.mask_hash)


def _recording(recipe: Recipe, steps: np.ndarray) -> np.ndarray:
    """Those of the ``steps`` of a run of ``recipe`` that record a gradient."""
    if recipe.estimator.exact:
        return steps[steps["values"].any(axis=1)]
    return steps[[recipe.mask.due(int(step)) for step in steps["step"]]] if recipe.mask.refreshed else steps[:0]


def _entries(run: RunFolder, with_mask: bool, with_examples: bool) -> Iterator[tuple[Content, bytes]]:
    """All entries and their bytes."""
    for name, data, holds in _files(run, with_examples):
        yield Content(name, len(data), holds or HOLDS[name.rsplit("/", 1)[-1]]), data
    if run.mask.exists():
        data = run.mask.read_bytes()
        if with_mask or len(zlib.compress(data)) <= MASK_BYTES:
            yield Content(MASK, len(data), HOLDS[MASK]), data


def _files(run: RunFolder, with_examples: bool) -> Iterator[tuple[str, bytes, str]]:
    """Name and bytes of each file except the mask, and its description if that is not always the same."""
    root, count, step, fitting = run.root.path, None, 0, _fitting(run)
    while True:
        folder = run.path.relative_to(root).as_posix()
        prefix = "" if folder == "." else f"{folder}/"
        recipe = portable(run.recipe)
        facts = run.facts.model_copy(update={"model": recipe.model.id})
        yield f"{prefix}run.json", facts.model_dump_json(indent=2, exclude_none=True).encode(), ""
        yield f"{prefix}recipe.toml", dump(recipe).encode(), ""
        if run.notes:
            yield prefix + NOTES, run.notes.encode(), ""
        events = run.events() if count is None else _until(run, step)
        events = [_without_paths(event, run) for event in events if with_examples or not isinstance(event, Examples)]
        rows = sum(len(event.best) + len(event.worst) for event in events if isinstance(event, Examples))
        holds = f"metrics, notices, and {rows} EXAMPLES of your data, word for word" if rows else ""
        lines = "".join(json.dumps(event.as_json()) + "\n" for event in events)
        yield f"{prefix}events.jsonl", lines.encode(), holds
        if run.journal.exists():
            found = journal.read(run.journal, count)
            yield f"{prefix}journal.bin", run.header.pack() + found.records.tobytes(), ""
            steps = found.steps if count is None else found.steps[: step - run.start]
            if kept := _gradients(run, fitting).packed(steps):
                yield prefix + GRADIENTS, kept, ""
        parent, branched = run.parent, run.facts.branched
        if parent is None or branched is None:
            return
        run, count, step = parent, branched.records, branched.step


def _without_paths(event: Event, run: RunFolder) -> Event:
    """The event, with names instead of the paths of the run, its model and its data, and without the home folder."""
    if not isinstance(event, Notice):
        return event
    text, recipe = event.text, run.recipe
    for path in (str(run.path), str(run.root.path), recipe.data.source, recipe.model.id):
        if os.path.isabs(path):
            text = text.replace(path, Path(path).name)
    return dataclasses.replace(event, text=text.replace(str(Path.home()), "~"))


def _until(run: RunFolder, step: int) -> list[Event]:
    """Events of a parent run up to ``step``."""
    events = (event for event in outcome.on_lineage(run.events()) if not isinstance(event, Finished | Returned))
    return [event for event in events if getattr(event, "step", 0) <= step]


def receive(file: Path, folder: Path | None = None, settings: Sequence[str] = ()) -> RunFolder:
    """Unpacks a shared run into ``folder`` (None: a new one in the runs folder); returns the run, or its last branch.

    ``settings`` change its recipes, such as the path of the model on this computer. A refused file leaves nothing
    behind. Raises `UserError`.
    """
    if not file.is_file():
        raise UserError(f"There is no file '{file}'. Create one with 'sparsezo share'.")
    if folder and folder.exists():
        raise UserError(f"{folder}: already exists. Choose another folder.")
    parent = folder.parent if folder else runs_home()
    try:
        with drafting(parent) as draft:
            target = folder or new_folder(parent, file.stem)
            try:
                last = _unpack(file, draft)
                _apply_settings(draft, target, settings)
                lineage_of(open_run(draft / last))  # report errors before publishing it
                publish(draft, target)
            except BaseException as error:
                if folder is None:
                    target.rmdir()  # still empty
                if type(error) is UserError:  # it names paths that no longer exist
                    raise UserError(*(text.replace(str(draft), str(file)) for text in error.args)) from error
                raise
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{file}: not a shared run, or damaged ({error}). Get a new copy of it.") from error
    except OSError as error:
        raise cannot_write(folder or parent, error) from error
    return open_run(target / last)


def lacks(run: RunFolder) -> tuple[list[str], str]:
    """Keys of a received run's recipe whose paths do not exist on this computer, and a sentence on what to do."""
    recipe = run.recipe
    places = [("model.id", recipe.model.id), ("data.source", recipe.data.source)]
    if not run.mask.exists():
        mask = recipe.mask
        texts = getattr(mask, "texts", None) or (getattr(mask, "text", ""), getattr(mask, "file", ""))
        places += [("mask", text) for text in texts]
    lacking = [(key, path) for key, path in places if os.path.isabs(path) and not os.path.exists(path)]
    if not lacking:
        return [], ""
    names = ", ".join(f"'{Path(path).name}' ({key})" for key, path in lacking)
    return list(dict(lacking)), (
        f"It does not include {names}. Copy what is missing into {run.root.path}, or set its path on this computer in "
        f"{run.path / 'recipe.toml'}."
    )


def _unpack(file: Path, folder: Path) -> str:
    """Writes the entries into ``folder``; returns the path of the innermost run, '' for the root."""
    last, left = "", min(MOST_BYTES, max(SMALL, MOST_TIMES * file.stat().st_size))
    with zipfile.ZipFile(file) as packed:
        entries = packed.infolist()
        # The stated sizes may be wrong, so actual bytes are counted too.
        if len(entries) > MOST_ENTRIES or sum(entry.file_size for entry in entries) > left:
            raise _too_large(file)
        names = {unicodedata.normalize("NFC", entry.filename).casefold() for entry in entries}
        if len(names) < len(entries):
            raise UserError(f"{file}: not a shared run (it has two files with the same name). Get a new copy of it.")
        _check_complete(file, {entry.filename for entry in entries})
        for entry in entries:
            place = _PLACE.fullmatch(entry.filename)
            if place is None or ".." in entry.filename.split("/"):
                raise UserError(f"{file}: not a shared run (it contains '{entry.filename[:60]}'). Choose another file.")
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise UserError(f"{file}: not a shared run (unknown compression method). Get a new copy of it.")
            if entry.file_size > LIMITS[place[2]]:
                raise UserError(f"{file}: its '{entry.filename}' is too large. Get a new copy of it.")
            path = folder / entry.filename
            make_folder(path.parent)
            with packed.open(entry) as source, open(path, "xb", opener=private) as sink:
                while piece := source.read(_PIECE):
                    left -= len(piece)
                    if left < 0:
                        raise _too_large(file)
                    sink.write(piece)
            sync(path)
            last = max(last, place[1], key=len)
    return last


def _check_complete(file: Path, names: Collection[str]) -> None:
    """Raises `UserError` if a run or one of its parents lacks a required file."""
    folders = {PurePosixPath(name).parent for name in names}
    for folder in folders | {folder.parent.parent for folder in folders}:
        for needed in ("run.json", "recipe.toml"):
            if (lacking := str(folder / needed)) not in names:
                raise UserError(f"{file}: not a shared run (it lacks '{lacking[:60]}'). Get a new copy of it.")


def _too_large(file: Path) -> UserError:
    return UserError(
        f"{file}: unpacks to more than a shared run may ({size(MOST_BYTES)}, {MOST_TIMES} times its size or "
        f"{MOST_ENTRIES:,} files), so it was not unpacked. Do not trust it; get a new copy of it."
    )


def _apply_settings(folder: Path, target: Path, settings: Sequence[str]) -> None:
    """Applies ``settings`` to every recipe of the run in ``folder``, which will move to ``target``; refuses those that
    would change the run itself."""
    for path in sorted(folder.rglob("recipe.toml")):
        recipe = loads(path.read_text(encoding="utf-8"), str(path), target.absolute())
        changed = with_settings(recipe, settings, Path.cwd())
        if values(changed) != values(recipe):
            raise UserError(
                "--set: in a received run, only the paths of its model and data can be set. Leave out the rest."
            )
        write_text(path, dump(changed))
