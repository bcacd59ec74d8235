"""Where contents are in the text of a conversation: found by rendering it with rare marks in them.

Without the marks the text must be unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate

from sparsezo_gui.engine.sandbox.ends import Message, Write, attempt

Span = tuple[int, int]


class Marks:
    """Finds contents in the ``whole`` text of ``messages``. ``assistants`` are the indices of the assistant's turns,
    ``lost`` those of which `content_end` found that their content does not appear."""

    def __init__(self, write: Write, messages: list[Message], whole: str) -> None:
        self._write, self._messages, self._whole = write, messages, whole
        self.assistants = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
        self.lost: set[int] = set()

    @cached_property
    def _sign(self) -> str:
        """A character that does not occur in the conversation."""
        there = self._whole + "".join(str(message) for message in self._messages)
        return next(sign for sign in map(chr, range(0xE000, 0xF900)) if sign not in there)

    def mark(self, index: int) -> str:
        """The mark for the content of a turn."""
        return f"{self._sign}{index}{self._sign}"

    def framed(self, index: int) -> Message:
        """The turn with a mark before and after its content, inside the surrounding spaces."""
        content = self._messages[index].get("content") or ""
        inner = content.strip()
        before, _, after = content.partition(inner) if inner else (content, "", "")
        framed = before + self.mark(index) + inner + self.mark(index) + after
        return {**self._messages[index], "content": framed}

    def _marked_end(self, index: int) -> Message:
        """The turn with a mark after its content, before the spaces at its end."""
        content = self._messages[index].get("content") or ""
        kept = content.rstrip()
        return {**self._messages[index], "content": kept + self.mark(index) + content[len(kept) :]}

    def _text(self, index: int, message: Message) -> str:
        """The text with ``message`` as the turn at ``index``."""
        return attempt(self._write, [*self._messages[:index], message, *self._messages[index + 1 :]], False) or ""

    def _positions(self, messages: list[Message]) -> dict[int, list[int]]:
        """Positions of the marks in ``messages`` by turn, in the text without marks; {} if they change the text."""
        pieces = re.split(f"{self._sign}(\\d+){self._sign}", attempt(self._write, messages, False) or "")
        if "".join(pieces[::2]) != self._whole:
            return {}
        found: dict[int, list[int]] = {}
        for place, number in zip(accumulate(map(len, pieces[:-1:2])), pieces[1::2], strict=True):
            found.setdefault(int(number), []).append(place)
        return found

    @cached_property
    def others(self) -> dict[int, Span]:
        """Start and end of the contents of the other roles' turns; {} if marks change the text. How a template renders
        earlier turns may depend on later ones, so prefixes cannot show it."""
        own = set(self.assistants)
        found = self._positions([
            each if index in own else self.framed(index) for index, each in enumerate(self._messages)
        ])  # fmt: skip
        return {index: (places[0], places[1]) for index, places in found.items() if len(places) == 2}

    @cached_property
    def _ends(self) -> dict[int, list[int]]:
        """Positions of the ends of the assistant's contents, from one text with all marks; {} if they change it."""
        marked = {index: self._marked_end(index) for index in self.assistants if not calls(self._messages[index])}
        return self._positions([marked.get(index, each) for index, each in enumerate(self._messages)])

    def content_end(self, index: int, floor: int) -> int | None:
        """End of the content of a turn that starts at ``floor`` or later; None if it is not found."""
        if index in self._ends:
            return next((place for place in self._ends[index] if place >= floor), None)
        mark = self.mark(index)
        text = self._text(index, self._marked_end(index))
        at = text.find(mark, floor)
        if at >= 0:
            return at if self._whole.startswith(text[:at]) else None
        if mark not in (self._text(index, {**self._messages[index], "content": mark}) or mark):
            self.lost.add(index)
        return None

    def content_start(self, index: int, floor: int, end: int) -> int:
        """Start of the content that ends at ``end``."""
        content = self._messages[index]["content"].rstrip()
        for each in (content, content.lstrip()):
            if self._whole.endswith(each, floor, end):
                return end - len(each)
        text = self._text(index, {**self._messages[index], "content": self._sign + content.lstrip()})
        at = text.find(self._sign)
        return at if floor <= at <= end and self._whole.startswith(text[:at]) else floor

    def unwritten(self, trained: Sequence[int]) -> bool:
        """Whether the content of one of the turns is missing from the text."""
        said = [each for each in trained if self._messages[each].get("content") and not calls(self._messages[each])]
        marked = {index: {**self._messages[index], "content": self.mark(index)} for index in said}
        text = attempt(self._write, [marked.get(index, each) for index, each in enumerate(self._messages)], False)
        return text is not None and any(self.mark(index) not in text for index in said)


def calls(message: Message) -> bool:
    """Whether a turn calls tools."""
    return bool(message.get("tool_calls"))
