"""A model on disk, checked before it is loaded.

Weights are read from safetensors files only. A pickle (pytorch_model.bin) can run code when it is opened, so it is
refused; `convert` writes a safetensors copy of one.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING, PretrainedConfig

from sparsezo_gui import resources
from sparsezo_gui.engine.files import refuse_links
from sparsezo_gui.engine.pretrained import auto, kinds
from sparsezo_gui.engine.pretrained.consent import TrustedCode, required
from sparsezo_gui.engine.pretrained.gguf.config import config_of
from sparsezo_gui.engine.pretrained.gguf.folder import companions
from sparsezo_gui.engine.pretrained.gguf.header import read_gguf
from sparsezo_gui.engine.pretrained.gguf.tensors import Packed, packed
from sparsezo_gui.engine.pretrained.spec import ModelSpec, spec
from sparsezo_gui.engine.pretrained.tuned import Layer
from sparsezo_gui.engine.pretrained.weights import LARGEST_HEADER, Checkpoint, read_header
from sparsezo_gui.errors import UserError, did_you_mean, quoted
from sparsezo_gui.recipe.recipe import ModelTable
from sparsezo_gui.sizes import size
from sparsezo_gui.untrusted import outside

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.gguf")
MOST_LAYERS = 1000
ADAPTER = "adapter_config.json"
_NO_CONFIG = "is not a model: it has no config.json. Choose the folder with config.json and the weights."
_COUNTS = re.compile(r"(layers?|blocks?|depths?|experts|labels|types)$")
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"


@dataclass(frozen=True, eq=False)
class ModelSource:
    """A model on this disk that was checked and can be loaded.

    ``weights`` gives the file of each tensor, by its name in the checkpoint; ``revision`` is the commit on the Hub, or
    empty. ``bitsandbytes`` already quantised the weights of some checkpoints, to 4 or 8 bits. ``code`` is the model's
    own code. The tensors of a GGUF file are ``packed``, and ``folder`` has its `companions`. ``layers`` are what a
    tuned model adds to the files of its base, from the bottom up.
    """

    id: str
    revision: str
    folder: Path
    config: PretrainedConfig
    weights: dict[str, Path]
    spec: ModelSpec
    bitsandbytes: bool = False
    code: TrustedCode | None = None
    packed: Mapping[str, Packed] = field(default_factory=dict)
    layers: tuple[Layer, ...] = ()

    @property
    def mapped(self) -> bool:
        """Whether the weights can be used as they are in the files."""
        return not self.packed and not self.layers

    @property
    def pretrained(self) -> str:
        """The id of the model below all tuning."""
        return self.layers[0].base if self.layers else self.id

    @property
    def prequantised(self) -> bool:
        """Whether there are no original weights in safetensors, only quantised ones."""
        return self.bitsandbytes or bool(self.packed)

    @property
    def place(self) -> Path:
        """What the user knows the model by: its folder, or its GGUF file."""
        return next((entry.file for entry in self.packed.values()), self.folder)

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """Its tensors. Raises `UserError` for a broken file."""
        return Checkpoint(self)


def inspect(folder: Path, table: ModelTable) -> ModelSource:
    """Checks the model in ``folder``, or the GGUF file. Raises `UserError` for anything that would fail when it is
    loaded, and `ConsentNeeded`."""
    if folder.is_file():
        return _inspect_gguf(folder, table)
    if table.id not in resources.BUNDLED_MODELS:
        refuse_links(folder, (path for path in folder.glob("*") if path.is_file()))
    code = required(table, folder)
    config = read_config(folder, code)
    prequantised = check_quantisation(folder, config)
    parts = spec(config, code)
    weights = find_weights(folder)
    commit = folder.name if folder.parent.name == "snapshots" else ""
    source = ModelSource(table.id, commit, folder, config, weights, parts, prequantised, code)
    if what := kinds.of_weights(weights, [name for name in parts.shapes if name not in source.checkpoint]):
        raise UserError(f"{folder}: {what}")
    source.checkpoint.check()
    return source


def _inspect_gguf(file: Path, table: ModelTable) -> ModelSource:
    folder = companions(file)
    config = read_config(folder)
    entries = packed(read_gguf(file), config)
    source = ModelSource(table.id, "", folder, config, dict.fromkeys(entries, file), spec(config), packed=entries)
    source.checkpoint.check()
    return source


def read_config(folder: Path, code: TrustedCode | None = None) -> PretrainedConfig:
    """The transformers config in ``folder``, read with the model's own ``code`` if any, or of a GGUF file. Raises
    `UserError`."""
    if folder.is_file():
        with outside(folder, "does not describe a model"):
            return auto.make_config(config_of(read_gguf(folder)))
    path = folder / "config.json"
    if not folder.is_dir():
        raise UserError(f"There is no model folder '{folder}'. Check the path.")
    _refuse_files(folder)
    if not path.is_file():
        raise UserError(f"{folder}: {kinds.better_place(folder) or _NO_CONFIG}")
    table = _read_json(path)
    _refuse_settings(path, table)
    if what := kinds.of_config(table):
        raise UserError(f"{path.parent}: {what}")
    window = table.get("sliding_window")
    if window is not None and window is not False and not (type(window) is int and window > 0):
        what = f"'sliding_window' must be a number of tokens or null, not {quoted(window)}"
        raise UserError(f"{path}: {what}. Download or copy it again.")
    kind, own = table.get("model_type"), table.get("auto_map")
    remote = isinstance(own, dict) and "AutoConfig" in own
    known = isinstance(kind, str) and kind in CONFIG_MAPPING
    if not known and remote and code is None:
        raise UserError(
            f"{path}: the model type '{kind}' needs the Python code that comes with the model. To use it, "
            "set [model] trust_remote_code = true and allow the code when asked; in the terminal, add "
            "--trust-remote-code. Or choose another model."
        )
    if not known and not remote:
        hint = did_you_mean(kind, CONFIG_MAPPING) if isinstance(kind, str) else ""
        hint = hint if hint.startswith("Did") else "It may be newer than this version of SparseZO."
        raise UserError(f"{path}: transformers does not support the model type {kind!r}. {hint}")
    with outside(path, f"does not describe a '{kind}' model"):
        return auto.load_config(folder, code)


def refuse_other_kinds(folder: Path) -> None:
    """Raises `UserError` for a folder that contains neither a causal language model nor just its tokenizer."""
    if folder.is_file():
        return
    if not any(path.name.startswith("tokenizer") for path in folder.iterdir()) or (folder / ADAPTER).is_file():
        _refuse_files(folder)
    path = folder / "config.json"
    if path.is_file() and (what := kinds.of_config(_read_json(path))):
        raise UserError(f"{folder}: {what}")


def _refuse_files(folder: Path) -> None:
    """Raises `UserError` for files of another kind of model, and for an adapter beside a model: transformers would load
    it if peft is installed, and silently ignore it otherwise."""
    names = {path.name for path in folder.iterdir()}
    if what := kinds.of_files(names, kinds.base_of(folder)):
        raise UserError(f"{folder}: {what}")
    if {ADAPTER, "config.json"} <= names:
        raise UserError(
            f"{folder}: contains an adapter besides the model. Merge it into the model first, or "
            "move adapter_config.json to another folder to tune the model without it."
        )


def _refuse_settings(path: Path, table: dict[str, Any]) -> None:
    """Raises `UserError` for sizes, such as a number of layers, that would take hours and all memory to build, and for
    a weights file of another name, which transformers would load unchecked, even a pickle."""
    unchecked: list[tuple[str, Any]] = [("", table)]
    while unchecked:
        key, value = unchecked.pop()
        if key == "transformers_weights" and value:
            raise UserError(
                f"{path}: sets '{key}' to the weights file {quoted(value)}. Rename that file to "
                f"{SINGLE}, and remove the setting."
            )
        if isinstance(value, dict):
            unchecked += value.items()
        elif isinstance(value, list):
            unchecked += [(key, item) for item in value]
        elif isinstance(value, int | float) and value > MOST_LAYERS and _COUNTS.search(key):
            raise UserError(
                f"{path}: sets '{key}' to {quoted(value)}, but no model has more than {MOST_LAYERS}. "
                "Download or copy it again."
            )


def check_quantisation(where: object, config: PretrainedConfig) -> bool:
    """Whether the checkpoint is quantised by bitsandbytes; any other quantisation is a `UserError`."""
    found = getattr(config, "quantization_config", None) or {}
    found = found if isinstance(found, dict) else found.to_dict()
    method = found.get("quant_method") or ("bitsandbytes" if any(key.startswith("load_in_") for key in found) else None)
    if method not in (None, "bitsandbytes"):
        raise UserError(
            f"{where}: its weights are stored in the '{method}' format, which cannot be tuned here. Choose "
            "the original 16-bit model; SparseZO quantises it to 4 bits itself."
        )
    return method is not None


def find_weights(folder: Path) -> dict[str, Path]:
    """File of each tensor by its name in the checkpoint; every header is checked. Raises `UserError`."""
    if folder.is_file():
        return dict.fromkeys(read_gguf(folder).tensors, folder)
    index, single = folder / INDEX, folder / SINGLE
    if single.is_file():
        return dict.fromkeys(read_header(single), single)
    if not index.is_file():
        raise UserError(_no_weights(folder))
    table, weights = read_index(index, ".safetensors"), dict[str, Path]()
    for name in sorted(set(table.values())):
        weights |= dict.fromkeys(read_header(folder / name), folder / name)
    absent = next((key for key in table if key not in weights), None)
    if absent is not None:
        raise UserError(
            f"{folder / table[absent]}: lacks the weight '{absent}' listed in {INDEX}. Download or copy "
            "the model again."
        )
    return weights


def read_index(index: Path, suffix: str) -> dict[str, str]:
    """Name of the file of each tensor. Raises `UserError`, also if a file is missing."""
    table = _read_json(index).get("weight_map")
    if not isinstance(table, dict) or not table or not all(isinstance(name, str) for name in table.values()):
        raise UserError(f"{index}: does not say which file has which weight. Download or copy the model again.")
    present = {path.name for path in index.parent.iterdir() if path.is_file()}
    for name in sorted(set(table.values())):
        if Path(name).name != name or not name.endswith(suffix):
            raise UserError(
                f"{index}: lists '{name}', which is not a {suffix.removeprefix('.')} file in this folder. "
                "Download or copy the model again."
            )
        if name not in present:
            raise UserError(
                f"{index.parent}: the file '{name}' is missing, though {index.name} names it. Download or "
                "copy the model again."
            )
    return table


def _no_weights(folder: Path) -> str:
    pickles = [path.name for pattern in PICKLES for path in sorted(folder.glob(pattern)) if "training" not in path.name]
    if pickles:
        convert = shlex.join(["sparsezo", "convert", str(folder), "--out", "NEW_FOLDER"])
        cure = (
            f"Convert it with '{convert}'"
            if any(folder.glob("pytorch_model*.bin"))
            else "Convert it to safetensors with the program that wrote it"
        )
        return (
            f"{folder}: its weights are in '{pickles[0]}', a format that can run code when opened, so SparseZO "
            f"does not load it. {cure}, or choose a copy with model.safetensors."
        )
    return (
        f"{folder}: has a config.json but no weights. Put model.safetensors (or its parts with {INDEX}) there, or "
        "download the model again."
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > LARGEST_HEADER:
            raise UserError(f"{path}: larger than {size(LARGEST_HEADER)}, so this is not a file of settings.")
        table = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error}). Download or copy the model again.") from error
    if not isinstance(table, dict):
        raise UserError(f"{path}: not a table of settings. Download or copy the model again.")
    return table
