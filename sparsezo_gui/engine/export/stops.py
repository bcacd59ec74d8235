"""Stop tokens of an exported model: those of the base model, and the one that the run learned to end answers with.

A base model may have a chat template but stop only at the end of a whole text. If it learned to end answers with
another token, programs that use its generation_config.json would not stop after an answer.
"""

from __future__ import annotations

import json

from sparsezo_gui.engine.frozen import FrozenModel
from sparsezo_gui.engine.pretrained.ends import end_tokens

FILE = "generation_config.json"


def added_stop(model: FrozenModel) -> str:
    """The token that the run learned to end answers with; '' if the base model already stops at it."""
    end = model.learned_end
    return "" if end is None or end in end_tokens(model.source) else str(model.tokenizer.convert_ids_to_tokens(end))


def told_stop(model: FrozenModel) -> list[str]:
    """A sentence for exports without that file, if the run learned to end answers with another token."""
    if not (stop := added_stop(model)):
        return []
    return [
        f"The run learned to end answers with '{stop}' (token {model.learned_end}), which is not a stop token of the "
        "base model. Set it as a stop token in your program."
    ]


def generation_config(model: FrozenModel) -> dict[str, str]:
    """The base model's file with the learned stop token added; nothing if it has that already."""
    if not added_stop(model):
        return {}
    path, config = model.source.folder / FILE, model.source.config
    # Without the file, transformers takes the special tokens from config.json.
    kept = {name: getattr(config, name, None) for name in ("bos_token_id", "pad_token_id")}
    if path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
    table = {**kept, "eos_token_id": [*end_tokens(model.source), model.learned_end]}
    return {FILE: json.dumps({key: value for key, value in table.items() if value is not None}, indent=2) + "\n"}
