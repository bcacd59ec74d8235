"""Where a model is on this computer."""

from __future__ import annotations

import os
import re
from pathlib import Path

from sparsezo_gui import resources
from sparsezo_gui.engine.pretrained import kinds
from sparsezo_gui.engine.pretrained.gguf.header import is_gguf
from sparsezo_gui.engine.pretrained.gguf.stores import OLLAMA, gguf_in, ollama_file
from sparsezo_gui.engine.pretrained.tuned import untuned
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.recipe import ModelTable
from sparsezo_gui.untrusted import resolved


def local_folder(id: str) -> Path | None:
    """Folder, or GGUF file, of a bundled or local model; None if ``id`` can only be on the Hub. For a tuned model, that
    of the model below. Raises `UserError`."""
    id = untuned(ModelTable(id=id)).id
    if id in resources.BUNDLED_MODELS:
        return resources.BUNDLED_MODELS[id]
    if id.startswith(OLLAMA):
        return ollama_file(id)
    path = Path(os.path.expanduser(id))
    if os.path.isdir(path):
        return gguf_in(path) or resolved(path)
    if os.path.isfile(path):
        if is_gguf(path):
            return resolved(path)
        raise UserError(f"{path}: {kinds.of_file(path)}")
    if path.suffix == ".gguf":
        raise UserError(f"There is no file '{path}'. Check the path.")
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", id):
        raise UserError(
            f"There is no model folder '{path}'. Check the path, or use a bundled model "
            f"({', '.join(resources.BUNDLED_MODELS)}) or a model on the Hub such as 'Qwen/Qwen3-0.6B'."
        )
    return None
