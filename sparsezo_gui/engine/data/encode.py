"""Examples to token rows: no padding, scored positions marked, and a single row where one is enough."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sparsezo_gui.engine.data.examples import Example
from sparsezo_gui.engine.data.tokenise import (
    Tokens,
    TokenSequence,
    beginning,
    begun,
    common_prefix,
    prompt_tokens,
    tokenise,
    tokenise_choices,
    with_eos,
)
from sparsezo_gui.errors import UserError


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence through the model.

    The logits at ``tokens[positions[i]]`` predict ``targets[i]``, which is a token of the candidate ``choices[i]`` (0
    if there are none). The last tokens may be ``branches`` of these lengths; each continues the tokens before all
    branches and does not see the other branches.
    """

    tokens: Tokens
    positions: tuple[int, ...]
    targets: Tokens
    choices: tuple[int, ...]
    branches: tuple[int, ...] = ()

    @property
    def trunk(self) -> int:
        """Tokens before the branches."""
        return len(self.tokens) - sum(self.branches)

    @property
    def places(self) -> list[int]:
        """Position of each token in its text, from 0."""
        return places_of(self.trunk, self.branches)


def places_of(trunk: int, branches: Iterable[int]) -> list[int]:
    """Position of each token in its text, from 0: those of the trunk, then those of each branch, which continue it."""
    return [*range(trunk), *(trunk + place for branch in branches for place in range(branch))]


@dataclass(frozen=True)
class Encoded:
    """One example for the model. ``choices`` counts candidates (0: not a choice); ``accepted`` are other correct ones;
    ``prompt`` is what to generate from; ``cut`` counts tokens removed to fit the maximum length, and ``clipped`` says
    that trained tokens were among them."""

    rows: tuple[Row, ...]
    choices: int
    label: int
    prompt: Tokens
    references: tuple[str, ...]
    cut: int
    accepted: tuple[int, ...] = ()
    clipped: bool = False

    @property
    def length(self) -> int:
        """Tokens of the longest row."""
        return max(len(row.tokens) for row in self.rows)

    @cached_property
    def joined(self) -> tuple[Row, ...]:
        """The same rows with their common prefix once: what the candidates share is computed once for all."""
        return (_join(self.rows),) if len(self.rows) > 1 else self.rows


def encode(example: Example, tokenizer: Any, max_tokens: int) -> Encoded:
    """Token rows of an example; no sequence, including its answer, is longer than ``max_tokens``.

    A text that is too long loses its beginning (after the token that begins every text); an answer that is too long on
    its own loses its end. If the end of a text is trained (not in a choice), the end-of-sequence token is added and
    trained, unless the text already ends with a special token. What follows the last trained token is left out.
    Raises `UserError` if nothing is left to predict.
    """
    return _choice(example, tokenizer, max_tokens) if example.choices else _continued(example, tokenizer, max_tokens)


def _continued(example: Example, tokenizer: Any, max_tokens: int) -> Encoded:
    """A text with some trained segments: one row."""
    prefix, sequence = begun([text for text, _ in example.segments], tokenizer, example.templated)
    trained = [trained for _, trained in example.segments]
    if trained[-1]:
        sequence = with_eos(sequence, tokenizer, len(trained) - 1, example.templated)
    learned = [index for index, owner in enumerate(sequence.owners) if trained[owner]]
    last = sequence.first(max(index for index, train in enumerate(trained) if train))
    length = learned[-1] + 1 if learned else 0
    cut, start, size = _room(length, last, max_tokens, prefix)
    kept = sequence.window(start, min(size, length - start))
    tokens = prefix + kept.tokens
    scored = [index for index, owner in enumerate(kept.owners, len(prefix)) if trained[owner] and index > 0]
    if not scored:
        raise UserError("there is no token to learn: the text is empty or a single token.")
    prompt = prefix + kept.tokens[: max(0, last - start)]
    before = "".join(text for text, _ in example.segments[: len(trained) - 1 - trained[::-1].index(True)])
    if example.prompt and example.prompt != before:  # a template renders the prompt differently before an answer
        asked = prompt_tokens(example.prompt, tokenizer, example.templated)
        prompt = prefix + asked[len(prefix) :][-(size - 1) :]
    clipped = cut > start or any(trained[owner] for owner in sequence.owners[:start])
    return Encoded((_row(tokens, scored),), 0, 0, prompt, example.references, cut, clipped=clipped)


def _choice(example: Example, tokenizer: Any, max_tokens: int) -> Encoded:
    """A prompt and its candidates: a row each, or one for all if they differ only in their last token."""
    prompt = "".join(text for text, _ in example.segments)
    prefix = begun([prompt], tokenizer, templated=True)[0] if example.templated else beginning(tokenizer)
    head, tails = tokenise_choices(prompt, example.choices, tokenizer, prefix)
    if example.ends:
        tails = [with_eos(tail, tokenizer, 1, example.templated) for tail in tails]
    longest, shared = max(tails, key=lambda tail: len(tail.tokens)), len(head.tokens)
    over, start, size = _room(shared + len(longest.tokens), shared + longest.first(1), max_tokens, prefix)
    left = head.window(start, shared)
    kept = [left.then(tail).window(max(0, start - shared), size) for tail in tails]
    rows = [_candidate(prefix, sequence, index) for index, sequence in enumerate(kept)]
    prompted = prefix + common_prefix([sequence.tokens[: sequence.first(1)] for sequence in kept])
    if len({row.tokens for row in rows}) == 1:
        joined = (
            tuple(itertools.chain.from_iterable(parts))
            for parts in zip(*((row.positions, row.targets, row.choices) for row in rows), strict=True)
        )
        rows = [Row(rows[0].tokens, *joined)]
    clipped = over > start
    return Encoded(
        tuple(rows), len(kept), example.label, prompted, example.references, over, example.accepted, clipped
    )  # fmt: skip


def _candidate(prefix: Tokens, sequence: TokenSequence, choice: int) -> Row:
    tokens = prefix + sequence.tokens
    scored = range(max(1, len(prefix) + sequence.first(1)), len(tokens))
    if not scored:
        raise UserError("no token of a candidate can be scored: the prompt or the candidate is empty.")
    return _row(tokens, scored, choice)


def _row(tokens: Tokens, scored: Sequence[int], choice: int = 0) -> Row:
    """The row that predicts the tokens at the ``scored`` positions, none of which is 0, from those before them."""
    return Row(
        tokens[:-1],
        tuple(index - 1 for index in scored),
        tuple(tokens[index] for index in scored),
        (choice,) * len(scored),
    )


def _join(rows: tuple[Row, ...]) -> Row:
    shared = len(common_prefix([row.tokens for row in rows]))
    rests = [row.tokens[shared:] for row in rows]
    starts = itertools.accumulate((len(rest) for rest in rests), initial=0)  # of the branches, after the trunk
    positions = (
        position if position < shared else start + position
        for row, start in zip(rows, starts, strict=False)
        for position in row.positions
    )
    chain = itertools.chain.from_iterable
    return Row(
        rows[0].tokens[:shared] + tuple(chain(rests)),
        tuple(positions),
        tuple(chain(row.targets for row in rows)),
        tuple(chain(row.choices for row in rows)),
        tuple(len(rest) for rest in rests if rest),
    )


def _room(length: int, last: int, max_tokens: int, prefix: Tokens) -> tuple[int, int, int]:
    """How many tokens are cut, where the window begins, and its size. ``last`` begins what must stay; if no token
    begins every text, one token of the prompt is kept to predict it from."""
    size = max_tokens - len(prefix)
    over = max(0, length - size)
    return over, min(over, max(0, last - (not prefix))), size


def encode_text(text: str, tokenizer: Any, max_tokens: int, ends: bool = True) -> list[Encoded]:
    """Plain text of any length as examples of at most ``max_tokens``; nothing is cut. If it ``ends``, the
    end-of-sequence token follows.

    If no token begins every text, windows overlap by one token, so that each token but the very first is trained once.
    """
    prefix = beginning(tokenizer)
    sequence = tokenise([text], tokenizer, prefix)
    tokens = (with_eos(sequence, tokenizer, 0) if ends else sequence).tokens
    size, overlap = max_tokens - len(prefix), 0 if prefix else 1
    starts = range(0, max(1, len(tokens) - overlap), size - overlap)
    windows = [prefix + tokens[start : start + size] for start in starts]
    rows = (_row(window, range(1, len(window))) for window in windows if len(window) > 1)
    return [Encoded((row,), 0, 0, (), (), 0) for row in rows]


def encode_text_blocks(texts: Iterable[str], tokenizer: Any, block: int, limit: int) -> list[Tokens]:
    """At most ``limit`` blocks of ``block`` tokens, from the concatenated texts.

    Texts are separated by the end-of-sequence token, and each block begins as the tokenizer begins a text. Texts are
    read as needed; too few give one short block.
    """
    prefix = beginning(tokenizer)
    size = block - len(prefix)
    held: list[int] = []
    for text in texts:
        held += with_eos(tokenise([text], tokenizer, prefix), tokenizer, 0).tokens
        if len(held) >= size * limit:
            break
    starts = range(0, len(held) - size + 1, size)[:limit] or ([0] if len(held) > 1 else [])
    return [prefix + tuple(held[start : start + size]) for start in starts]
