"""Which characters of a conversation's text the assistant writes, found by rendering it several times.

All that is known of a chat template is its output (unless it marks the turns itself), so boundaries are differences:

- A turn **starts** where its prompt ends: the turns before it, with the generation prompt. What the template writes
  after that (an empty reasoning block, say) is for the model to write.
- Its **content ends** where a rare mark put after the content appears (see `sparsezo_gui.engine.sandbox.marks`).
- The **end-of-turn marker** follows (see `sparsezo_gui.engine.sandbox.ends`).
- A turn that **calls tools** ends as the conversation up to it does.

Runs in the confined process for templates, and in the main process for a tokenizer that renders conversations in
Python.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

from sparsezo_gui.engine.sandbox.ends import Ending, Message, Write, attempt, form, formed, pattern, seam, shared
from sparsezo_gui.engine.sandbox.marks import Marks, Span, calls
from sparsezo_gui.engine.sandbox.writing import THOUGHTS, filled, ignored_in

Generated = Callable[[list[Message]], tuple[str, list[Span]]]
"""The text of messages, and the spans in it that the template marks as the assistant's."""


def split(
    write: Write, messages: list[Message], trained: Sequence[int], ending: Ending, special: Sequence[str],
    generated: Generated | None = None, tools: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """The ``text`` of ``messages``, and in it the ``spans`` that the ``trained`` assistant turns write.

    ``prompt`` is the text before the last of them, and ``answer`` what that turn says. ``ignored`` names fields,
    roles and 'tools' that do not appear in the text; ``left_out`` says that a trained turn's content is missing.
    """
    read = form(write)
    write, generated = formed(write, read), generated and formed(generated, read)
    whole, messages = filled(write, messages)
    ignored = ignored_in(write, messages, whole, tools)
    if "tool_calls" in ignored:
        trained = [index for index in trained if messages[index].get("content") or not calls(messages[index])]
    found = _Turns(write, messages, whole, ending, pattern(special))
    last, marks = max(trained, default=-1), found.marks
    if generated:
        others = found.spans(len(messages)) if len(trained) < len(marks.assistants) else {}
        spans, left_out = found.generated(generated, trained, others), marks.unwritten(trained)
    else:
        every = found.spans(last)
        spans, left_out = [every[index] for index in sorted(trained)], bool(marks.lost & set(trained))
    start, end = spans[-1] if spans else (0, 0)
    asked = found.asked(last) if spans else ""
    if generated:  # the marked span may include what opens the turn
        start = min(end, max(start, seam(asked or "", whole, found.special)))
    answer = whole[start : found.ends[last]] if last in found.ends else _unsigned(whole[start:end], ending, special)
    if asked is not None and not ending.asks:
        asked += ending.prompt
    return {
        "text": whole, "spans": [span for span in spans if span[0] < span[1]], "ignored": ignored,
        "left_out": left_out, "prompt": whole[:start] if asked is None else asked, "answer": answer,
    }  # fmt: skip


def _unsigned(text: str, ending: Ending, special: Sequence[str]) -> str:
    """What a turn says, without its end-of-turn marker."""
    text = text.rstrip()
    signs = (ending.last.strip(), ending.middle.strip(), *special)
    return text.removesuffix(next((sign for sign in signs if sign and text.endswith(sign)), ""))


def _merged(spans: Sequence[Span]) -> list[Span]:
    """Adjacent spans joined: a template may mark the end-of-turn marker separately."""
    found: list[Span] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            start, end = found[-1][0], max(end, found.pop()[1])
        found.append((start, end))
    return found


class _Turns:
    """Finds the assistant's turns in the ``whole`` text. ``ends`` says where contents end, by turn."""

    def __init__(
        self, write: Write, messages: list[Message], whole: str, ending: Ending, special: re.Pattern[str]
    ) -> None:
        self._write, self._messages, self._whole, self._ending = write, messages, whole, ending
        self.special = special
        self.marks = Marks(write, messages, whole)
        self.ends: dict[int, int] = {}

    def spans(self, last: int) -> dict[int, Span]:
        """Start and end of each assistant turn up to ``last``."""
        found, floor = {}, 0
        for index in self.marks.assistants:
            if index <= last:
                found[index] = self._span(index, floor)
                floor = found[index][1]
        return found

    def generated(self, marked: Generated, trained: Sequence[int], every: dict[int, Span]) -> list[Span]:
        """The spans the template marks itself, each with its end-of-turn marker; of the ``trained`` turns only."""
        text, spans = marked(self._messages)
        if text != self._whole:
            raise ValueError("it writes a different text each time")
        others = [span for index, span in every.items() if index not in trained]
        kept = [(start, end) for start, end in spans if not any(start < to and end > at for at, to in others)]
        return _merged([(start, self._signed(end) or end) for start, end in kept])

    def asked(self, index: int) -> str | None:
        """The prompt of a turn."""
        return attempt(self._write, self._messages[:index], True)

    def _span(self, index: int, floor: int) -> Span:
        """Start and end of a turn that starts at ``floor`` or later."""
        content = None if calls(self._messages[index]) else self.marks.content_end(index, floor)
        start = self._start(index, floor, content)
        if content is None:
            end = max(start, self._turn_end(index, start))
            following = self.marks.others.get(index + 1, (end, end))[0]  # a turn that is left out still ends before it
            return min(start, following), min(end, following)
        self.ends[index] = content
        return min(start, content), self._end(index, content)

    # Where a turn starts

    def _start(self, index: int, floor: int, content: int | None) -> int:
        asked, prompt = self.asked(index), self._ending.prompt
        if asked is not None and self._whole.startswith(asked) and len(asked) >= floor:
            if self._ending.asks:
                return len(asked)
            opened = len(asked) + len(prompt) * self._whole.startswith(prompt, len(asked))
            if content is None or opened > len(asked):
                return opened
            begin = self.marks.content_start(index, floor, content)
            return len(asked) if not self._whole[len(asked) : begin].strip() else begin
        if (answer := self._after_asking(index, floor)) is not None:
            if self._ending.asks or content is None:
                return answer
            begin = self.marks.content_start(index, floor, content)
            return answer if not self._whole[answer:begin].strip() else begin
        if content is None:
            at = self._whole.find(prompt, floor)
            return at + len(prompt) if at >= 0 else floor
        begin = self.marks.content_start(index, floor, content)
        at = self._whole.rfind(prompt, floor, begin) if prompt else -1
        return at + len(prompt) if at >= 0 else begin

    def _after_asking(self, index: int, floor: int) -> int | None:
        """Where a turn starts: after the part of its prompt that is also in the text."""
        if index - 1 not in self.marks.others or self.marks.others[index - 1][1] < floor:
            return None
        before = [*self._messages[: index - 1], self.marks.framed(index - 1)]
        _, mark, asking = (attempt(self._write, before, True) or "").rpartition(self.marks.mark(index - 1))
        place = self.marks.others[index - 1][1]
        same = seam(asking, self._whole[place:], self._tags)
        return place + same if mark and same else None

    @cached_property
    def _tags(self) -> re.Pattern[str]:
        return re.compile(rf"{self.special.pattern}|</?\w+>")

    # Where it ends

    def _end(self, index: int, content: int) -> int:
        """The end of a turn whose content ends at ``content``."""
        last = index == len(self._messages) - 1
        if signed := self._signed(content, last):
            return signed
        sign = self._ending.last if last else self._ending.middle
        if not self._ending.middle.strip() and not (last and sign.strip()):  # no marker; maybe a line break
            own = self._messages[index]["content"]
            content += shared(self._whole[content:], own[len(own.rstrip()) :])
            return content + len(sign) * self._whole.startswith(sign, content)
        return self._turn_end(index, content)

    def _signed(self, place: int, last: bool = True) -> int | None:
        """End of the marker that follows ``place``, possibly after spaces."""
        rest = self._whole[place:]
        blank = len(rest) - len(rest.lstrip())
        for sign in (self._ending.last, self._ending.middle)[not last :]:
            if sign.strip() and rest.startswith(sign.lstrip(), blank):
                return place + blank + len(sign.lstrip())
        return None

    def _turn_end(self, index: int, place: int) -> int:
        """End of what the conversation up to this turn has after ``place``."""
        upto = self._whole
        if index < len(self._messages) - 1:
            upto = attempt(self._write, self._messages[: index + 1], False) or ""
            if (end := self._before_next(index, place, upto)) is not None:
                return end
        piece = self._whole[place : shared(self._whole, upto)]
        signs = [found.end() for found in self.special.finditer(piece) if found[0] not in self._ending.openers]
        if piece.strip():
            end = place + (signs[-1] if signs else len(piece.rstrip()))
            blank = self._ending.middle
            return end if signs or blank.strip() else end + len(blank) * self._whole.startswith(blank, end)
        sign = (self._ending.middle or self._ending.last).strip()
        at = self._whole.find(sign, place) if sign else -1
        return at + len(sign) if at >= 0 else place

    def _before_next(self, index: int, place: int, upto: str) -> int | None:
        """The end of a turn from the text between it and the next content: the last marker it has in the conversation
        ``upto`` it, or else what the template adds there."""
        if index + 1 not in self.marks.others:
            return None
        following = self.marks.others[index + 1][0]
        if sign := self._last_sign(index, upto):
            at = self._whole.rfind(sign, place, following)
            return at + len(sign) if at >= 0 else None
        marked = [*self._messages[: index + 1], self.marks.framed(index + 1)]
        text, mark, _ = (attempt(self._write, marked, False) or "").partition(self.marks.mark(index + 1))
        opening = text.removeprefix(upto)
        found = mark and text.startswith(upto) and self._whole.endswith(opening, place, following)
        return following - len(opening) if found else None

    def _last_sign(self, index: int, upto: str) -> str:
        """The last marker of a turn in the conversation ``upto`` it."""
        own = upto[seam(self.asked(index) or "", upto, self.special) :]
        return next((sign for sign in reversed(self.special.findall(own)) if sign not in self._ending.openers), "")


def pieces(text: str, spans: Sequence[Span]) -> list[tuple[str, bool]]:
    """``text`` in pieces, each with whether it is in one of the ``spans``."""
    cuts = [0, *(place for span in spans for place in span), len(text)]
    return [(text[a:b], number % 2 == 1) for number, (a, b) in enumerate(pairwise(cuts)) if a < b]


__all__ = ["THOUGHTS", "Generated", "Span", "pieces", "split"]
