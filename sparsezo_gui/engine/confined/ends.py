"""What a chat template writes after an answer, found by writing a small conversation several times.

Nothing is known of a template but what it writes: the sign that ends a turn is what comes after the content of an
answer, in the middle and at the very end of a conversation, without what opens another turn. Runs in the confined
process for templates, and beside the tokenizer for one that writes conversations in Python.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]
Form = Callable[[list[Message]], list[Message]]
Write = Callable[..., str]
"""Writes messages, with the generation prompt at their end where the second argument is true; raises what the template
refuses. Further values for the template may be given by name."""

_SAMPLE = [
    {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}, {"role": "user", "content": "Go"}
]  # fmt: skip
_SIGN = "\ue000"  # a character of nobody


@dataclass(frozen=True)
class Ending:
    """What a template writes after an answer: in the middle of a conversation, and at its very end.

    ``openers`` are special tokens that begin another turn, ``prompt`` is what opens the assistant's, and ``asks`` says
    whether the template writes that after a question where it is told to.
    """

    middle: str = ""
    last: str = ""
    openers: frozenset[str] = frozenset()
    prompt: str = ""
    asks: bool = True


def ending(write: Write, special: Sequence[str]) -> Ending:
    """How answers end; ``special`` are the texts of the tokenizer's special tokens."""
    found, write = pattern(special), formed(write, form(write))
    try:
        asked, alone = write(_SAMPLE[:1], True), write(_SAMPLE[:1], False)
        question = _pieces(write, 0)[-1]
        tail = _pieces(write, 1)[-1]
        opening, middle, _ = _pieces(write, 1, 2)
        middle = middle.rpartition("Go")[0]
    except Exception:  # a template may refuse what is no conversation to it: then turns end as they do in the text
        return Ending()
    asks, prompt = asked != alone, asked[seam(asked, alone, found) :]
    if not asks:
        prompt = opening.removesuffix("Yes")[len(alone) :] if opening.startswith(alone) else ""
        prompt = prompt if prompt.strip() else ""
    same = _whole(tail[: shared(tail, middle)], found)
    openers = {*found.findall(middle)[1:], *found.findall(prompt)} - set(_closing(same, question, found))
    common = _until(same, found, openers).rstrip()
    if not common and asks:  # another sign than at the very end, before what opens the user's turn as the assistant's
        before = _until(middle, found, found.findall(prompt))
        common = _whole(before, found) if len(before) < len(middle) else ""
    openers |= set() if asks else set(found.findall(question)) - set(found.findall(common))
    last = _until(tail, found, openers)
    last = last.rstrip() or last
    if not found.search(last) and not asks and not middle.startswith(last):  # the opening of another turn, in words
        last = ""
    both = tail[: shared(tail, middle)]
    blank = both[: len(both) - len(both.lstrip())]  # without a sign, maybe the end of a line
    common = common or (last if middle.startswith(last) else "") or blank
    return Ending(common, last or blank, frozenset(openers), prompt, asks)


def form(write: Write) -> Form:
    """What messages are put through for the template: many that were made for pictures read contents in parts only."""

    def count(talk: list[Message]) -> int:
        return (attempt(write, talk, False) or "").count(_SIGN)

    talk = [{**turn, "content": _SIGN} for turn in _SAMPLE[:2]]
    return _in_parts if (plain := count(talk)) < len(talk) and count(_in_parts(talk)) > plain else list


def formed(write: Callable[..., Any], form: Form) -> Callable[..., Any]:
    """``write`` of messages that are put through ``form`` before."""
    return lambda messages, *others, **more: write(form(messages), *others, **more)


def _in_parts(messages: list[Message]) -> list[Message]:
    texts = ({"type": "text", "text": each.get("content")} for each in messages)
    return [
        {**each, "content": [text]} if isinstance(text["text"], str) else each
        for each, text in zip(messages, texts, strict=True)
    ]


def attempt(write: Write, messages: list[Message], prompt: bool, **more: Any) -> str | None:
    """The text; None where the template refuses it."""
    try:
        return write(messages, prompt, **more)
    except Exception:  # whatever a template raises
        return None


def _closing(same: str, question: str, found: re.Pattern) -> list[str]:
    """The signs in ``same`` that end an answer: the first, and one right after it that ends a ``question`` too."""
    first, *others = [*found.finditer(same)] or [None]
    second = others[0] if others and others[0].start() == first.end() else None
    both = second and found.findall(question)[:1] == [second[0]] != [first[0]]
    return [each[0] for each in ((first, second) if both else (first,)) if each]


def _pieces(write: Write, *marked: int) -> list[str]:
    """The text of the sample up to the last of the ``marked`` turns, split after the content of each."""
    turns = [{**turn, "content": turn["content"] + _SIGN * (index in marked)} for index, turn in enumerate(_SAMPLE)]
    pieces = write(turns[: marked[-1] + 1], False).split(_SIGN)
    if len(pieces) != len(marked) + 1:
        raise ValueError("a turn is left out")
    return pieces


def seam(text: str, other: str, found: re.Pattern) -> int:
    """Where ``text`` parts from ``other``, between special tokens."""
    at = shared(text, other)
    return next((match.start() for match in found.finditer(text) if match.start() < at < match.end()), at)


def shared(text: str, other: str) -> int:
    """How many characters both begin with."""
    low, high = 0, min(len(text), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if text[low:middle] == other[low:middle] else (low, middle - 1)
    return low


def _whole(text: str, found: re.Pattern) -> str:
    """``text`` to the end of its last special token."""
    return text[: max((match.end() for match in found.finditer(text)), default=0)]


def _until(text: str, found: re.Pattern, openers: Iterable[str]) -> str:
    return text[: next((match.start() for match in found.finditer(text) if match[0] in openers), len(text))]


def pattern(special: Iterable[str]) -> re.Pattern:
    """Finds special tokens in a text."""
    words = sorted((word for word in special if word.strip()), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, words)) or r"(?!)")
