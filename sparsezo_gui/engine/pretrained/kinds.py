"""Describes folders and files that are not a causal language model, and says what to use instead.

Uses only file names and the tables in config.json and adapter_config.json.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from sparsezo_gui.errors import quoted

GGUF = (
    "a model in GGUF format. Download one of its .gguf files and set [model] id to that file, or choose the original "
    "model in safetensors format"
)
_ORIGINAL = "Choose the original model in transformers format with safetensors weights"
_DOWNLOAD = "Download it with 'hf download' into a folder of its own, and choose that folder."
_CAUSAL = "Choose a causal language model, such as the one that it is based on"
_FILES = {
    "model_index.json": f"a diffusers pipeline, which generates images, audio or video. {_CAUSAL}",
    "modules.json": f"a sentence-transformers model, which computes text embeddings. {_CAUSAL}",
    "config_sentence_transformers.json": f"a sentence-transformers model, which computes text embeddings. {_CAUSAL}",
    "quantize_config.json": f"a model quantised with GPTQ, which cannot be tuned here. {_ORIGINAL}",
    "quant_config.json": f"a model quantised with AWQ, which cannot be tuned here. {_ORIGINAL}",
}
_INSTEAD_OF_CONFIG = (  # what a folder without config.json may hold
    (r".*\.gguf", GGUF),
    (r".*\.onnx", f"a model in ONNX format, which cannot be tuned here. {_ORIGINAL}"),
    (r".*\.npz", f"a model in MLX format, which cannot be tuned here. {_ORIGINAL}"),
    (r"saved_model\.pb|.*\.tflite", f"a TensorFlow model, which cannot be tuned here. {_ORIGINAL}"),
    (r"params\.json|consolidated.*", f"a model in its vendor's own format. {_ORIGINAL} (its name often ends in '-hf')"),
    (r"tokenizer.*|vocab\.(json|txt)|.*spiece.*\.model", "a tokenizer without a model. Choose the folder that contains "
     "config.json and the weights too"),
)  # fmt: skip
_HEADS = {
    "SequenceClassification": "a text classifier or a reward model",
    "TokenClassification": "a token classifier",
    "QuestionAnswering": "an extractive question-answering model",
    "MultipleChoice": "a multiple-choice classifier",
    "RewardModel": "a reward model",
    "MaskedLM": "a masked language model, which reads text in both directions",
    "ImageClassification": "an image classifier",
    "TextEncoding": "a text encoder",
}
_TAGS = {
    "gguf": GGUF, "mlx": f"a model in MLX format, which cannot be tuned here. {_ORIGINAL}",
    "peft": "an adapter, not a whole model. Download it into a folder of its own, and choose that folder",
    "sentence-transformers": _FILES["modules.json"], "diffusers": _FILES["model_index.json"],
}  # fmt: skip
_HEAD_WEIGHTS = re.compile(r"(?:model\.)?(score|classifier|qa_outputs|reward_head)\.")
_OUTPUT = re.compile(r"(lm_head|embed_out|output_layer)\.")
LARGEST = 1_000_000  # bytes of an adapter_config.json


def of_file(path: Path) -> str:
    """What the file at ``path`` is, and what to use instead of it as a model."""
    if path.suffix.lower() in (".safetensors", ".bin", ".pt", ".pth", ".index"):
        return f"is a weights file; set [model] id to the folder with config.json: {path.parent}"
    if path.suffix.lower() == ".onnx":
        return f"is a model in ONNX format, which cannot be tuned here. {_ORIGINAL}."
    return "is a file; set [model] id to a GGUF file, or to the folder with config.json and the weights."


def of_files(names: Collection[str], base: str = "") -> str:
    """What a folder with files of these ``names`` contains; '' if it may be a causal language model. ``base`` is the
    model that an adapter among them was trained on."""
    whole = "config.json" in names
    if "adapter_config.json" in names and not holds_model(names):
        return f"contains an adapter (such as LoRA){_trained_on(base)}, not a whole model. {_DOWNLOAD}"
    found = next((what for name, what in _FILES.items() if name in names), "")
    if not found and not whole and not any(name.endswith(".safetensors") for name in names):
        matches = (what for pattern, what in _INSTEAD_OF_CONFIG if any(re.fullmatch(pattern, name) for name in names))
        found = next(matches, "")
    return f"contains {found}." if found else ""


def holds_model(names: Collection[str]) -> bool:
    """Whether a folder with files of these ``names`` contains a whole model, whatever else it contains."""
    weights = any(re.fullmatch(r"(model|pytorch_model).*\.(safetensors|bin)", name) for name in names)
    return weights and "config.json" in names


def of_config(table: Mapping[str, Any]) -> str:
    """What a config.json describes; '' if it may be a causal language model."""
    architectures = table.get("architectures")
    first = architectures[0] if isinstance(architectures, list) and architectures else None
    if isinstance(first, str):
        what = next((what for name, what in _HEADS.items() if name in first), "")
        if what:
            return f"is {what} ({first}), and has no head that predicts the next token. {_CAUSAL}."
    if isinstance(table.get("quantization"), dict) and "bits" in table["quantization"]:
        return f"is {_TAGS['mlx']}."
    return ""


def of_weights(names: Collection[str], missing: Collection[str]) -> str:
    """What a checkpoint with weights of these ``names`` is; ``missing`` are those that a causal language model would
    also need. '' if it may be one."""
    head = next((found[1] for name in names if (found := _HEAD_WEIGHTS.match(name))), "")
    if head:
        return f"has the head of a classifier or reward model ('{head}'), not one that predicts tokens. {_CAUSAL}."
    if missing and all(map(_OUTPUT.match, missing)):
        return (
            f"has no head that predicts tokens ('{min(missing)}'): it is only a model body, such as one for "
            f"embeddings. {_CAUSAL}."
        )
    return ""


def of_tags(tags: Collection[str] | None) -> str:
    """What a model on the Hub is by its ``tags``; '' if it may be a causal language model in safetensors."""
    what = next((what for tag, what in _TAGS.items() if tag in (tags or ())), "")
    return f"It is {what}." if what else ""


def base_of(folder: Path) -> str:
    """The model that the adapter in ``folder`` was trained on; '' if unknown."""
    try:
        path = folder / "adapter_config.json"
        table = json.loads(path.read_text(encoding="utf-8")) if path.stat().st_size < LARGEST else {}
        name = table.get("base_model_name_or_path")
        return name if isinstance(name, str) else ""
    except (OSError, ValueError, RecursionError, AttributeError):
        return ""


def base_of_tags(tags: Collection[str] | None) -> str:
    """The same for an adapter on the Hub."""
    return next((tag.removeprefix("base_model:adapter:") for tag in tags or () if ":adapter:" in tag), "")


def _trained_on(base: str) -> str:
    return f", trained on {quoted(base)}" if base else ""


def better_place(folder: Path) -> str:
    """A sentence that names a model folder inside ``folder``; '' if there is none."""
    inside = (*folder.glob("*/config.json"), *folder.glob("snapshots/*/config.json"))
    if not inside:
        return ""
    newest = max(inside, key=lambda path: path.stat().st_mtime).parent
    return f"is not a model: it has no config.json, but folders in it have one. Choose one, such as {newest}"
