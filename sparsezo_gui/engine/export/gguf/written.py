"""Writes a planned GGUF file, and reads it back with this program's own reader."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from gguf import GGMLQuantizationType as Kind
from torch import Tensor

from sparsezo_gui.engine import device as devices
from sparsezo_gui.engine.export.gguf.file import Planned, body, spans
from sparsezo_gui.engine.export.gguf.metadata import refuse_differences
from sparsezo_gui.engine.export.gguf.plan import Plan
from sparsezo_gui.engine.pretrained import auto
from sparsezo_gui.engine.pretrained.gguf.config import config_of
from sparsezo_gui.engine.pretrained.gguf.header import Header, Stored, read_gguf
from sparsezo_gui.engine.pretrained.gguf.tensors import IN_CONFIG, dense, packed
from sparsezo_gui.engine.pretrained.source import ModelSource
from sparsezo_gui.recipe.events import Progress

_EXACT = {Kind.F32: 0.0, Kind.F16: 2.0**-10, Kind.BF16: 2.0**-7}  # largest error of a number, relative to it
_WORST = 0.5  # error of a quantised matrix, relative to it: wrong places give more than 1
_CLOSE = 1e-3  # difference of logits, relative to their spread: sums in another order


@dataclass(frozen=True)
class Rounding:
    """Sums of squares: of what the kind changed in matrices, and of the matrices."""

    error: float = 0.0
    whole: float = 0.0

    @property
    def relative(self) -> float:
        """Root mean square of the change, relative to that of the weights."""
        return math.sqrt(self.error / self.whole) if self.whole else 0.0

    def __add__(self, other: Rounding) -> Rounding:
        return Rounding(self.error + other.error, self.whole + other.whole)


def begin(path: Path, plan: Plan, source: ModelSource) -> None:
    """Writes what describes the model, and reads it back. Raises OSError, and `UserError` if it is another model."""
    with path.open("wb") as target:
        target.write(plan.head)
        for each in plan.tensors:
            if each.name in IN_CONFIG:
                target.writelines(body(each, plan.alignment))
        target.truncate(plan.length)
    refuse_differences(read_gguf(path), source.config)


def fill(path: Path, plan: Plan) -> Generator[Progress, None, None]:
    """Writes the file. Raises OSError and `UserError`."""
    with path.open("wb") as target:
        target.write(plan.head)
        for done, each in enumerate(plan.tensors):
            yield Progress("Writing the GGUF file", done, len(plan.tensors), "weights")
            for piece in body(each, plan.alignment):
                target.write(piece)


def read_back(path: Path, plan: Plan) -> Generator[Progress, None, Rounding]:
    """Compares every tensor of the file with what it was written from; returns what rounding changed."""
    header, total = read_gguf(path), Rounding()
    if list(header.tensors) != [each.name for each in plan.tensors] or path.stat().st_size != plan.length:
        raise RuntimeError(f"{path}: not the tensors that were written")
    for done, each in enumerate(plan.tensors):
        yield Progress("Checking the GGUF file", done, len(plan.tensors), "weights")
        found = _compared(header, each)
        if found.relative > _WORST:
            raise RuntimeError(f"{path}: '{each.name}' is not what was written")
        total += found
    return total


def _compared(header: Header, each: Planned) -> Rounding:
    stored = header.tensors[each.name]
    if not callable(each.read):
        _same_bytes(header.path, stored, each)
        return Rounding()
    found = dense(header.path, stored, torch.float32)
    total = Rounding()
    for one, other in zip(spans(found), spans(each.read()), strict=True):
        wanted = other.float()
        error = one - wanted
        limit = _EXACT.get(each.kind)
        tiny = 2.0**-24  # half of the smallest number of f16
        if limit is not None and bool((error.abs() > limit * wanted.abs() + (tiny if limit else 0)).any()):
            raise RuntimeError(f"{header.path}: '{each.name}' is not what was written")
        total += Rounding(*(float(part.square().sum(dtype=torch.float64)) for part in (error, wanted)))
    return total if len(each.shape) > 1 else Rounding()


def _same_bytes(path: Path, stored: Stored, each: Planned) -> None:
    with path.open("rb") as file:
        file.seek(stored.begin)
        for piece in each.pieces():
            if file.read(len(piece)) != piece:
                raise RuntimeError(f"{path}: '{each.name}' is not what was copied")


def model_in(path: Path) -> Any:
    """The file as a plain model of transformers in fp32."""
    header = read_gguf(path)
    config = auto.make_config(config_of(header))
    return auto.load_tensors(config, packed(header, config), dtype=torch.float32).eval()


def needed(source: ModelSource) -> int:
    """Bytes to load the model in fp32, and one more of its tables."""
    return 4 * (source.spec.parameters + 2 * source.spec.vocabulary * source.spec.hidden)


def fits(source: ModelSource) -> bool:
    """Whether the memory holds the model in fp32."""
    return needed(source) < devices.memory_free(torch.device("cpu"))


@torch.no_grad()
def same_logits(found: Any, source: ModelSource, prompts: Sequence[Sequence[int]]) -> float:
    """Largest difference of logits, relative to their spread, between ``found`` and the model of ``source`` with the
    same weights. Raises RuntimeError if they differ, so that the file describes another model."""
    plain = auto.load_tensors(source.config, found.state_dict(), dtype=torch.float32).eval()
    worst = 0.0
    for prompt in prompts:
        ids = torch.tensor([prompt])
        one, other = found(ids).logits, plain(ids).logits
        worst = max(worst, float((one - other).abs().max() / _spread(other)))
    if not worst <= _CLOSE:
        raise RuntimeError(f"the GGUF file describes another model: logits differ by {worst:.3g} of their spread")
    return worst


def _spread(logits: Tensor) -> Tensor:
    return logits.std().clamp_min(1e-6)
