"""Texts to tokens.

A text is tokenised as a whole, because tokenizers merge characters across the boundaries of its pieces; a token belongs
to the piece in which it ends.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from sparsezo_gui.errors import UserError
from sparsezo_gui.untrusted import outside

Tokens = tuple[int, ...]
LONGEST = 16_000_000  # characters tokenised for one row, as many as a template may write
_CURE = "Download or copy the model again, or change the text."
SEAM = 4096  # characters at the end of a prompt that are tokenised again with each candidate


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """Tokens after those that begin every text.

    ``owners`` are the segments in which they end, ``ends`` their end positions in characters, if known.
    """

    tokens: Tokens
    owners: tuple[int, ...]
    ends: tuple[int | None, ...] = ()

    def first(self, owner: int) -> int:
        """Index of the first token of that segment or of a later one."""
        return next((index for index, own in enumerate(self.owners) if own >= owner), len(self.tokens))

    def window(self, start: int, size: int) -> TokenSequence:
        """``size`` tokens from ``start``."""
        return TokenSequence(self.tokens[start : start + size], self.owners[start : start + size])

    def then(self, other: TokenSequence) -> TokenSequence:
        """These tokens followed by those of ``other``."""
        return TokenSequence(self.tokens + other.tokens, self.owners + other.owners)


def tokens_of(text: str | list[str], tokenizer: Any, **options: Any) -> Any:
    """``text`` tokenised. Raises `UserError`: a tokenizer can work on most texts and fail on some."""
    with outside(tokenizer.name_or_path, "its tokenizer fails on this text", _CURE):
        return tokenizer(text, verbose=False, **options)


def text_of(tokens: Iterable[int], tokenizer: Any) -> str:
    """The text of ``tokens``, without special ones. Raises `UserError`."""
    with outside(tokenizer.name_or_path, "its tokenizer fails on these tokens", _CURE):
        return str(tokenizer.decode(list(tokens), skip_special_tokens=True))


def begun(pieces: list[str], tokenizer: Any, templated: bool = False) -> tuple[Tokens, TokenSequence]:
    """The tokens that begin a text, and those of its ``pieces``. A ``templated`` text, written by a chat template,
    begins as written: with those tokens, or with none."""
    prefix, sequence = beginning(tokenizer), tokenise(pieces, tokenizer)
    there = sequence.tokens[: len(prefix)] == prefix
    return () if templated and not there else prefix, _without(prefix, sequence)


def prompt_tokens(text: str, tokenizer: Any, templated: bool = False) -> Tokens:
    """The tokens a model continues after ``text``: those that begin every text, once, and those of the text; never an
    end-of-sequence token, even if the tokenizer adds one. ``templated`` is as for `begun`. Raises `UserError`."""
    prefix, found = begun([text], tokenizer, templated)
    return prefix + found.tokens


def tokenise(pieces: list[str], tokenizer: Any, prefix: Tokens = ()) -> TokenSequence:
    """Tokens of the joined pieces, without those of ``prefix``, each with the index of the piece in which it ends."""
    return tokenise_all([pieces], tokenizer, prefix)[0]


def tokenise_choices(
    prompt: str, choices: tuple[str, ...], tokenizer: Any, prefix: Tokens = ()
) -> tuple[TokenSequence, list[TokenSequence]]:
    """Tokens of the prompt followed by each of the ``choices``: the common prefix, and the rest of each.

    A long prompt is tokenised as a whole only once. For each candidate only its end is tokenised again; the tokens
    before are the same whichever candidate follows. If that cannot be verified, all are tokenised as a whole.
    """
    latest = len(prompt) - SEAM
    if latest > SEAM:
        whole = tokenise([prompt, choices[0]], tokenizer, prefix)
        start = next((end for end in reversed(whole.ends) if end is not None and end <= latest), latest)
        tails = tokenise_all([[prompt[start:], choice] for choice in choices], tokenizer)
        # From the first token from which tail and whole agree up to their ends; at the latest half-way to the
        # candidate, and no candidate may change what is before the half.
        same = len(common_prefix([whole.tokens[::-1], tails[0].tokens[::-1]]))
        met, half = len(tails[0].tokens) - same, tails[0].first(1) // 2
        if met < half and all(tail.tokens[:half] == tails[0].tokens[:half] for tail in tails):
            return whole.window(0, len(whole.tokens) - same), [tail.window(met, len(tail.tokens)) for tail in tails]
    return TokenSequence((), ()), tokenise_all([[prompt, choice] for choice in choices], tokenizer, prefix)


def tokenise_all(texts: list[list[str]], tokenizer: Any, prefix: Tokens = ()) -> list[TokenSequence]:
    """`tokenise` for several texts in one call, which costs little more than a single text."""
    bounds = [list(itertools.accumulate(map(len, pieces))) for pieces in texts]
    joined = ["".join(pieces) for pieces in texts]
    fast = getattr(tokenizer, "is_fast", False)
    cost = sum(ends[-1] if fast else sum(ends) for ends in bounds)
    if cost > LONGEST:
        raise UserError(
            f"the text is too long: tokenising it takes {cost:,} characters, and a row may have at most {LONGEST:,}. "
            "Split it into several rows."
        )
    if not fast:
        slow = (_without_offsets(text, ends, tokenizer) for text, ends in zip(joined, bounds, strict=True))
        return [_without(prefix, sequence) for sequence in slow]
    found = tokens_of(joined, tokenizer, add_special_tokens=False, return_offsets_mapping=True)
    sequences = []
    for tokens, offsets, limits in zip(found["input_ids"], found["offset_mapping"], bounds, strict=True):
        ends = tuple(end for _, end in offsets)
        owners = tuple(min(bisect_left(limits, end), len(limits) - 1) for end in ends)
        sequences.append(_without(prefix, TokenSequence(tuple(tokens), owners, ends)))
    return sequences


def _without(prefix: Tokens, sequence: TokenSequence) -> TokenSequence:
    """Drops ``prefix``: a chat template writes the beginning of a text itself, and it must not appear twice."""
    skip = len(prefix) if sequence.tokens[: len(prefix)] == prefix else 0
    return TokenSequence(sequence.tokens[skip:], sequence.owners[skip:], sequence.ends[skip:])


def _without_offsets(text: str, bounds: list[int], tokenizer: Any) -> TokenSequence:
    """For tokenizers written in Python: a token ends in a piece if the text up to the piece's end includes it."""
    bare = partial(tokens_of, tokenizer=tokenizer, add_special_tokens=False)
    tokens = bare(text)["input_ids"]
    parts = [bare(text[:bound])["input_ids"] for bound in bounds[:-1]]
    counts = [len(common_prefix([part, tokens])) for part in parts]
    owners = tuple(sum(count <= index for count in counts) for index in range(len(tokens)))
    return TokenSequence(tuple(tokens), owners, (None,) * len(tokens))


def common_prefix(sequences: list[Any]) -> tuple[Any, ...]:
    """The longest common prefix of the sequences."""
    same = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*sequences, strict=False))
    return tuple(column[0] for column in same)


@lru_cache(maxsize=4)
def beginning(tokenizer: Any) -> Tokens:
    """Tokens that the tokenizer adds before every text by default: mostly one, or none."""
    bare = tokens_of("a", tokenizer, add_special_tokens=False)["input_ids"]
    full = tokens_of("a", tokenizer)["input_ids"]
    starts = (start for start in range(len(full)) if full[start : start + len(bare)] == bare)
    return tuple(full[: next(starts, 0)]) if bare else ()


def with_eos(sequence: TokenSequence, tokenizer: Any, owner: int, templated: bool = False) -> TokenSequence:
    """The sequence with the end-of-sequence token, if the tokenizer has one and no special token is already there; in a
    ``templated`` text, that may be before a line break."""
    eos, last = tokenizer.eos_token_id, reversed(sequence.tokens)
    there = next((token for token in last if not (templated and _decodes_to_nothing(token, tokenizer))), None)
    if eos is None or there in _special(tokenizer):
        return sequence
    return TokenSequence((*sequence.tokens, eos), (*sequence.owners, owner))


def _decodes_to_nothing(token: int, tokenizer: Any) -> bool:
    """Whether a token is only spaces or line breaks."""
    return token not in _special(tokenizer) and not text_of([token], tokenizer).strip()


@lru_cache(maxsize=4)
def _special(tokenizer: Any) -> frozenset[int]:
    """Special tokens that can end a text; the one for unknown words is special too, but ends nothing."""
    special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return frozenset(special - {tokenizer.unk_token_id} | {tokenizer.eos_token_id})
