"""Text from the model as it is now."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sparsezo_gui.engine.models.frozen import FrozenModel


def encode_prompt(model: FrozenModel, prompt: str, chat: bool = False) -> Tensor:
    """Token ids (1, tokens) of a prompt, put into the model's chat template when ``chat``."""
    if chat and model.tokenizer.chat_template:
        prompt = model.tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False
        )
        return model.tokenizer(prompt, add_special_tokens=False, return_tensors="pt").input_ids
    return model.tokenizer(prompt, return_tensors="pt").input_ids


@torch.inference_mode()
def stream(model: FrozenModel, ids: Tensor, limit: int) -> Iterator[int]:
    """Greedy tokens after ``ids`` (1, tokens), one at a time, until an end token or ``limit`` tokens."""
    ends = _end_tokens(model)
    ids, cache = ids.to(model.device), None
    for _ in range(limit):
        out = model.module(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = out.past_key_values
        token = int(out.logits[0, -1].argmax())
        if token in ends:
            return
        yield token
        ids = torch.tensor([[token]], device=model.device)


def stream_text(model: FrozenModel, prompt: str, limit: int, chat: bool = False) -> Iterator[str]:
    """Pieces of text after ``prompt`` as they come; joined they are the whole answer."""
    tokens: list[int] = []
    text = told = ""
    for token in stream(model, encode_prompt(model, prompt, chat), limit):
        tokens.append(token)
        text = model.tokenizer.decode(tokens, skip_special_tokens=True)
        # A character may need several tokens; an unfinished one decodes to U+FFFD and waits.
        if len(text) > len(told) and not text.endswith("�"):
            yield text[len(told) :]
            told = text
    if text != told:
        yield text[len(told) :]


def _end_tokens(model: FrozenModel) -> set[int]:
    ends = model.module.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    return {int(end) for end in [*ends, model.tokenizer.eos_token_id] if end is not None}
