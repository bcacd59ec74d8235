"""The original checkpoint with the tuned values, and those of earlier tuning, as a Hugging Face folder.

Every weight file is copied as it is (names, shards, dtypes, header), then the tuned weights are overwritten, so that
nothing else changes and only one weight is in memory at a time. The copy is compared with the original before the
folder gets its final name.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sparsezo_gui.engine.export.overlay_file import Changes
from sparsezo_gui.engine.pretrained.folder import copy_companions, drafted
from sparsezo_gui.engine.pretrained.source import ModelSource
from sparsezo_gui.engine.pretrained.weights import Checkpoint, Entry, read_header
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.events import Progress

CHUNK = 16 * 2**20  # bytes copied or compared at a time
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class Merged:
    """Result of `export_merged`: weights tuned, those that differ from the base model, and bytes written.

    ``moved`` is smaller than ``tuned`` if changes were lost to the rounding of 16-bit weights.
    """

    tuned: int
    moved: int
    bytes: int


def export_merged(
    source: ModelSource, changes: Changes, out: Path, texts: Mapping[str, str] | None = None
) -> Generator[Progress, None, Merged]:
    """Writes the merged model to ``out``, a folder that does not exist or is empty; ``texts`` are further files.

    The folder appears once everything is on disk and checked; closing the generator leaves nothing behind.
    Raises `UserError`.
    """
    checkpoint = Checkpoint(source)
    _refuse(source, checkpoint, changes)
    size = sum(file.stat().st_size for file in checkpoint.files)
    with drafted(out, size) as draft:
        yield from _copy(checkpoint, draft, size)
        moved = yield from _patch(checkpoint, changes, draft)
        copy_companions(source.folder, draft, texts or {}, source.code.files if source.code else None)
        yield from _verify(checkpoint, changes, draft, size)
    return Merged(sum(len(indices) for indices, _ in changes.values()), moved, size)


def _refuse(source: ModelSource, checkpoint: Checkpoint, changes: Changes) -> None:
    if source.prequantised:
        raise UserError(
            f"'{source.id}' is itself quantised, so there are no original weights to merge into. "
            "Export it as trained or as an overlay, or tune the 16-bit original of this model."
        )
    for name in changes:
        if name not in source.spec.linears or name not in checkpoint:
            raise UserError(f"'{source.id}' has no weight '{name}', so the tuned values belong to another model.")


def _copy(checkpoint: Checkpoint, draft: Path, size: int) -> Generator[Progress, None, None]:
    done = 0
    for file in checkpoint.files:
        with file.open("rb") as source, (draft / file.name).open("wb") as target:
            while chunk := source.read(CHUNK):
                target.write(chunk)
                done += len(chunk)
                yield Progress("Writing the merged model", done, size, "bytes")


def _patch(checkpoint: Checkpoint, changes: Changes, draft: Path) -> Generator[Progress, None, int]:
    """Overwrites the copies with the tuned values; returns how many differ from the base model."""
    moved, tuned = 0, _tuned(checkpoint, changes)
    for done, (key, name) in enumerate(tuned.items()):
        yield Progress("Merging the tuned values", done, len(tuned), "weights")
        entry = checkpoint.stored[key]
        tensor = _before(checkpoint, key)
        if name in changes:
            places, values = _stored(checkpoint, name, entry, changes[name])
            moved += int((_bits(tensor)[places] != _bits(values)).sum())
            tensor[places] = values
        with (draft / entry.file.name).open("r+b") as file:
            file.seek(entry.begin)
            file.write(tensor.view(torch.uint8).numpy().data)
    return moved


def _tuned(checkpoint: Checkpoint, changes: Changes) -> dict[str, str]:
    """The keys of the tensors that differ from the files, with the parameter that a run tuned or ''."""
    before = {key: "" for key, entry in checkpoint.entries.items() if entry is not checkpoint.stored[key]}
    return before | {checkpoint.key(name): name for name in changes}


def _before(checkpoint: Checkpoint, key: str) -> Tensor:
    """The numbers before the run in the file's dtype, also of a model that was tuned before."""
    return checkpoint.entries[key].read().to(checkpoint.stored[key].dtype).reshape(-1)


def _stored(checkpoint: Checkpoint, name: str, entry: Entry, change: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Indices (int64) and values of a change in the file's own layout: its dtype, and (in, out) for a Conv1D."""
    indices, values = change
    places = torch.as_tensor(indices).cpu().long()
    if name in checkpoint.spec.transposed:
        rows, columns = checkpoint.spec.linears[name]
        places = places % columns * rows + places // columns
    return places, torch.as_tensor(values).cpu().to(entry.dtype)


def _bits(tensor: Tensor) -> Tensor:
    """The bits of the numbers, so that a comparison distinguishes −0 from 0, and NaN equals itself."""
    return tensor.view(_BITS[tensor.element_size()])


def _verify(checkpoint: Checkpoint, changes: Changes, draft: Path, size: int) -> Generator[Progress, None, None]:
    """Compares every byte of the copies with the originals. An unexpected difference is a bug."""
    tuned = _tuned(checkpoint, changes)
    done = 0
    for file in checkpoint.files:
        copies = read_header(draft / file.name)
        if list(copies) != [key for key, entry in checkpoint.stored.items() if entry.file == file]:
            raise RuntimeError(f"{draft / file.name}: other tensors than in {file}")
        for key, copy in copies.items():
            original = checkpoint.stored[key]
            name = tuned.get(key)
            same = _same(original, copy) if name is None else _tuned_only(checkpoint, key, copy, name, changes)
            if not same:
                raise RuntimeError(f"{draft / file.name}: '{key}' differs from {file} where it must not")
            done += copy.end - copy.begin
            yield Progress("Checking the merged model", done, size, "bytes")


def _same(original: Entry, copy: Entry) -> bool:
    if (original.dtype, original.shape) != (copy.dtype, copy.shape):
        return False
    left = copy.end - copy.begin
    with original.file.open("rb") as first, copy.file.open("rb") as second:
        first.seek(original.begin)
        second.seek(copy.begin)
        while left:
            count = min(left, CHUNK)
            if first.read(count) != second.read(count):
                return False
            left -= count
    return True


def _tuned_only(checkpoint: Checkpoint, key: str, copy: Entry, name: str, changes: Changes) -> bool:
    before, after = _bits(_before(checkpoint, key)), _bits(copy.read().reshape(-1))
    if name not in changes:
        return torch.equal(before, after)
    places, values = _stored(checkpoint, name, checkpoint.stored[key], changes[name])
    if not torch.equal(after[places], _bits(values)):
        return False
    after[places] = before[places]
    return torch.equal(before, after)
