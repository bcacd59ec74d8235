"""The tokens with which a model ends a text."""

from __future__ import annotations

from transformers import GenerationConfig

from sparsezo_gui.engine.pretrained.source import ModelSource
from sparsezo_gui.errors import UserError
from sparsezo_gui.untrusted import outside


def end_tokens(source: ModelSource) -> list[int]:
    """The tokens that end a text, of generation_config.json or else of config.json. Raises `UserError`."""
    path, found = source.folder / "generation_config.json", getattr(source.config, "eos_token_id", None)
    if path.is_file():
        with outside(path, "is wrong", "Download or copy the file again, or remove it."):
            config = GenerationConfig.from_pretrained(source.folder, local_files_only=True)
        found = getattr(config, "eos_token_id", None)
    ends = [end for end in (found if isinstance(found, list | tuple) else [found]) if end is not None]
    if not all(type(end) is int for end in ends):
        where = path if path.is_file() else source.folder / "config.json"
        raise UserError(f"{where}: 'eos_token_id' must be a token id or a list of token ids, not {found!r}.")
    return ends
