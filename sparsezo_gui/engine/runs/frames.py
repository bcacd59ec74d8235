"""Key frames: the tuned values after some steps, so that any step is reached in a moment.

They are a cache: the journal alone rebuilds every value, and a frame that is missing or damaged costs only time.

The key frame file (version 4)
------------------------------
``frames/SSSSSSSS-RRRRRRRR.safetensors`` holds the run as it was at step S after the first R records of its journal. It
is a safetensors file with one uint8 tensor per number 0, 1, …: 0 is the values, the others are the tensors of the
state, which is that of the estimator and that of the update. Each is one zlib stream of its numbers' fp32 bits, little
endian, 2²⁰ numbers after the other, of which all lowest bytes come first, then all second ones and so on; of the
values, the bits are XORed with those that the run began with, which leaves most of the high bytes zero. The metadata
(all strings) MUST hold ``format`` = "sparsezo-frame", ``version`` = "4", ``mask_hash``, ``journal`` (SHA-256 of the
bytes of those R records), ``hash`` (SHA-256 of the values' bits) and ``state`` (JSON: a list of the two states, each
null or a list of numbers, in which ``{"tensor": [n, shape]}`` stands for tensor n). A reader MUST ignore a frame that
breaks any of this, or whose journal has other records now. Version 1 held the update's state alone, version 2 all
lowest bytes of a tensor before all others, version 3 no hash of the records; they are ignored.
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
from sparsezo_gui.engine.runs.journal import Journal, JournalWriter

FORMAT, VERSION = "sparsezo-frame", "4"
PIECE = 2**20  # numbers packed at a time
STEP_SECONDS, VALUE_SECONDS = 130e-6, 12e-9  # of a replay, measured on one core
STEPS_AGAIN = 20
STATE_LARGEST = 16  # times the values that all tensors of the states may hold together
REACH_SECONDS, REACH_LONGEST = 1.0, 12.0  # how long a replay from the frame before may take: longer for large masks
PACKED = 0.5  # of the values' bytes at least, that a frame of them takes; what is remembered hardly packs
FEWEST = 100  # steps between two frames: to write one takes as long as several steps where there are many values


@dataclass(frozen=True)
class Frame:
    """A key frame by its name; what it holds is not looked at yet."""

    path: Path
    step: int
    records: int

    def on(self, journal: Journal | JournalWriter) -> bool:
        """Whether ``journal`` still leads through it: the run has not gone back before it since."""
        since = [step for place, step in journal.returns if place >= self.records]
        return self.records <= journal.count and min(since, default=self.step) >= self.step


def spacing(size: int, again: bool = False) -> int:
    """Steps between two frames of ``size`` values: a second of replaying, and one more for each MiB of a frame.

    Where steps are to be taken ``again``, with their forward and backward passes, it is a few.
    """
    if again:
        return STEPS_AGAIN
    seconds = min(REACH_SECONDS * (1 + 2.5e-6 * size), REACH_LONGEST)
    return max(FEWEST, round(seconds / (STEP_SECONDS + VALUE_SECONDS * size)))


def usual_bytes(values: Tensor, remembered: int) -> int:
    """Bytes that a frame of ``values`` takes, packed as it usually is, with so many ``remembered`` vectors as long."""
    return round((PACKED + remembered) * values.nbytes)


def frames(folder: Path) -> list[Frame]:
    """The frames of the run in ``folder``, in order of steps."""
    found = []
    for path in (folder / "frames").glob("*.safetensors"):
        name = re.fullmatch(r"(\d{8,})-(\d{8,})", path.stem)
        if name:
            found.append(Frame(path, int(name[1]), int(name[2])))
    return sorted(found, key=lambda frame: (frame.step, frame.records))


def write(
    folder: Path, step: int, records: int, start: Any, values: Tensor, states: Sequence[Any], mask_hash: str,
    journal_hash: str,
) -> Path:  # fmt: skip
    """Writes a frame of ``values`` (n,), which began at ``start`` (n,), that is read by slices, as they were after so
    many ``records``, which have the ``journal_hash``. Raises `UserError`."""
    plain, others = _plain(states)
    metadata = {
        "format": FORMAT, "version": VERSION, "mask_hash": mask_hash, "journal": journal_hash,
        "state": json.dumps(plain), "hash": "0" * 64,
    }  # fmt: skip
    # How long the streams get shows as they are written; the header has room for any length.
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


def read(frame: Frame, start: Any, values: Tensor, mask_hash: str, journal_hash: str) -> tuple[Any, ...] | None:
    """The two states that ``frame`` holds, and its values into ``values``, which began at ``start``.

    None where it cannot be used, or has another mask or another history; what the values are is not told then.
    """
    try:
        with safe_open(frame.path, framework="pt") as file:
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
    """Removes frames off the run's line, then those that are missed least, until the rest keep to ``budget`` bytes."""
    kept = frames(folder)
    for frame in [frame for frame in kept if not frame.on(journal)]:
        frame.path.unlink(missing_ok=True)
        kept.remove(frame)
    sizes = {frame: frame.path.stat().st_size for frame in kept}
    while kept and sum(sizes[frame] for frame in kept) > budget:
        spare = min(range(len(kept)), key=lambda place: _missed(kept, place, journal.header.start))
        kept.pop(spare).path.unlink(missing_ok=True)


def _missed(kept: Sequence[Frame], place: int, start: int) -> int:
    """Steps between a frame's neighbours; the last one is the one that a resume begins from."""
    if place == len(kept) - 1 and len(kept) > 1:
        return 2**62
    before = kept[place - 1].step if place else start
    return kept[min(place + 1, len(kept) - 1)].step - before


def _parts(size: int) -> Iterator[slice]:
    return (slice(first, min(first + PIECE, size)) for first in range(0, size, PIECE))


def _bits(values: Tensor) -> np.ndarray:
    return values.detach().cpu().float().contiguous().numpy().astype("<f4", copy=False).view("<u4").reshape(-1)


def _header(metadata: dict[str, str], ends: Sequence[int], room: int = 0) -> bytes:
    """The first bytes of a safetensors file with one uint8 tensor up to each of the ``ends``, filled up to ``room``."""
    fields: dict[str, Any] = {"__metadata__": metadata}
    for number, (begin, end) in enumerate(itertools.pairwise((0, *ends))):
        fields[str(number)] = {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]}
    text = json.dumps(fields).encode()
    text = text.ljust(room - 8) if room else text
    return len(text).to_bytes(8, "little") + text


def _unpacked(file: Any, number: int, size: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Places and bits of the ``size`` numbers of a tensor. A stream that holds more raises ValueError without being
    unfolded."""
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


def _plain(states: Sequence[Any]) -> tuple[list[Any], list[Tensor]]:
    """States as JSON, and their tensors. Raises TypeError for what would not come back as it was."""
    tensors: list[Tensor] = []
    plain: list[Any] = []
    for state in states:
        parts: list[Any] = []
        for part in () if state is None else state:
            if not isinstance(part, Tensor | int | float) or (isinstance(part, Tensor) and part.dtype != torch.float32):
                raise TypeError(f"a state holds numbers and fp32 tensors, not {getattr(part, 'dtype', type(part))}")
            if isinstance(part, Tensor):
                tensors.append(part)
                parts.append({"tensor": [len(tensors), list(part.shape)]})
            else:
                parts.append(part)
        plain.append(None if state is None else parts)
    return plain, tensors


def _states(plain: Any, file: Any, values: Tensor) -> tuple[Any, ...]:
    """The two states of `_plain`. Raises ValueError and others."""
    if not isinstance(plain, list) or len(plain) != 2:
        raise ValueError("not two states")
    # One stream may stand for many tensors.
    sizes = [math.prod(part["tensor"][1]) for state in plain for part in state or () if isinstance(part, dict)]
    if min(sizes, default=0) < 0 or sum(sizes) > STATE_LARGEST * values.numel():
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
