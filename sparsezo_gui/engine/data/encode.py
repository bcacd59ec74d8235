"""Examples to token rows: no padding, scored positions marked, and a single row where one is enough.

The text of a sequence is tokenised once, as a whole, because tokenizers merge characters across the boundaries of its
pieces; a token belongs to the piece in which it ends.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any

from sparsezo_gui.engine.data.examples import Example
from sparsezo_gui.errors import UserError
from sparsezo_gui.untrusted import outside

Tokens = tuple[int, ...]
LONGEST = 16_000_000  # characters tokenised for one row, as many as a template may write
_CURE = "Download or copy the model again, or change the text."
SEAM = 4096  # characters at the end of a prompt that are tokenised again with each candidate


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


@dataclass(frozen=True, slots=True)
class Sequence:
    """Tokens after those that begin every text.

    ``owners`` are the segments in which they end, ``ends`` their end positions in characters, if known.
    """

    tokens: Tokens
    owners: tuple[int, ...]
    ends: tuple[int | None, ...] = ()

    def first(self, owner: int) -> int:
        """Index of the first token of that segment or of a later one."""
        return next((index for index, own in enumerate(self.owners) if own >= owner), len(self.tokens))

    def window(self, start: int, size: int) -> Sequence:
        """``size`` tokens from ``start``."""
        return Sequence(self.tokens[start : start + size], self.owners[start : start + size])

    def then(self, other: Sequence) -> Sequence:
        """These tokens followed by those of ``other``."""
        return Sequence(self.tokens + other.tokens, self.owners + other.owners)


def tokens_of(text: str | list[str], tokenizer: Any, **options: Any) -> Any:
    """``text`` tokenised. Raises `UserError`: a tokenizer can work on most texts and fail on some."""
    with outside(tokenizer.name_or_path, "its tokenizer fails on this text", _CURE):
        return tokenizer(text, verbose=False, **options)


def text_of(tokens: Iterable[int], tokenizer: Any) -> str:
    """The text of ``tokens``, without special ones. Raises `UserError`."""
    with outside(tokenizer.name_or_path, "its tokenizer fails on these tokens", _CURE):
        return str(tokenizer.decode(list(tokens), skip_special_tokens=True))


def encode(example: Example, tokenizer: Any, max_tokens: int) -> Encoded:
    """Token rows of an example; no sequence, including its answer, is longer than ``max_tokens``.

    A text that is too long loses its beginning (after the token that begins every text); an answer that is too long by
    itself loses its end. If the end of a text is trained (not in a choice), the end-of-sequence token is added and
    trained, unless the text already ends with a special token. What follows the last trained token is left out.
    Raises `UserError` if nothing is left to predict.
    """
    return _choice(example, tokenizer, max_tokens) if example.choices else _continued(example, tokenizer, max_tokens)


def _continued(example: Example, tokenizer: Any, max_tokens: int) -> Encoded:
    """A text with some trained segments: one row."""
    prefix, whole = begun(example, tokenizer)
    trained = [trained for _, trained in example.segments]
    if trained[-1]:
        whole = ended(whole, tokenizer, len(trained) - 1, example.templated)
    learned = [index for index, owner in enumerate(whole.owners) if trained[owner]]
    last = whole.first(max(index for index, train in enumerate(trained) if train))
    length = learned[-1] + 1 if learned else 0
    cut, start, size = _room(length, last, max_tokens, prefix)
    kept = whole.window(start, min(size, length - start))
    tokens = prefix + kept.tokens
    scored = [index for index, owner in enumerate(kept.owners, len(prefix)) if trained[owner] and index > 0]
    if not scored:
        raise UserError("there is no token to learn: the text is empty or a single token.")
    row = Row(
        tokens[:-1],
        tuple(index - 1 for index in scored),
        tuple(tokens[index] for index in scored),
        (0,) * len(scored),
    )
    prompt = prefix + kept.tokens[: max(0, last - start)]
    before = "".join(text for text, _ in example.segments[: len(trained) - 1 - trained[::-1].index(True)])
    if example.prompt and example.prompt != before:  # a template renders the prompt differently before an answer
        asked = prompt_tokens(example.prompt, tokenizer, example.templated)
        prompt = prefix + asked[len(prefix) :][-(size - 1) :]
    clipped = cut > start or any(trained[owner] for owner in whole.owners[:start])
    return Encoded((row,), 0, 0, prompt, example.references, cut, clipped=clipped)


def begun(example: Example, tokenizer: Any) -> tuple[Tokens, Sequence]:
    """The tokens that begin an example's text, and those of its segments.

    A chat template writes the beginning of a text itself, or intends that there is none.
    """
    prefix = beginning(tokenizer)
    return _begun(tokenise([text for text, _ in example.segments], tokenizer), prefix, example.templated)


def _begun(sequence: Sequence, prefix: Tokens, templated: bool) -> tuple[Tokens, Sequence]:
    there = sequence.tokens[: len(prefix)] == prefix
    return () if templated and not there else prefix, _without(prefix, sequence)


def prompt_tokens(text: str, tokenizer: Any, templated: bool = False) -> Tokens:
    """The tokens a model continues after ``text``: those that begin every text, once, and those of the text; never an
    end-of-sequence token, even if the tokenizer adds one. A ``templated`` text, written by a chat template, begins as
    written. Raises `UserError`."""
    prefix, found = _begun(tokenise([text], tokenizer), beginning(tokenizer), templated)
    return prefix + found.tokens


def _choice(example: Example, tokenizer: Any, max_tokens: int) -> Encoded:
    """A prompt and its candidates: a row each, or one for all if they differ only in their last token."""
    prompt = "".join(text for text, _ in example.segments)
    prefix = begun(example, tokenizer)[0] if example.templated else beginning(tokenizer)
    head, tails = tokenise_choices(prompt, example.choices, tokenizer, prefix)
    if example.ends:
        tails = [ended(tail, tokenizer, 1, example.templated) for tail in tails]
    longest, shared = max(tails, key=lambda tail: len(tail.tokens)), len(head.tokens)
    over, start, size = _room(shared + len(longest.tokens), shared + longest.first(1), max_tokens, prefix)
    left = head.window(start, shared)
    kept = [left.then(tail).window(max(0, start - shared), size) for tail in tails]
    rows = [_candidate(prefix, sequence, index) for index, sequence in enumerate(kept)]
    prompted = prefix + _common([sequence.tokens[: sequence.first(1)] for sequence in kept])
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


def _candidate(prefix: Tokens, sequence: Sequence, choice: int) -> Row:
    tokens = prefix + sequence.tokens
    scored = range(max(1, len(prefix) + sequence.first(1)), len(tokens))
    if not scored:
        raise UserError("no token of a candidate can be scored: the prompt or the candidate is empty.")
    return Row(
        tokens[:-1],
        tuple(index - 1 for index in scored),
        tuple(tokens[index] for index in scored),
        (choice,) * len(scored),
    )


def _join(rows: tuple[Row, ...]) -> Row:
    shared = len(_common([row.tokens for row in rows]))
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


def tokenise(pieces: list[str], tokenizer: Any, prefix: Tokens = ()) -> Sequence:
    """Tokens of the joined pieces, without those of ``prefix``, each with the index of the piece in which it ends."""
    return tokenise_all([pieces], tokenizer, prefix)[0]


def tokenise_choices(
    prompt: str, choices: tuple[str, ...], tokenizer: Any, prefix: Tokens = ()
) -> tuple[Sequence, list[Sequence]]:
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
        same = len(_common([whole.tokens[::-1], tails[0].tokens[::-1]]))
        met, half = len(tails[0].tokens) - same, tails[0].first(1) // 2
        if met < half and all(tail.tokens[:half] == tails[0].tokens[:half] for tail in tails):
            return whole.window(0, len(whole.tokens) - same), [tail.window(met, len(tail.tokens)) for tail in tails]
    return Sequence((), ()), tokenise_all([[prompt, choice] for choice in choices], tokenizer, prefix)


def tokenise_all(texts: list[list[str]], tokenizer: Any, prefix: Tokens = ()) -> list[Sequence]:
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
        sequences.append(_without(prefix, Sequence(tuple(tokens), owners, ends)))
    return sequences


def _without(prefix: Tokens, sequence: Sequence) -> Sequence:
    """Drops ``prefix``: a chat template writes the beginning of a text itself, and it must not appear twice."""
    skip = len(prefix) if sequence.tokens[: len(prefix)] == prefix else 0
    return Sequence(sequence.tokens[skip:], sequence.owners[skip:], sequence.ends[skip:])


def _without_offsets(text: str, bounds: list[int], tokenizer: Any) -> Sequence:
    """For tokenizers written in Python: a token ends in a piece if the text up to the piece's end includes it."""
    bare = partial(tokens_of, tokenizer=tokenizer, add_special_tokens=False)
    tokens = bare(text)["input_ids"]
    parts = [bare(text[:bound])["input_ids"] for bound in bounds[:-1]]
    counts = [len(_common([part, tokens])) for part in parts]
    owners = tuple(sum(count <= index for count in counts) for index in range(len(tokens)))
    return Sequence(tuple(tokens), owners, (None,) * len(tokens))


def _common(sequences: list[Any]) -> tuple[Any, ...]:
    """Longest common prefix."""
    same = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*sequences, strict=False))
    return tuple(column[0] for column in same)


@lru_cache(maxsize=4)
def beginning(tokenizer: Any) -> Tokens:
    """Tokens that the tokenizer adds before every text by default: mostly one, or none."""
    bare = tokens_of("a", tokenizer, add_special_tokens=False)["input_ids"]
    full = tokens_of("a", tokenizer)["input_ids"]
    starts = (start for start in range(len(full)) if full[start : start + len(bare)] == bare)
    return tuple(full[: next(starts, 0)]) if bare else ()


def ended(sequence: Sequence, tokenizer: Any, owner: int, templated: bool = False) -> Sequence:
    """The sequence with the end-of-sequence token, if the tokenizer has one and no special token is already there; in a
    ``templated`` text, that may be before a line break."""
    eos, last = tokenizer.eos_token_id, reversed(sequence.tokens)
    there = next((token for token in last if not (templated and _decodes_to_nothing(token, tokenizer))), None)
    if eos is None or there in _special(tokenizer):
        return sequence
    return Sequence((*sequence.tokens, eos), (*sequence.owners, owner))


def _decodes_to_nothing(token: int, tokenizer: Any) -> bool:
    """Whether a token is only spaces or line breaks."""
    return token not in _special(tokenizer) and not text_of([token], tokenizer).strip()


@lru_cache(maxsize=4)
def _special(tokenizer: Any) -> frozenset[int]:
    """Special tokens that can end a text; the one for unknown words is special too, but ends nothing."""
    special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return frozenset(special - {tokenizer.unk_token_id} | {tokenizer.eos_token_id})


def encode_text(text: str, tokenizer: Any, max_tokens: int) -> list[Encoded]:
    """Plain text of any length as examples of at most ``max_tokens``; nothing is cut.

    If no token begins every text, windows overlap by one token, so that each token but the very first is trained once.
    """
    prefix = beginning(tokenizer)
    tokens = ended(tokenise([text], tokenizer, prefix), tokenizer, 0).tokens
    size, overlap = max_tokens - len(prefix), 0 if prefix else 1
    starts = range(0, max(1, len(tokens) - overlap), size - overlap)
    windows = [prefix + tokens[start : start + size] for start in starts]
    return [_plain(window) for window in windows if len(window) > 1]


def _plain(tokens: Tokens) -> Encoded:
    row = Row(tokens[:-1], tuple(range(len(tokens) - 1)), tokens[1:], (0,) * (len(tokens) - 1))
    return Encoded((row,), 0, 0, (), (), 0)


def encode_text_blocks(texts: Iterable[str], tokenizer: Any, block: int, limit: int) -> list[Tokens]:
    """At most ``limit`` blocks of ``block`` tokens, from the concatenated texts.

    Texts are separated by the end-of-sequence token, and each block begins as the tokenizer begins a text. Texts are
    read as needed; too few give one short block.
    """
    prefix = beginning(tokenizer)
    size = block - len(prefix)
    held: list[int] = []
    for text in texts:
        held += ended(tokenise([text], tokenizer, prefix), tokenizer, 0).tokens
        if len(held) >= size * limit:
            break
    starts = range(0, len(held) - size + 1, size)[:limit] or ([0] if len(held) > 1 else [])
    return [prefix + tuple(held[start : start + size]) for start in starts]
