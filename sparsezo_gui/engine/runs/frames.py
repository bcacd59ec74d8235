"""Key frames: the tuned values after some steps, so that any step is reached in a moment.

They are a cache: the journal alone rebuilds every value, and a frame that is missing or damaged costs only time.

The key frame file (version 1)
------------------------------
``frames/SSSSSSSS-RRRRRRRR.safetensors`` holds the run as it was at step S after the first R records of its journal. It
is a safetensors file with one uint8 tensor per number 0, 1, …: 0 is the values, the others are the tensors of the
update's state. Each is a zlib stream of the number's fp32 bits, little endian, all lowest bytes first, then all second
ones and so on; of the values, the bits are XORed with those that the run began with, which leaves most of the high
bytes zero. The metadata (all strings) MUST hold ``format`` = "sparsezo-frame", ``version`` = "1", ``mask_hash``,
``hash`` (SHA-256 of the values' bits) and ``state`` (JSON: null, or a list of the state's numbers, in which
``{"tensor": [n, shape]}`` stands for tensor n). A reader MUST ignore a frame that breaks any of this.
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

FORMAT, VERSION = "sparsezo-frame", "1"
STEP_SECONDS, VALUE_SECONDS = 130e-6, 12e-9  # of a replay, measured on one core
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


def spacing(size: int) -> int:
    """Steps between two frames of ``size`` values: a second of replaying, and one more for each MB of a frame."""
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


def write(folder: Path, step: int, records: int, start: Tensor, values: Tensor, state: Any, mask_hash: str) -> Path:
    """Writes a frame of ``values`` (n,) fp32, which began at ``start`` (n,). Raises `UserError`."""
    bits = _bits(values)
    plain, others = _plain(state)
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


def read(frame: Frame, start: Tensor, mask_hash: str) -> tuple[Tensor, Any] | None:
    """Values and state that ``frame`` holds, on the device of ``start``; None where it cannot be used."""
    try:
        with safe_open(frame.path, framework="pt") as file:
            metadata = file.metadata() or {}
            packed = [file.get_tensor(str(number)) for number in range(len(file.keys()))]
        if (metadata["format"], metadata["version"], metadata["mask_hash"]) != (FORMAT, VERSION, mask_hash):
            return None
        bits = _unpacked(packed[0], start.numel()) ^ _bits(start)
        if hashlib.sha256(bits.tobytes()).hexdigest() != metadata["hash"]:
            return None
        state = _state(json.loads(metadata["state"]), packed, start)
        return torch.from_numpy(bits.view(np.float32)).to(start.device), state
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


def _plain(state: Any) -> tuple[Any, list[Tensor]]:
    """A state as JSON, and its tensors."""
    tensors: list[Tensor] = []
    plain: list[Any] = []
    for part in state or ():
        if isinstance(part, Tensor):
            tensors.append(part)
            plain.append({"tensor": [len(tensors), list(part.shape)]})
        else:
            plain.append(part)
    return (None if state is None else plain), tensors


def _state(plain: Any, packed: Sequence[Tensor], like: Tensor) -> Any:
    if plain is None:
        return None
    parts = []
    for part in plain:
        if isinstance(part, dict):
            number, shape = part["tensor"]
            size = math.prod(shape)
            if size > like.numel():
                raise ValueError("a state larger than the values")
            bits = _unpacked(packed[number], size)
            parts.append(torch.from_numpy(bits.view(np.float32)).view(shape).to(like.device))
        elif isinstance(part, int | float):
            parts.append(part)
        else:
            raise ValueError("not a number")
    return tuple(parts)
