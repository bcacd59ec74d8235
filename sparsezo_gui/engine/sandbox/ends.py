"""What a chat template writes after an answer, found by rendering a small conversation several times.

All that is known of a template is its output: the end-of-turn marker is what follows the content of an answer, in the
middle and at the very end of a conversation, without what opens the next turn. Runs in the confined process for
templates, and in the main process for a tokenizer that renders conversations in Python.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]
Form = Callable[[list[Message]], list[Message]]
Write = Callable[..., str]
"""Renders messages, with the generation prompt at the end if the second argument is true; raises what the template
raises. Further values for the template are keyword arguments."""

_SAMPLE = [
    {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}, {"role": "user", "content": "Go"}
]  # fmt: skip
_SIGN = "\ue000"  # a private-use character


@dataclass(frozen=True)
class Ending:
    """What a template writes after an answer: in the middle of a conversation, and at its very end.

    ``openers`` are special tokens that begin another turn, ``prompt`` is what opens the assistant's turn, and ``asks``
    says whether the template writes that after a question on request.
    """

    middle: str = ""
    last: str = ""
    openers: frozenset[str] = frozenset()
    prompt: str = ""
    asks: bool = True


def ending(write: Write, special: Sequence[str]) -> Ending:
    """How answers end; ``special`` are the tokenizer's special tokens as text."""
    found, write = pattern(special), formed(write, form(write))
    try:
        asked, alone = write(_SAMPLE[:1], True), write(_SAMPLE[:1], False)
        question = _pieces(write, 0)[-1]
        tail = _pieces(write, 1)[-1]
        opening, middle, _ = _pieces(write, 1, 2)
        middle = middle.rpartition("Go")[0]
    except Exception:  # a template may refuse the sample: turns then end as they do in the text
        return Ending()
    asks, prompt = asked != alone, asked[seam(asked, alone, found) :]
    if not asks:
        prompt = opening.removesuffix("Yes")[len(alone) :] if opening.startswith(alone) else ""
        prompt = prompt if prompt.strip() else ""
    same = _whole(tail[: shared(tail, middle)], found)
    openers = {*found.findall(middle)[1:], *found.findall(prompt)} - set(_closing(same, question, found))
    common = _until(same, found, openers).rstrip()
    if not common and asks:  # not the marker of the very end, and both roles' turns open alike
        before = _until(middle, found, found.findall(prompt))
        common = _whole(before, found) if len(before) < len(middle) else ""
    openers |= set() if asks else set(found.findall(question)) - set(found.findall(common))
    last = _until(tail, found, openers)
    last = last.rstrip() or last
    if not found.search(last) and not asks and not middle.startswith(last):  # the next turn opens in words
        last = ""
    both = tail[: shared(tail, middle)]
    blank = both[: len(both) - len(both.lstrip())]  # no marker, but maybe a line break
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
    except Exception:  # a template can raise anything
        return None


def _closing(same: str, question: str, found: re.Pattern[str]) -> list[str]:
    """The markers in ``same`` that end an answer: the first, and one right after it that ends a ``question`` too."""
    markers = [*found.finditer(same)]
    if not markers:
        return []
    first, *others = markers
    second = others[0] if others and others[0].start() == first.end() else None
    both = second and found.findall(question)[:1] == [second[0]] != [first[0]]
    return [first[0], second[0]] if second and both else [first[0]]


def _pieces(write: Write, *marked: int) -> list[str]:
    """The sample's text up to the last of the ``marked`` turns, split after each content."""
    turns = [{**turn, "content": turn["content"] + _SIGN * (index in marked)} for index, turn in enumerate(_SAMPLE)]
    pieces = write(turns[: marked[-1] + 1], False).split(_SIGN)
    if len(pieces) != len(marked) + 1:
        raise ValueError("a turn is left out")
    return pieces


def seam(text: str, other: str, found: re.Pattern[str]) -> int:
    """Where ``text`` and ``other`` start to differ, rounded to a boundary between special tokens."""
    at = shared(text, other)
    return next((match.start() for match in found.finditer(text) if match.start() < at < match.end()), at)


def shared(text: str, other: str) -> int:
    """Length of the common prefix in characters."""
    low, high = 0, min(len(text), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if text[low:middle] == other[low:middle] else (low, middle - 1)
    return low


def _whole(text: str, found: re.Pattern[str]) -> str:
    """``text`` up to the end of its last special token."""
    return text[: max((match.end() for match in found.finditer(text)), default=0)]


def _until(text: str, found: re.Pattern[str], openers: Iterable[str]) -> str:
    return text[: next((match.start() for match in found.finditer(text) if match[0] in openers), len(text))]


def pattern(special: Iterable[str]) -> re.Pattern[str]:
    """A pattern that finds special tokens in a text."""
    words = sorted((word for word in special if word.strip()), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, words)) or r"(?!)")
