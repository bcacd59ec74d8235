"""The model exactly as it ran: the dequantised frozen weights with the tuned values.

Other programs then compute what the run computed. The weights are written in the number format of the run's forward
pass, under the names and in the files of the checkpoint, one weight in memory at a time. For a quantised base, merging
into the original weights (`merged`) gives a better model, but not the same one.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from sparsezo_gui.engine.export.overlay_file import Changes
from sparsezo_gui.engine.export.tensors import header, raw
from sparsezo_gui.engine.frozen import FrozenModel
from sparsezo_gui.engine.pretrained.folder import copy_companions, drafted
from sparsezo_gui.engine.pretrained.source import SINGLE
from sparsezo_gui.engine.pretrained.weights import read_header
from sparsezo_gui.recipe.events import Progress

INDEX = "model.safetensors.index.json"


def export_trained(
    model: FrozenModel, changes: Changes, out: Path, texts: Mapping[str, str] | None = None
) -> Generator[Progress, None, None]:
    """Writes the model as it ran to ``out``, a folder that does not exist or is empty; ``texts`` are further files.

    The folder appears once everything is on disk and checked. Raises `UserError`.
    """
    source, whole = model.source, _Whole(model, changes)
    count, done = 2 * len(whole.names), 0
    with drafted(out, sum(map(whole.size, whole.names))) as draft:
        for file, keys in whole.files.items():
            with (draft / file).open("wb") as target:
                target.write(whole.header(keys))
                for key in keys:
                    target.write(raw(whole.read(key)))
                    done += 1
                    yield Progress("Writing the model as trained", done, count, "weights")
        texts = {**(texts or {}), **whole.texts()}
        copy_companions(source.folder, draft, texts, source.code.files if source.code else None)
        for file in whole.files:
            for key, entry in read_header(draft / file).items():
                if raw(entry.read()) != raw(whole.read(key)):
                    raise RuntimeError(f"{draft / file}: '{key}' is not what was written")
                done += 1
                yield Progress("Checking the model as trained", done, count, "weights")


class _Whole:
    """The tensors of ``model`` with ``changes``, by the names and in the files of its checkpoint."""

    def __init__(self, model: FrozenModel, changes: Changes) -> None:
        self.model, self.changes, self.checkpoint = model, changes, model.checkpoint
        spec = model.spec
        names = [*spec.shapes, *spec.aliases]
        self.names = {self.checkpoint.key(name): name for name in reversed(names) if name in self.checkpoint}
        # Other tensors of a quantised checkpoint are its statistics; in other checkpoints they are buffers, which stay.
        kept = (key for key in self.checkpoint.entries if key in self.names or not model.source.prequantised)
        self.files: dict[str, list[str]] = {}
        for key in kept:
            file = SINGLE if model.source.packed else self.checkpoint.entries[key].file.name
            self.files.setdefault(file, []).append(key)

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape as stored: (in, out) for a Conv1D."""
        name = self.names.get(key)
        shape = self.checkpoint.entries[key].shape if name is None else self.checkpoint.shape(name)
        return shape[::-1] if name in self.model.spec.transposed else shape

    def dtype(self, key: str) -> torch.dtype:
        """Dtype as written: for parameters, that of the forward pass."""
        return self.model.dtype if key in self.names else self.checkpoint.entries[key].dtype

    def size(self, key: str) -> int:
        """Bytes."""
        return torch.Size(self.shape(key)).numel() * self.dtype(key).itemsize

    def read(self, key: str) -> Tensor:
        """The tensor as written, on the CPU."""
        name = self.names.get(key)
        if name not in self.model.layers:
            return self.checkpoint.entries[key].read().to(self.dtype(key))
        weight = self.model.layers[name].frozen.dense(self.model.dtype).cpu()
        if name in self.changes:
            indices, values = self.changes[name]
            weight.view(-1)[indices.long()] = values.to(weight.dtype)
        return weight.T.contiguous() if name in self.model.spec.transposed else weight

    def header(self, keys: list[str]) -> bytes:
        """The header of a safetensors file with these tensors."""
        return header({key: (self.dtype(key), self.shape(key)) for key in keys}, {"format": "pt"})

    def texts(self) -> dict[str, str]:
        """config.json with the new dtype and without quantisation; also the index if there are several files."""
        config = json.loads((self.model.source.folder / "config.json").read_text(encoding="utf-8"))
        for key in ("quantization_config", "torch_dtype"):
            config.pop(key, None)
        config["dtype"] = str(self.model.dtype).removeprefix("torch.")
        texts = {"config.json": json.dumps(config, indent=2) + "\n"}
        if len(self.files) > 1:
            places = {key: file for file, keys in self.files.items() for key in keys}
            total = {"total_size": sum(map(self.size, places))}
            texts[INDEX] = json.dumps({"metadata": total, "weight_map": places}, indent=2) + "\n"
        return texts
