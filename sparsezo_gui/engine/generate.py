"""Text generation with the tuned values that the model's layers currently use."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedTokenizerBase

from sparsezo_gui.engine import metrics
from sparsezo_gui.engine.data.encode import Encoded
from sparsezo_gui.engine.data.prompts import EMPTY, PLACE, EncodedPrompt
from sparsezo_gui.engine.data.tokenise import text_of
from sparsezo_gui.engine.frozen import FrozenModel
from sparsezo_gui.engine.objective import measure
from sparsezo_gui.errors import UserError

BATCH = 32  # prompts at a time
CACHE_BYTES = 64 << 20  # for the keys and values of a batch
ROOM = 8  # tokens beyond the longest reference, so that a longer answer counts as wrong
WINDOW = 16  # tokens decoded again with each new one: a token's text depends on those before it
LISTED = 10  # candidates shown


@torch.inference_mode()
def stream(model: FrozenModel, ids: Tensor, limit: int, temperature: float = 0.0, seed: int = 0) -> Iterator[int]:
    """Tokens after ``ids`` (1, tokens), one at a time, until an end token or ``limit`` tokens: sampled with ``seed`` at
    a ``temperature``, or the likeliest ones at 0."""
    limit = min(limit, _room(model, ids.shape[1]))
    chance = torch.Generator().manual_seed(seed)
    ids, cache = ids.to(model.device), None
    for _ in range(limit):
        out = model.module(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = out.past_key_values
        scores = out.logits[0, -1]
        if temperature > 0:
            probabilities = (scores.float().cpu() / temperature).softmax(0)
            token = int(torch.multinomial(probabilities, 1, generator=chance))
        else:
            token = int(scores.argmax())
        if token in model.stops:
            return
        yield token
        ids = torch.tensor([[token]], device=model.device)


@torch.inference_mode()
def complete(
    model: FrozenModel, prompts: Sequence[Sequence[int]], limit: int, points: int = 1
) -> Iterator[tuple[int, list[list[int]]]]:
    """Index of every prompt and its greedy tokens at each of the ``points`` in the model's layers, as from `stream`;
    several prompts at a time, the shortest first.

    Prompts of a batch are padded on the left; the batch size limits the memory of their keys and values.
    """
    spec, ends = model.spec, model.stops
    token_bytes = points * 2 * spec.layers * spec.kv_heads * spec.head_dim * model.dtype.itemsize
    config = GenerationConfig(max_new_tokens=limit, do_sample=False, eos_token_id=sorted(ends) or None, pad_token_id=0)
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    while order:
        # The last prompt of a batch is the longest; one more makes all rows as long as that one.
        count = 1
        while count < min(max(1, BATCH // points), len(order)):
            if (count + 1) * (len(prompts[order[count]]) + limit) * token_bytes > CACHE_BYTES:
                break
            count += 1
        batch, order = order[:count], order[count:]
        longest = len(prompts[batch[-1]])
        padding = [longest - len(prompts[index]) for index in batch]
        rows = [[0] * pad + list(prompts[index]) for pad, index in zip(padding, batch, strict=True)]
        seen = [[0] * pad + [1] * (longest - pad) for pad in padding]
        ids, mask = (torch.tensor(values, device=model.device).repeat(points, 1) for values in (rows, seen))
        found = model.module.generate(input_ids=ids, attention_mask=mask, generation_config=config)
        written = found[:, longest:].unflatten(0, (points, count)).transpose(0, 1).tolist()
        for index, by_point in zip(batch, written, strict=True):
            yield index, [list(itertools.takewhile(lambda token: token not in ends, row)) for row in by_point]


def answers(model: FrozenModel, examples: Sequence[Encoded], points: int = 1) -> Iterator[tuple[int, list[str]]]:
    """Index of every example and its generated answer at each point."""
    longest = max(len(row.targets) for example in examples for row in example.rows)
    for index, found in complete(model, [example.prompt for example in examples], longest + ROOM, points):
        texts = (text_of(tokens, model.tokenizer) for tokens in found)
        yield index, [answer_in(text, examples[index].references) for text in texts]


def answer_in(text: str, references: Sequence[str]) -> str:
    """The part of a generated ``text`` to compare with the ``references``: what follows the reasoning, and of that the
    first line, as in MeZO's protocol, unless a reference has several lines."""
    text = metrics.without_reasoning(text).strip()
    several = any("\n" in metrics.without_reasoning(reference).strip() for reference in references)
    return text if several else text.split("\n", 1)[0]


def reply(
    model: FrozenModel, asked: EncodedPrompt, limit: int, temperature: float = 0.0, seed: int = 0
) -> Iterator[str]:  # fmt: skip
    """Pieces of the answer: the likeliest candidates with their probabilities, one per line, or the `continuation`."""
    if asked.choice is None:
        yield from continuation(model, asked, limit, temperature, seed)
        return
    found = rank_candidates(model, asked)
    yield "\n".join(f"{text} {100 * probability:.0f} %" for text, probability in found[:LISTED])
    if len(found) > LISTED:
        yield f"\nand {len(found) - LISTED} more"


@torch.no_grad()
def rank_candidates(model: FrozenModel, asked: EncodedPrompt) -> list[tuple[str, float]]:
    """The candidates, likeliest first, with probabilities as in training and evaluation: a softmax over the mean
    log-probabilities of their tokens."""
    assert asked.choice, "there is something to choose from"
    model.check_tokens((part for row in asked.choice.rows for part in (row.tokens, row.targets)), PLACE)
    _room(model, asked.longest)
    found = measure(model, [asked.choice]).scores[0][0].softmax(dim=0).tolist()
    return sorted(zip(asked.candidates, found, strict=True), key=lambda each: -each[1])


def continuation(
    model: FrozenModel, asked: EncodedPrompt, limit: int, temperature: float = 0.0, seed: int = 0
) -> Iterator[str]:  # fmt: skip
    """Pieces of generated text as they arrive; joined, they are the whole answer. See `stream`."""
    model.check_tokens([asked.prompt], PLACE)
    return pieces(
        stream(model, torch.tensor([asked.prompt], dtype=torch.long), limit, temperature, seed), model.tokenizer
    )


def pieces(tokens: Iterable[int], tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """The text that each of the ``tokens`` adds."""
    window: list[int] = []
    shown = ""
    for token in tokens:
        window.append(token)
        text = text_of(window, tokenizer)
        # A character may need several tokens; an unfinished one decodes to U+FFFD and waits.
        if len(text) > len(shown) and not text.endswith("�"):
            yield text[len(shown) :]
            shown = text
            if len(window) > 2 * WINDOW:
                window = window[-WINDOW:]
                shown = text_of(window, tokenizer)
    if window and (text := text_of(window, tokenizer)) != shown:
        yield text[len(shown) :]


def _room(model: FrozenModel, length: int) -> int:
    """How many more tokens the model can process after ``length`` tokens. Raises `UserError`."""
    positions = getattr(model.module.config, "max_position_embeddings", None) or 2**31
    if not length:
        raise UserError(EMPTY)
    if length >= positions:
        raise UserError(f"{PLACE} has {length} tokens, but this model takes fewer than {positions}. Shorten it.")
    return positions - length
