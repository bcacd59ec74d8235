"""Which characters of a conversation's text the assistant writes, found by writing it several times.

Nothing is known of a chat template but what it writes (unless it marks it itself), so boundaries are differences:

- A turn **starts** where the prompt ends that asks for it: the turns before it, with the generation prompt. What the
  template writes after that (an empty thought, say) is the model's to write.
- Its **content ends** where a rare mark after the content comes out. A text without its marks must be the text.
- The **sign** that ends a turn follows: what comes after the content of a small sample, in the middle and at the very
  end of a conversation, without what opens another turn.
- A turn that **calls tools** ends as the conversation up to it does.

Runs in the confined process for templates, and beside the tokenizer for one that writes conversations in Python.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]
Span = tuple[int, int]
Write = Callable[[list[Message], bool], str]
"""Writes messages, with or without the generation prompt at their end; raises what the template refuses."""
Generated = Callable[[list[Message]], list[Span]]
"""The spans that a template marks itself."""

THOUGHTS = ("reasoning_content", "thinking", "reasoning")
"""Fields that hold what an assistant thinks before it answers."""
_SAMPLE = [
    {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}, {"role": "user", "content": "Go"}
]  # fmt: skip
_SIGNS = range(0xE000, 0xF8FF)  # characters of nobody


class LeftOut(Exception):
    """A turn whose content does not come out."""


@dataclass(frozen=True)
class Ending:
    """What a template writes after an answer: in the middle of a conversation, and at its very end.

    ``openers`` are special tokens that begin another turn, ``prompt`` is what asks for an answer, and ``asks`` says
    whether the template writes that only where it is told to.
    """

    middle: str = ""
    last: str = ""
    openers: frozenset[str] = frozenset()
    prompt: str = ""
    asks: bool = True


def ending(write: Write, special: Sequence[str]) -> Ending:
    """How answers end; ``special`` are the texts of the tokenizer's special tokens."""
    found = pattern(special)
    try:
        asked, alone = write(_SAMPLE[:1], True), write(_SAMPLE[:1], False)
        question = _pieces(write, 0)[-1]
        tail = _pieces(write, 1)[-1]
        middle = _pieces(write, 1, 2)[1].rpartition("Go")[0]
    except Exception:  # a template may refuse what is no conversation to it: then turns end as they do in the text
        return Ending()
    asks, prompt = asked != alone, asked[_seam(asked, alone, found) :]
    same = _whole(tail[: _shared(tail, middle)], found)
    openers = {*found.findall(middle)[1:], *found.findall(prompt)} - set(found.findall(same)[:1])
    common = _until(same, found, openers).rstrip()
    openers |= set() if asks else set(found.findall(question)) - set(found.findall(common))
    last = _until(tail, found, openers)
    last = last.rstrip() or last
    if not found.search(last) and not asks and not middle.startswith(last):  # the opening of another turn, in words
        last = ""
    return Ending(common or (last if middle.startswith(last) else ""), last, frozenset(openers), prompt, asks)


def _pieces(write: Write, *marked: int) -> list[str]:
    """The text of the sample up to the last of the ``marked`` turns, split after the content of each."""
    sign = chr(_SIGNS[0])
    turns = [{**turn, "content": turn["content"] + sign * (index in marked)} for index, turn in enumerate(_SAMPLE)]
    pieces = write(turns[: marked[-1] + 1], False).split(sign)
    if len(pieces) != len(marked) + 1:
        raise LeftOut
    return pieces


def _seam(text: str, other: str, found: re.Pattern) -> int:
    """Where ``text`` parts from ``other``, between special tokens."""
    at = _shared(text, other)
    return next((match.start() for match in found.finditer(text) if match.start() < at < match.end()), at)


def _shared(text: str, other: str) -> int:
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
    words = sorted((word for word in special if word.strip()), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, words)) or r"(?!)")
