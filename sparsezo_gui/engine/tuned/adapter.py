"""An adapter of Hugging Face PEFT as a model: LoRA, also of other programs, or SHiRA.

The two files are described in `sparsezo_gui.engine.export.adapter`. PEFT scales a LoRA product by α/r, or by α/√r with
``use_rslora``; ``alpha_pattern`` gives some layers another α. Whatever would change the base model in another way is
refused: a merged folder, which PEFT writes, is then the way. Checked against peft 0.21.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import regex
import torch

from sparsezo_gui.engine.export.adapter import CONFIG, PREFIX, WEIGHTS
from sparsezo_gui.engine.pretrained.changes import Change, Entries, LowRank, finite_change
from sparsezo_gui.engine.pretrained.kinds import LARGEST, holds_model
from sparsezo_gui.engine.pretrained.source import ModelSource
from sparsezo_gui.engine.pretrained.tuned import Layer, TunedModel, beside, fitting, weight_shape
from sparsezo_gui.engine.pretrained.weights import Entry, read_header
from sparsezo_gui.errors import UserError, quoted
from sparsezo_gui.recipe.events import Progress
from sparsezo_gui.recipe.recipe import ModelTable
from sparsezo_gui.untrusted import outside, resolved

Shape = tuple[int, ...]
_PARTS = {"LORA": ("lora_A.weight", "lora_B.weight"), "SHIRA": ("shira_indices", "shira_weight")}
_TITLES = {"LORA": "LoRA", "SHIRA": "SHiRA"}
_OTHERWISE = ("use_dora", "use_qalora", "use_bdlora", "arrow_config", "alora_invocation_tokens", "layer_replication",
              "trainable_token_indices", "modules_to_save", "target_parameters")  # fmt: skip
_PATIENCE = 0.1  # seconds for one pattern, which may be a hostile one
_FRESH = (True, False, None, "gaussian", "eva", "orthogonal")  # ways to start that leave the base model as it is
_MERGE = "Merge it with PEFT (merge_and_unload), save the model, and choose that folder."


@dataclass(frozen=True)
class TunedAdapter(TunedModel):
    """The adapter in ``folder``."""

    folder: Path
    kind = "adapter"

    @classmethod
    def at(cls, id: str) -> TunedAdapter | None:
        """See `TunedModel.at`: a folder with adapter_config.json, and without a whole model."""
        folder = Path(os.path.expanduser(id))
        if not os.path.isfile(folder / CONFIG) or holds_model({path.name for path in folder.iterdir()}):
            return None
        return cls(resolved(folder))

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The content of adapter_config.json."""
        path = self.folder / CONFIG
        with outside(path, "is not the config of an adapter"):
            if path.stat().st_size > LARGEST:
                raise ValueError("it is too large")
            table = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(table, dict):
                raise ValueError("it is not a table")
        return table

    @property
    def base(self) -> tuple[str, str]:
        """See `TunedModel.base`. What can be told without the base model is checked first."""
        self._kind(), self._weights()
        name, revision = self.config.get("base_model_name_or_path"), self.config.get("revision")
        if not isinstance(name, str) or not name:
            raise UserError(
                f"{self.folder / CONFIG}: does not say which model the adapter was trained on. Set "
                "'base_model_name_or_path' to its folder or Hub id."
            )
        found = beside(name, self.folder)
        if found == name and (os.path.isabs(name) or name.startswith(".")) and not os.path.exists(name):
            raise UserError(
                f"{self.folder}: was trained on {quoted(name)}, which is not on this computer. Put that model there, "
                f"or set 'base_model_name_or_path' in {CONFIG} to its folder or Hub id."
            )
        return found, revision if isinstance(revision, str) and revision else "main"

    def layer(self, base: ModelSource, table: ModelTable) -> Generator[Progress, None, Layer]:
        """See `TunedModel.layer`."""
        yield Progress("Reading the adapter")
        return Layer(f"the {self._title()} adapter {self.folder.name}", table.id, *self.changes(base))

    def changes(self, base: ModelSource) -> tuple[dict[str, Change], str]:
        """The changes of the weights of ``base``, and their digest. Raises `UserError`."""
        kind, path = self._kind(), self._weights()
        layers = self._layers(kind, read_header(path))
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        changes: dict[str, Change] = {}
        for layer, parts in layers.items():
            name = f"{layer}.weight"
            shape = weight_shape(base, name)
            changes[name] = (self._low_rank if kind == "LORA" else self._entries)(layer, parts, shape)
            digest.update(repr((name, getattr(changes[name], "scale", 1.0))).encode())
        return changes, digest.hexdigest()

    def _kind(self) -> str:
        kind = self.config.get("peft_type")
        if kind not in _PARTS:
            raise UserError(f"{self.folder}: is an adapter of kind {quoted(str(kind))}, not LoRA or SHiRA. {_MERGE}")
        if other := next((key for key in _OTHERWISE if self.config.get(key)), ""):
            raise UserError(f"{self.folder}: is an adapter with '{other}', which cannot be merged here. {_MERGE}")
        if (start := self.config.get("init_lora_weights")) not in _FRESH:
            raise UserError(
                f"{self.folder}: started from changed weights of its base model (init_lora_weights = {start!r}), so "
                f"it does not fit the original ones. {_MERGE}"
            )
        return str(kind)

    def _title(self) -> str:
        return _TITLES[self._kind()]

    def _weights(self) -> Path:
        path = self.folder / WEIGHTS
        if path.is_file():
            return path
        if (self.folder / "adapter_model.bin").is_file():
            raise UserError(
                f"{self.folder}: its weights are in 'adapter_model.bin', a format that can run code when opened, so "
                f"SparseZO does not load it. {_MERGE}"
            )
        raise UserError(f"{self.folder}: has {CONFIG} but no {WEIGHTS}. Download or copy the adapter again.")

    def _layers(self, kind: str, header: Mapping[str, Entry]) -> dict[str, tuple[Entry, Entry]]:
        """The two tensors of each layer, by its name in transformers. Raises `UserError` for any other tensor."""
        first, second = _PARTS[kind]
        found: dict[str, dict[str, Entry]] = {}
        for key, entry in sorted(header.items()):
            part = next((part for part in (first, second) if key.endswith(f".{part}")), "")
            if not key.startswith(PREFIX) or not part:
                raise UserError(
                    f"{self.folder / WEIGHTS}: contains {quoted(key)}, which is more than {_TITLES[kind]} of linear "
                    f"layers. {_MERGE}"
                )
            found.setdefault(key.removeprefix(PREFIX).removesuffix(f".{part}"), {})[part] = entry
        if half := next((layer for layer, parts in found.items() if len(parts) < 2), ""):
            raise UserError(
                f"{self.folder / WEIGHTS}: lacks a tensor for {quoted(half)}. Download or copy the adapter again."
            )
        return {layer: (parts[first], parts[second]) for layer, parts in found.items()}

    def _low_rank(self, layer: str, parts: tuple[Entry, Entry], shape: Shape | None) -> LowRank:
        a, b = parts
        if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != b.shape[1] or not a.shape[0]:
            raise UserError(
                f"{a.file}: the two matrices of {quoted(layer)} do not fit together. Download or copy the adapter "
                "again."
            )
        fitting(self.folder, shape, f"{layer}.weight", (b.shape[0], a.shape[1]))
        return LowRank(f"{layer}.weight", a, b, self._scale(layer, a.shape[0]))

    def _scale(self, layer: str, rank: int) -> float:
        """PEFT's factor of a product: patterns are regular expressions for the end of a layer's name."""
        with outside(self.folder / CONFIG, "has no valid scale"):
            patterns = self.config.get("alpha_pattern") or {}
            found = (
                value for key, value in patterns.items()
                if regex.match(rf"(.*\.)?({key})$", layer, timeout=_PATIENCE)
            )  # fmt: skip
            alpha = next(found, self.config.get("lora_alpha", 8))
            scale = float(alpha) / (math.sqrt(rank) if self.config.get("use_rslora") else rank)
            if not math.isfinite(scale):
                raise ValueError(f"alpha is {alpha}")
        return scale

    def _entries(self, layer: str, parts: tuple[Entry, Entry], shape: Shape | None) -> Entries:
        places, values = (part.read() for part in parts)
        size = tuple(shape or ())
        if len(size) != 2:
            fitting(self.folder, shape, f"{layer}.weight", ())
        fits = places.shape == (2, *values.shape) and values.dim() == 1 and not places.is_floating_point()
        rows, columns = places.long() if fits else (torch.tensor([-1]), torch.tensor([-1]))
        if not bool(((rows >= 0) & (columns >= 0) & (rows < size[0]) & (columns < size[1])).all()):
            raise UserError(
                f"{self.folder}: the places of {quoted(layer)} are not those of a weight of shape {list(size)}. It was "
                "tuned on another model, or is damaged; choose the right base model, or copy the adapter again."
            )
        values = finite_change(self.folder, layer, values.float())
        return Entries(rows * size[1] + columns, values, added=True)
