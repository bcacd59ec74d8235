"""Text from the model as it is now."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from transformers import GenerationConfig

from sparsezo_gui.engine.data.chat import templated
from sparsezo_gui.engine.data.encode import Encoded, text_of, tokens_of
from sparsezo_gui.engine.models.frozen import FrozenModel
from sparsezo_gui.errors import UserError

BATCH = 32  # prompts at a time
CACHE_BYTES = 64 << 20  # of their keys and values
ROOM = 8  # tokens more than the longest reference, so that a longer answer shows as wrong


def encode_prompt(model: FrozenModel, prompt: str, chat: bool = False) -> Tensor:
    """Token ids (1, tokens) of a prompt, put into the model's chat template when ``chat``."""
    prompt = prompt.encode("utf-8", "replace").decode()  # a terminal may give half characters
    if chat and model.tokenizer.chat_template:
        prompt = templated([{"role": "user", "content": prompt}], model.tokenizer, "the prompt", prompt=True)
    else:
        chat = False
    ids = tokens_of(prompt, model.tokenizer, add_special_tokens=not chat, return_tensors="pt").input_ids
    model.check_tokens(ids.tolist(), "The prompt")
    return ids


@torch.inference_mode()
def stream(model: FrozenModel, ids: Tensor, limit: int) -> Iterator[int]:
    """Greedy tokens after ``ids`` (1, tokens), one at a time, until an end token or ``limit`` tokens."""
    ends = _end_tokens(model)
    places = getattr(model.module.config, "max_position_embeddings", None) or 2**31
    if not 0 < ids.shape[1] < places:
        raise UserError(
            "The prompt is empty. Write something that the model can go on from."
            if not ids.shape[1] else
            f"The prompt has {ids.shape[1]} tokens, and this model takes fewer than {places}. Shorten it."
        )  # fmt: skip
    limit = min(limit, places - ids.shape[1])
    ids, cache = ids.to(model.device), None
    for _ in range(limit):
        out = model.module(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = out.past_key_values
        token = int(out.logits[0, -1].argmax())
        if token in ends:
            return
        yield token
        ids = torch.tensor([[token]], device=model.device)


@torch.inference_mode()
def complete(
    model: FrozenModel, prompts: Sequence[Sequence[int]], limit: int, sides: int = 1
) -> Iterator[tuple[int, list[list[int]]]]:
    """Index and greedy tokens of every prompt, as `stream` gives them, under each of the ``sides`` that the model's
    layers hold; several prompts at a time, the shortest first.

    Prompts of a batch are padded on the left; so many go together that their keys and values stay within bounds.
    """
    anatomy, ends = model.anatomy, _end_tokens(model)
    token_bytes = sides * 2 * anatomy.layers * anatomy.kv_heads * anatomy.head_dim * model.dtype.itemsize
    config = GenerationConfig(max_new_tokens=limit, do_sample=False, eos_token_id=sorted(ends) or None, pad_token_id=0)
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    while order:
        # The last of a batch is the longest; taking one more makes all rows as long as that one.
        count = 1
        while count < min(max(1, BATCH // sides), len(order)):
            if (count + 1) * (len(prompts[order[count]]) + limit) * token_bytes > CACHE_BYTES:
                break
            count += 1
        batch, order = order[:count], order[count:]
        longest = len(prompts[batch[-1]])
        padding = [longest - len(prompts[index]) for index in batch]
        rows = [[0] * pad + list(prompts[index]) for pad, index in zip(padding, batch, strict=True)]
        seen = [[0] * pad + [1] * (longest - pad) for pad in padding]
        ids, mask = (torch.tensor(values, device=model.device).repeat(sides, 1) for values in (rows, seen))
        found = model.module.generate(input_ids=ids, attention_mask=mask, generation_config=config)
        written = found[:, longest:].unflatten(0, (sides, count)).transpose(0, 1).tolist()
        for index, by_side in zip(batch, written, strict=True):
            yield index, [list(itertools.takewhile(lambda token: token not in ends, row)) for row in by_side]


def answers(model: FrozenModel, examples: Sequence[Encoded], sides: int = 1) -> Iterator[tuple[int, list[str]]]:
    """Index and the model's own answer to the prompt of every example, under each side."""
    longest = max(len(row.targets) for example in examples for row in example.rows)
    for index, written in complete(model, [example.prompt for example in examples], longest + ROOM, sides):
        # An answer ends at its line, as in MeZO's protocol.
        texts = (text_of(tokens, model.tokenizer).strip() for tokens in written)
        yield index, [text.split("\n", 1)[0] for text in texts]


def stream_text(model: FrozenModel, prompt: str, limit: int, chat: bool = False) -> Iterator[str]:
    """Pieces of text after ``prompt`` as they come; joined they are the whole answer."""
    tokens: list[int] = []
    text = told = ""
    for token in stream(model, encode_prompt(model, prompt, chat), limit):
        tokens.append(token)
        text = text_of(tokens, model.tokenizer)
        # A character may need several tokens; an unfinished one decodes to U+FFFD and waits.
        if len(text) > len(told) and not text.endswith("�"):
            yield text[len(told) :]
            told = text
    if text != told:
        yield text[len(told) :]


def _end_tokens(model: FrozenModel) -> set[int]:
    ends = {*(model.module.generation_config.eos_token_id or ()), model.tokenizer.eos_token_id}
    return ends - {None}
