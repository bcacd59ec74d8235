"""Where an exported model stops: at the base's end tokens, and at the one that the run learned to end answers with.

A base model may have a chat template and stop only where a whole text ends; tuned on answers that end with another
token, it would write on after each in any program that goes by its generation_config.json.
"""

from __future__ import annotations

import json

from sparsezo_gui.engine.models.frozen import FrozenModel, end_tokens

FILE = "generation_config.json"


def added_stop(model: FrozenModel) -> str:
    """The token that the run learned to end answers with, where the base does not stop at it, else ''."""
    end = model.learned_end
    return "" if end is None or end in end_tokens(model.source) else str(model.tokenizer.convert_ids_to_tokens(end))


def generation_config(model: FrozenModel) -> dict[str, str]:
    """The file with the learned end among its stop tokens, all else as in the base's; nothing where it has it."""
    if not added_stop(model):
        return {}
    path, config = model.source.folder / FILE, model.source.config
    # Without the file, transformers takes the special tokens from config.json.
    kept = {name: getattr(config, name, None) for name in ("bos_token_id", "pad_token_id")}
    if path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
    table = {**kept, "eos_token_id": [*end_tokens(model.source), model.learned_end]}
    return {FILE: json.dumps({key: value for key, value in table.items() if value is not None}, indent=2) + "\n"}
