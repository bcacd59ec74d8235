"""Checkpoints: the tuned values after some steps, so that any step opens quickly.

They are a cache: the journal alone can rebuild every value, and a missing or damaged checkpoint only costs time.

The checkpoint file (version 4)
-------------------------------
``frames/SSSSSSSS-RRRRRRRR.safetensors`` is the state of the run at step S, after the first R records of its journal. It
is a safetensors file with uint8 tensors named 0, 1, …: 0 has the tuned values, the others are the tensors in the states
of the estimator and the update. Each is one zlib stream of fp32 bits, little endian, in pieces of 2²⁰ numbers; a piece
has all lowest bytes first, then all second ones and so on. The bits of the values are XORed with the initial ones,
which makes most of the high bytes zero. The metadata
(all strings) MUST hold ``format`` = "sparsezo-frame", ``version`` = "4", ``mask_hash``, ``journal`` (SHA-256 of the
bytes of those R records), ``hash`` (SHA-256 of the values' bits) and ``state`` (JSON: a list of the two states, each
null or a list of numbers, in which ``{"tensor": [n, shape]}`` stands for tensor n). A reader MUST ignore a file that
breaks any of these rules, or whose journal has other records now. Version 1 had only the update's state, version 2 did
not split tensors into pieces, version 3 had no hash of the records; they are ignored.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sparsezo_gui.engine.files import replacing
from sparsezo_gui.engine.runs.journal import Journal
from sparsezo_gui.engine.runs.journal_writer import JournalWriter

FORMAT, VERSION = "sparsezo-frame", "4"
PIECE = 2**20  # numbers compressed at a time
STEP_SECONDS, VALUE_SECONDS = 130e-6, 12e-9  # of a replay, measured on one core
STEPS_AGAIN = 20
STATE_LARGEST = 16  # limit for all tensors of the states together, as a multiple of the values
BASIS_LARGEST = 256  # more for the third state
REACH_SECONDS, REACH_LONGEST = 1.0, 12.0  # of a replay from the checkpoint before; longer for large masks
PACKED = 0.5  # least size of a checkpoint, relative to its values; optimiser state hardly compresses
FEWEST = 100  # steps between two checkpoints: with many values, writing one takes as long as several steps


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint, known by its file name; not read yet."""

    path: Path
    step: int
    records: int

    def on(self, journal: Journal | JournalWriter) -> bool:
        """Whether it is on the lineage of ``journal``: the run has not gone back to an earlier step since."""
        since = [step for place, step in journal.returns if place >= self.records]
        return self.records <= journal.count and min(since, default=self.step) >= self.step


def spacing(size: int, again: bool = False) -> int:
    """Steps between two checkpoints of ``size`` values: a second of replay, and one more for each MiB.

    Only a few if a replay must take the steps ``again``, with their forward and backward passes.
    """
    if again:
        return STEPS_AGAIN
    seconds = min(REACH_SECONDS * (1 + 2.5e-6 * size), REACH_LONGEST)
    return max(FEWEST, round(seconds / (STEP_SECONDS + VALUE_SECONDS * size)))


def usual_bytes(values: Tensor, state_vectors: int) -> int:
    """Usual bytes of a compressed checkpoint of ``values`` and ``state_vectors`` state vectors of the same size."""
    return round((PACKED + state_vectors) * values.nbytes)


def listed(folder: Path) -> list[Checkpoint]:
    """The checkpoints of the run in ``folder``, ordered by step."""
    found = []
    for path in (folder / "frames").glob("*.safetensors"):
        name = re.fullmatch(r"(\d{8,})-(\d{8,})", path.stem)
        if name:
            found.append(Checkpoint(path, int(name[1]), int(name[2])))
    return sorted(found, key=lambda each: (each.step, each.records))


def write(
    folder: Path, step: int, records: int, start: Any, values: Tensor, states: Sequence[Any], mask_hash: str,
    journal_hash: str,
) -> Path:  # fmt: skip
    """Writes a checkpoint of ``values`` (n,) after so many ``records``, which have the ``journal_hash``; ``start`` (n,)
    are the initial values, read in slices. Raises `UserError`."""
    plain, others = plain_states(states)
    metadata = {
        "format": FORMAT, "version": VERSION, "mask_hash": mask_hash, "journal": journal_hash,
        "state": json.dumps(plain), "hash": "0" * 64,
    }  # fmt: skip
    # Stream lengths are known only after writing, so leave space in the header for any length.
    room = len(_header(metadata, [2**50] * (1 + len(others))))
    path = folder / "frames" / f"{step:08d}-{records:08d}.safetensors"
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.seek(room)
        digest, ends = hashlib.sha256(), []
        for number, tensor in enumerate((values, *others)):
            stream = zlib.compressobj(1)
            for part in _parts(tensor.numel()):
                bits = _bits(tensor.view(-1)[part])
                if number == 0:
                    digest.update(bits.data)
                    bits = bits ^ _bits(start[part])
                file.write(stream.compress(np.ascontiguousarray(bits.view(np.uint8).reshape(-1, 4).T).data))
            file.write(stream.flush())
            ends.append(file.tell() - room)
        file.seek(0)
        file.write(_header({**metadata, "hash": digest.hexdigest()}, ends, room))
    return path


def read(
    checkpoint: Checkpoint, start: Any, values: Tensor, mask_hash: str, journal_hash: str
) -> tuple[Any, ...] | None:
    """Reads ``checkpoint`` into ``values``, whose initial values are ``start``, and returns its states.

    None if it is unusable, or has another mask or history; ``values`` are undefined then.
    """
    try:
        with safe_open(checkpoint.path, framework="pt") as file:
            metadata = file.metadata() or {}
            found = tuple(metadata[key] for key in ("format", "version", "mask_hash", "journal"))
            if found != (FORMAT, VERSION, mask_hash, journal_hash):
                return None
            digest = hashlib.sha256()
            for part, bits in _unpacked(file, 0, values.numel()):
                bits = bits ^ _bits(start[part])
                digest.update(bits.data)
                values[part] = torch.from_numpy(bits.view(np.float32)).to(values)
            if digest.hexdigest() != metadata["hash"]:
                return None
            return _states(json.loads(metadata["state"]), file, values)
    except (SafetensorError, OSError, zlib.error, ValueError, KeyError, TypeError, IndexError, RecursionError):
        return None


def thin(folder: Path, journal: Journal | JournalWriter, budget: int) -> None:
    """Removes checkpoints off the run's lineage, then the least useful ones until the rest fit in ``budget`` bytes."""
    kept = listed(folder)
    for checkpoint in [each for each in kept if not each.on(journal)]:
        checkpoint.path.unlink(missing_ok=True)
        kept.remove(checkpoint)
    sizes = {each: each.path.stat().st_size for each in kept}
    while kept and sum(sizes[each] for each in kept) > budget:
        spare = min(range(len(kept)), key=lambda place: _missed(kept, place, journal.header.start))
        kept.pop(spare).path.unlink(missing_ok=True)


def _missed(kept: Sequence[Checkpoint], place: int, start: int) -> int:
    """Steps between the neighbours of a checkpoint; the last one, from which a run resumes, counts as most useful."""
    if place == len(kept) - 1 and len(kept) > 1:
        return 2**62
    before = kept[place - 1].step if place else start
    return kept[min(place + 1, len(kept) - 1)].step - before


def _parts(size: int) -> Iterator[slice]:
    return (slice(first, min(first + PIECE, size)) for first in range(0, size, PIECE))


def _bits(values: Tensor) -> np.ndarray:
    return values.detach().cpu().float().contiguous().numpy().astype("<f4", copy=False).view("<u4").reshape(-1)


def _header(metadata: dict[str, str], ends: Sequence[int], room: int = 0) -> bytes:
    """The header of a safetensors file with uint8 tensors that end at ``ends``, padded to ``room`` bytes."""
    fields: dict[str, Any] = {"__metadata__": metadata}
    for number, (begin, end) in enumerate(itertools.pairwise((0, *ends))):
        fields[str(number)] = {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]}
    text = json.dumps(fields).encode()
    text = text.ljust(room - 8) if room else text
    return len(text).to_bytes(8, "little") + text


def _unpacked(file: Any, number: int, size: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Slices and bits of the ``size`` numbers of a tensor. Raises ValueError for a longer stream before unpacking."""
    packed, stream, place = file.get_slice(str(number)), zlib.decompressobj(), 0
    (length,) = packed.get_shape()

    def more(most: int) -> bytes:
        """Up to ``most`` bytes, none at the end."""
        nonlocal place
        while not stream.eof:
            taken = stream.unconsumed_tail
            if not taken:
                taken = packed[place : min(place + PIECE, length)].numpy().tobytes() if place < length else b""
                place += len(taken)
            if found := stream.decompress(taken, most):
                return found
            if not taken and not stream.eof:
                raise ValueError("ends too early")
        return b""

    for part in _parts(size):
        planes, wanted = bytearray(), 4 * (part.stop - part.start)
        while len(planes) < wanted:
            found = more(wanted - len(planes))
            if not found:
                raise ValueError("fewer numbers than the mask has")
            planes += found
        yield part, np.ascontiguousarray(np.frombuffer(planes, np.uint8).reshape(4, -1).T).view("<u4").reshape(-1)
    if more(1):
        raise ValueError("more numbers than the mask has")


def plain_states(states: Sequence[Any]) -> tuple[list[Any], list[Tensor]]:
    """States as JSON, and their tensors. Raises TypeError for anything that would not be read back unchanged."""
    tensors: list[Tensor] = []
    plain: list[Any] = []
    for state in states if states[-1] is not None else states[:2]:  # the third is new, and rare
        parts: list[Any] = []
        for part in () if state is None else state:
            if not isinstance(part, Tensor | int | float) or (isinstance(part, Tensor) and part.dtype != torch.float32):
                raise TypeError(f"a state has only numbers and fp32 tensors, not {getattr(part, 'dtype', type(part))}")
            if isinstance(part, Tensor):
                tensors.append(part)
                parts.append({"tensor": [len(tensors), list(part.shape)]})
            else:
                parts.append(part)
        plain.append(None if state is None else parts)
    return plain, tensors


def states_of(plain: Any, tensors: Sequence[Tensor]) -> list[Any]:
    """The states of `plain_states`, whose tensors are numbered from 1."""

    def part(found: Any) -> Any:
        return tensors[found["tensor"][0] - 1] if isinstance(found, dict) else found

    return [None if state is None else tuple(map(part, state)) for state in plain]


def _states(plain: Any, file: Any, values: Tensor) -> tuple[Any, ...]:
    """The states of `plain_states`. Raises ValueError and others."""
    if not isinstance(plain, list) or len(plain) not in (2, 3):
        raise ValueError("neither two states nor three")
    # Many tensors may refer to one stream.
    sizes = [math.prod(part["tensor"][1]) for state in plain for part in state or () if isinstance(part, dict)]
    largest = STATE_LARGEST + (BASIS_LARGEST if len(plain) == 3 else 0)
    if min(sizes, default=0) < 0 or sum(sizes) > largest * values.numel():
        raise ValueError("states larger than any")
    return tuple(None if state is None else tuple(_part(part, file, values) for part in state) for state in plain)


def _part(part: Any, file: Any, values: Tensor) -> Any:
    if isinstance(part, dict):
        number, shape = part["tensor"]
        size = math.prod(shape)
        found = torch.empty(size)
        for place, bits in _unpacked(file, number, size):
            found[place] = torch.from_numpy(bits.view(np.float32))
        return found.view(shape).to(values.device)
    if isinstance(part, int | float):
        return part
    raise ValueError("not a number")
