"""Limits of a model: the tokens in its embeddings, and how long a text may be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sparsezo_gui.errors import UserError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

_LEARNED = re.compile(r"(^|\.)(wpe|embed_positions|position_embeddings?|pos_embed\w*)\.weight$")
_COUNTED = ("gptj", "codegen")  # rotary, with angles precomputed for a fixed number of positions


class BeyondModel(UserError):
    """Examples with tokens or positions that the model lacks."""


@dataclass(frozen=True)
class Limits:
    """For the model in ``folder``: the number of ``tokens`` in its smallest embedding, and of ``positions`` that it was
    trained for (0: unlimited). If ``fixed``, it cannot compute more; otherwise its output only degrades beyond them."""

    folder: Path
    tokens: int
    positions: int = 0
    fixed: bool = False

    def unknown(self, token: int, tokenizer: PreTrainedTokenizerBase, where: str) -> BeyondModel:
        """The error for a token that the embeddings lack; ``where`` says where it comes from."""
        return BeyondModel(
            f"{where}: contains the token {tokenizer.convert_ids_to_tokens(token)!r} (number {token}), which the model "
            f"lacks: the tokenizer has {len(tokenizer)} tokens, and the model has embeddings for {self.tokens}. "
            f"Put the tokenizer that belongs to the model into {self.folder}, or remove that token."
        )


def limits_of(folder: Path, config: PretrainedConfig, shapes: Mapping[str, tuple[int, ...]], tokens: int) -> Limits:
    """Limits of a model, from its ``config`` and the ``shapes`` of its weights."""
    text = config.get_text_config()
    positions = getattr(text, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions <= 0 or getattr(text, "alibi", False):
        positions = 0
    # OPT's table has two more rows than positions.
    tables = [shape[0] for name, shape in shapes.items() if len(shape) == 2 and _LEARNED.search(name)]
    positions = min(filter(None, (positions, *tables)), default=0)
    return Limits(folder, tokens, positions, bool(tables) or text.model_type in _COUNTED)
