"""Key frames: the tuned values after some steps, so that any step is reached in a moment.

They are a cache: the journal alone rebuilds every value, and a frame that is missing or damaged costs only time.

The key frame file (version 2)
------------------------------
``frames/SSSSSSSS-RRRRRRRR.safetensors`` holds the run as it was at step S after the first R records of its journal. It
is a safetensors file with one uint8 tensor per number 0, 1, …: 0 is the values, the others are the tensors of the
state, which is that of the estimator and that of the update. Each is a zlib stream of the number's fp32 bits, little
endian, all lowest bytes first, then all second ones and so on; of the values, the bits are XORed with those that the
run began with, which leaves most of the high bytes zero. The metadata (all strings) MUST hold ``format`` =
"sparsezo-frame", ``version`` = "2", ``mask_hash``, ``hash`` (SHA-256 of the values' bits) and ``state`` (JSON: a list
of the two states, each null or a list of numbers, in which ``{"tensor": [n, shape]}`` stands for tensor n). A reader
MUST ignore a frame that breaks any of this. Version 1 held the update's state alone, and is ignored.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sparsezo_gui.engine.files import replacing
from sparsezo_gui.engine.runs.journal import Journal

FORMAT, VERSION = "sparsezo-frame", "2"
STEP_SECONDS, VALUE_SECONDS = 130e-6, 12e-9  # of a replay, measured on one core
STEPS_AGAIN = 20
STATE_LARGEST = 16  # times the values that a tensor of a state may hold
REACH_SECONDS, REACH_LONGEST = 1.0, 12.0  # how long a replay from the frame before may take: longer for large masks


@dataclass(frozen=True)
class Frame:
    """A key frame by its name; what it holds is not looked at yet."""

    path: Path
    step: int
    records: int

    def on(self, journal: Journal) -> bool:
        """Whether ``journal`` still leads through it: the run has not gone back before it since."""
        since = journal.returns[journal.returns >= self.records]
        return self.records <= len(journal.records) and all(journal.records["step"][since] >= self.step)


def spacing(size: int, again: bool = False) -> int:
    """Steps between two frames of ``size`` values: a second of replaying, and one more for each MB of a frame.

    Where steps are to be taken ``again``, with their forward and backward passes, it is a few.
    """
    if again:
        return STEPS_AGAIN
    seconds = min(REACH_SECONDS * (1 + 2.5e-6 * size), REACH_LONGEST)
    return max(1, round(seconds / (STEP_SECONDS + VALUE_SECONDS * size)))


def frames(folder: Path) -> list[Frame]:
    """The frames of the run in ``folder``, in order of steps."""
    found = []
    for path in (folder / "frames").glob("*.safetensors"):
        name = re.fullmatch(r"(\d{8,})-(\d{8,})", path.stem)
        if name:
            found.append(Frame(path, int(name[1]), int(name[2])))
    return sorted(found, key=lambda frame: (frame.step, frame.records))


def write(
    folder: Path, step: int, records: int, start: Tensor, values: Tensor, states: Sequence[Any], mask_hash: str
) -> Path:
    """Writes a frame of ``values`` (n,) fp32, which began at ``start`` (n,). Raises `UserError`."""
    bits = _bits(values)
    plain, others = _plain(states)
    contents = [bits ^ _bits(start), *map(_bits, others)]
    tensors = {str(number): _packed(content) for number, content in enumerate(contents)}
    metadata = {
        "format": FORMAT, "version": VERSION, "mask_hash": mask_hash, "state": json.dumps(plain),
        "hash": hashlib.sha256(bits.tobytes()).hexdigest(),
    }  # fmt: skip
    path = folder / "frames" / f"{step:08d}-{records:08d}.safetensors"
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata)
    return path


def read(frame: Frame, start: Tensor, mask_hash: str) -> tuple[Tensor, tuple[Any, ...]] | None:
    """Values and the two states that ``frame`` holds, on the device of ``start``; None where it cannot be used."""
    try:
        with safe_open(frame.path, framework="pt") as file:
            metadata = file.metadata() or {}
            packed = [file.get_tensor(str(number)) for number in range(len(file.keys()))]
        if (metadata["format"], metadata["version"], metadata["mask_hash"]) != (FORMAT, VERSION, mask_hash):
            return None
        bits = _unpacked(packed[0], start.numel()) ^ _bits(start)
        if hashlib.sha256(bits.tobytes()).hexdigest() != metadata["hash"]:
            return None
        states = _states(json.loads(metadata["state"]), packed, start)
        return torch.from_numpy(bits.view(np.float32)).to(start.device), states
    except (SafetensorError, OSError, zlib.error, ValueError, KeyError, TypeError, IndexError, RecursionError):
        return None


def thin(folder: Path, journal: Journal, budget: int) -> None:
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


def _bits(values: Tensor) -> np.ndarray:
    return values.detach().cpu().float().contiguous().numpy().astype("<f4").view("<u4").reshape(-1)


def _packed(bits: np.ndarray) -> Tensor:
    planes = np.ascontiguousarray(bits.view(np.uint8).reshape(-1, 4).T)
    return torch.frombuffer(bytearray(zlib.compress(planes.tobytes(), 1)), dtype=torch.uint8)


def _unpacked(packed: Tensor, size: int) -> np.ndarray:
    """The bits of ``size`` numbers; a stream that holds more raises ValueError without being unfolded."""
    stream = zlib.decompressobj()
    planes = stream.decompress(packed.numpy().tobytes(), 4 * size + 1)
    if len(planes) != 4 * size or not stream.eof:
        raise ValueError("not as many numbers as the mask has")
    return np.ascontiguousarray(np.frombuffer(planes, np.uint8).reshape(4, -1).T).view("<u4").reshape(-1)


def _plain(states: Sequence[Any]) -> tuple[list[Any], list[Tensor]]:
    """States as JSON, and their tensors."""
    tensors: list[Tensor] = []
    plain: list[Any] = []
    for state in states:
        parts: list[Any] = []
        for part in state or ():
            if isinstance(part, Tensor):
                tensors.append(part)
                parts.append({"tensor": [len(tensors), list(part.shape)]})
            else:
                parts.append(part)
        plain.append(None if state is None else parts)
    return plain, tensors


def _states(plain: Any, packed: Sequence[Tensor], like: Tensor) -> tuple[Any, ...]:
    """The two states of `_plain`. Raises ValueError and others."""
    if not isinstance(plain, list) or len(plain) != 2:
        raise ValueError("not two states")
    return tuple(None if state is None else tuple(_part(part, packed, like) for part in state) for state in plain)


def _part(part: Any, packed: Sequence[Tensor], like: Tensor) -> Any:
    if isinstance(part, dict):
        number, shape = part["tensor"]
        size = math.prod(shape)
        if not 0 <= size <= STATE_LARGEST * like.numel():
            raise ValueError("a state larger than any")
        return torch.from_numpy(_unpacked(packed[number], size).view(np.float32)).view(shape).to(like.device)
    if isinstance(part, int | float):
        return part
    raise ValueError("not a number")
