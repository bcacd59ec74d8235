"""Prompts and answers of rows as conversations: those that are lists of turns, and those that go through the model's
chat template as one turn each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sparsezo_gui.answers import Task
from sparsezo_gui.engine.data import chat, columns
from sparsezo_gui.engine.data.conversations import (
    NO_PICTURES,
    Conversation,
    Messages,
    Unused,
    conversation,
    history,
    is_turns,
    messages,
    turns,
)
from sparsezo_gui.engine.data.record import Record
from sparsezo_gui.engine.data.template import Template
from sparsezo_gui.engine.sandbox.prompt import described
from sparsezo_gui.errors import UserError

_UNWANTED = "the answer is unwanted (label = false) but learned like the others. Leave these rows out"
_PICTURES = ("image", "images", "picture", "pictures")


class Dialogues:
    """The part of a `sparsezo_gui.engine.data.examples.Maker` that makes conversations of rows."""

    task: Task
    parts: dict[str, str]
    prompt: Template
    tokenizer: Any
    chat_template: bool
    unused: Unused
    _cell: Callable[..., Any]
    _optional: Callable[..., Any]
    _filled: Callable[..., str]

    def _rendered(self, talk: Conversation, row: Record) -> chat.Rendered:
        found = chat.render(talk, self.tokenizer, row.place)
        self._count(row, found.unused)
        return found

    def _count(self, row: Record, unused: frozenset[str]) -> None:
        pictures = any(not columns.empty(row.values.get(name)) and row.values[name] != [] for name in _PICTURES)
        named = {*self.parts.values(), *self.prompt.used}
        unwanted = self.task.kind == "completion" and row.values.get("label") is False and "label" not in named
        self.unused.add(unused | ({NO_PICTURES} if pictures else set()) | ({_UNWANTED} if unwanted else set()))

    def _templated(self, row: Record) -> bool:
        """Whether a row goes through the model's chat template: a prompt that is a conversation always does."""
        return self.chat_template or self._conversational(row) or self._implicit_prompt

    @property
    def _implicit_prompt(self) -> bool:
        """Whether the answers to compare are complete conversations."""
        return self.task.kind == "preference" and self.prompt.bundled and "prompt" not in self.parts

    def _conversational(self, row: Record) -> bool:
        return self.prompt.bundled and "prompt" in self.parts and is_turns(self._optional(row, "prompt"))

    def _conversation(self, row: Record, part: str) -> Conversation:
        """The conversation made of a row's prompt and one of its answers; only the answer is trained."""
        before, value = self._before(row), self._cell(row, part)
        if is_turns(value):
            talk, read = turns(value, row.place), messages(value, row.place)
            if read[0]["role"] in ("system", "user"):  # it includes the prompt
                before, talk = talk[: _opening(read)], talk[_opening(read) :]
        else:
            talk = [{"role": "assistant", "content": self._answers(row, part)[0]}]
        extra = {part: self._optional(row, part) for part in ("system", "tools") if part not in self.prompt.used}
        return conversation([*before, *talk], row.place, **extra, first=len(before))

    def _before(self, row: Record) -> Messages:
        """The turns before the answer."""
        if self._implicit_prompt:
            return []
        if self._conversational(row):
            return [*self._history(row), *turns(self._cell(row, "prompt"), row.place)]
        return [*self._history(row), {"role": "user", "content": self._filled(row)}]

    def _history(self, row: Record) -> Messages:
        return history(self._optional(row, "history"), row.place) if "history" not in self.prompt.used else []

    def _answers(self, row: Record, part: str) -> tuple[str, ...]:
        """The answers in a cell; for a conversation that ends with an answer, the text of its last turn."""
        value = self._cell(row, part)
        value = messages(value, row.place)[-1]["content"] if is_turns(value) else value
        found = texts(value, strip=False) or ((self.task.none,) if self.task.none else ())
        if not found:
            what = f"there is no answer in the column '{self.parts[part]}'"
            if isinstance(value, dict):
                raise UserError(f"{row.place}: {what}. It holds {described(value)}.")
            raise columns.Gap(row.place, what)
        return found


def texts(value: Any, strip: bool = True) -> tuple[str, ...]:
    """Answers in a cell: text, a number, a list of them, or an object that holds them under 'text' or 'spans'."""
    if isinstance(value, dict):
        return texts(value.get("text", value.get("spans")), strip)
    if isinstance(value, list | tuple):
        return tuple(text for item in value for text in texts(item, strip))
    if columns.empty(value) or described(value):
        return ()
    return (value if isinstance(value, str) and not strip else columns.word(value),)


def _opening(talk: Messages) -> int:
    """How many turns come before the answer at the end of a conversation."""
    return max((index for index, turn in enumerate(talk) if turn["role"] != "assistant"), default=-1) + 1
