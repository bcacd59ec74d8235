"""An example as the model sees it: its tokens as text, and which of them are trained.

The text of a token is the slice of the example's text since the previous token, so that together they are the text to
the character; tokens are decoded only if they cannot be found in the text. Trained tokens are the scored ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from sparsezo_gui.answers import Pieces
from sparsezo_gui.engine.data.encode import Encoded
from sparsezo_gui.engine.data.examples import Example
from sparsezo_gui.engine.data.tokenise import Tokens, beginning, tokenise
from sparsezo_gui.untrusted import outside

SHOWN = 10_000  # characters of an example in the window; a longer one is shortened in the middle
_PENDING = 8  # at most this many tokens make up a character


def trained_sequence(encoded: Encoded) -> tuple[Tokens, tuple[int, ...]]:
    """The tokens, with the correct candidate and the last token, and the positions of the trained ones."""
    row = next(row for row in encoded.rows if encoded.label in row.choices)
    scored = [index for index, choice in enumerate(row.choices) if choice == encoded.label]
    learned = tuple(row.positions[index] + 1 for index in scored)
    if encoded.choices or learned[-1] == len(row.tokens):
        return (*row.tokens[: learned[-1]], row.targets[scored[-1]]), learned
    return row.tokens, learned


def pieces(example: Example, encoded: Encoded | None, tokenizer: Any = None) -> Pieces:
    """The text of an example, each piece with whether it is trained: token by token if ``encoded``."""
    if encoded is None:
        answer = ((example.choices[example.label], True),) if example.choices else ()
        return (*example.segments, *answer)
    tokens, learned = trained_sequence(encoded)
    chosen = set(learned)
    texts, rest = _by_text(example.text, tokens, encoded.cut, tokenizer)
    shown = tuple((text, place in chosen) for place, text in enumerate(texts or _decoded(tokens, tokenizer)))
    # Nothing is computed after the last trained token, but a conversation is shown to its end.
    last, trained = example.segments[-1]
    return (*shown, (rest, False)) if rest and not trained and not encoded.choices and last.endswith(rest) else shown


def merged(shown: Pieces) -> list[tuple[str, bool]]:
    """Consecutive pieces that are alike (trained or not), joined."""
    parts = itertools.groupby(shown, key=lambda piece: piece[1])
    return [("".join(text for text, _ in part), learned) for learned, part in parts]


def shortened(shown: Pieces) -> tuple[Pieces, int]:
    """Beginning and end of a text too long for the window, with an ellipsis between; and how much is left out."""
    over = sum(len(text) for text, _ in shown) - SHOWN
    if over <= 0:
        return shown, 0
    kept, start, first = [], 0, SHOWN // 2  # the middle is [first, first + over)
    for text, trained in shown:
        begin, end = max(0, first - start), max(0, first + over - start)
        sign = "…" if 0 <= first - start < len(text) else ""
        kept.append((text[:begin] + sign + text[end:], trained))
        start += len(text)
    return tuple(part for part in kept if part[0]), over


def _by_text(text: str, tokens: Tokens, cut: int, tokenizer: Any) -> tuple[list[str], str]:
    """Texts of the tokens by their ends in ``text``, and what follows them; none if they are not found in it."""
    prefix = beginning(tokenizer)
    skip = len(prefix) if tokens[: len(prefix)] == prefix else 0
    whole, kept = tokenise([text], tokenizer, prefix), tokens[skip:]
    if None in whole.ends:
        return [], ""
    # All of it, or without a truncated beginning or end; the end-of-sequence token may follow.
    count = len(whole.tokens)
    for start in {0, max(0, cut), max(0, count - len(kept)), max(0, count - len(kept) + 1)}:
        stop = min(count, start + len(kept))
        if kept[: stop - start] == whole.tokens[start:stop] and len(kept) - (stop - start) < 2:
            break
    else:
        return [], ""
    stops = list(itertools.accumulate((end or 0 for end in whole.ends), max, initial=0))
    inner = [text[stops[place] : stops[place + 1]] for place in range(start, stop)]
    after = kept[stop - start :]
    return [*_names(tokens[:skip], tokenizer), *inner, *_names(after, tokenizer)], "" if after else text[stops[stop] :]


def _names(tokens: Tokens, tokenizer: Any) -> list[str]:
    return list(map(str, tokenizer.convert_ids_to_tokens(list(tokens))))


def _decoded(tokens: Tokens, tokenizer: Any) -> Iterator[str]:
    """What each token adds to the text before it: nothing while a character is incomplete."""
    start = read = 0
    for end in range(1, len(tokens) + 1):
        before, now = (_decode(tokens[start:stop], tokenizer) for stop in (read, end))
        if now.endswith("�") and end < len(tokens) and end - read < _PENDING:
            yield ""
            continue
        yield now[len(before) :]
        start, read = read, end


def _decode(tokens: Tokens, tokenizer: Any) -> str:
    with outside(tokenizer.name_or_path, "its tokenizer fails on these tokens", "Change the text."):
        return str(tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False))
