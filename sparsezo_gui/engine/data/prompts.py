"""A prompt for a tuned model, built as the examples of its task were.

A prompt is treated as a row: its columns are what the user enters, its answer is a placeholder, and the result is cut
where the answer would begin. So it has exactly the tokens that an evaluation's prompt has.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sparsezo_gui.answers import Task
from sparsezo_gui.engine.data import chat, columns
from sparsezo_gui.engine.data.encode import Encoded, encode
from sparsezo_gui.engine.data.examples import Example, maker
from sparsezo_gui.engine.data.record import Record
from sparsezo_gui.engine.data.splits import Rows
from sparsezo_gui.engine.data.tasks import task
from sparsezo_gui.engine.data.template import Template
from sparsezo_gui.engine.data.tokenise import Tokens, prompt_tokens
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.recipe import DataTable

PLACE = "The prompt"
EMPTY = "The prompt is empty. Write a text for the model to continue."
UNCUT = 1 << 30  # tokens: a prompt too long for the model is refused, not cut
_ANSWERS = {"completion": {"answer": "x"}, "preference": {"chosen": "x", "rejected": "y"}}


@dataclass(frozen=True)
class EncodedPrompt:
    """The tokens to continue, and, if one of the ``candidates`` is to be chosen, the ``choice`` to be scored."""

    prompt: Tokens
    candidates: tuple[str, ...] = ()
    choice: Encoded | None = None

    @property
    def longest(self) -> int:
        """Length of the longest sequence in tokens."""
        return max(len(self.prompt), self.choice.length if self.choice else 0)


class _Question(Record):
    """A row made of a prompt."""

    place = PLACE


def encode_prompt(
    table: DataTable, tokenizer: Any, text: str, answers: tuple[str, ...] = (), raw: bool = False,
    before: Sequence[tuple[str, str]] = (),
) -> EncodedPrompt:  # fmt: skip
    """``text`` as a prompt of the task in ``table``; unchanged if ``raw``, or if the task is plain text. ``before`` are
    the messages (role, content) that come before it in a chat.

    It is a JSON object of columns, or, if the prompt uses a single column, the text of that column. ``answers`` are the
    candidates found in the data, see `answers_in_data`; without them there is nothing to choose from. Raises
    `UserError`.
    """
    text, kind = text.encode("utf-8", "replace").decode(), task(table.task)  # a terminal may send half characters
    if raw or kind.kind == "text":
        return EncodedPrompt(prompt_tokens(text, tokenizer))
    if not text.strip():
        raise UserError(EMPTY)
    free = kind.kind != "choice" or (answers_in_data(table) and not answers)
    if answers_in_data(table):
        table = table.model_copy(update={"answers": answers or ("x", "y")})
    example = _example(kind, table, tokenizer, text, before)
    if free:
        return EncodedPrompt(prompt_tokens(example.prompt or _untrained(example), tokenizer, example.templated))
    choice = encode(example, tokenizer, UNCUT)
    return EncodedPrompt(choice.prompt, tuple(each.strip() for each in example.choices), choice)


def _example(
    kind: Task, table: DataTable, tokenizer: Any, text: str, before: Sequence[tuple[str, str]]
) -> Example:  # fmt: skip
    """The example that the task makes of the prompt, with a placeholder for the answer."""
    values = _values(kind, table, text, before)
    parts = {part: part for part in values if part in kind.columns or part in table.columns}
    row = _Question(values, PLACE, 1)
    return maker(table.model_copy(update={"columns": parts}), {"train": Rows((row,), 1)}, tokenizer).example(row)


def answers_in_data(table: DataTable) -> bool:
    """Whether a choice's candidates are the labels in the data, not answers set by the recipe or the task."""
    kind = task(table.task)
    return kind.kind == "choice" and not (table.answers or kind.answers or kind.items)


def learned_end(table: DataTable, tokenizer: Any) -> int | None:
    """The token that training on ``table`` teaches to end an answer with; None if there is none, as for a choice."""
    kind = task(table.task)
    if kind.kind == "choice":
        return None
    talks = kind.kind == "chat" or (kind.chat_template and table.chat_template)
    end = chat.learned_end(tokenizer) if talks else None
    return tokenizer.eos_token_id if end is None else end


def _untrained(example: Example) -> str:
    """The text before the last answer."""
    last = max((index for index, (_, trained) in enumerate(example.segments) if trained), default=None)
    return "".join(text for text, _ in example.segments[:last])


def _values(kind: Task, table: DataTable, text: str, before: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The row's values by the task's parts."""
    if kind.kind == "chat":
        messages = (*before, ("user", text), ("assistant", "x"))
        turns = [{"role": role, "content": content} for role, content in messages]
        return {"messages": turns}
    values = _given(kind, table, text)
    if kind.items:
        found = values[kind.items] if isinstance(values[kind.items], list) else []
        return {**values, "answer": found[:1]}
    label = kind.answers[0].labels[0] if kind.answers else (table.answers or ("",))[0]
    return {**values, **_ANSWERS.get(kind.kind, {"answer": label})}


def _given(kind: Task, table: DataTable, text: str) -> dict[str, Any]:
    """The values of the columns that the prompt and the candidates use."""
    prompt = Template(table.template or kind.prompt, bundled=not table.template)
    others = [Template(each, bundled=True) for each in (*(answer.text for answer in kind.answers), kind.item)]
    needed = sorted(prompt.names.union(*(each.names for each in others)) - {"row", "item"})
    needed += [kind.items] if kind.items else []
    given = _object(text)
    if given is None:
        if len(needed) == 1 and "row" not in prompt.names:
            return {needed[0]: text}
        raise UserError(_form(needed, table, kind))
    keys = {name: _key(name, kind, table, given) for name in needed}
    keys |= {
        name: key
        for name in prompt.optional
        if (key := _key(name, kind, table, given)) not in keys.values()  # a column plays one part
    }
    found = {name: columns.get(given, key) for name, key in keys.items() if key}
    if len(needed) == 1 and not found:
        return {needed[0]: text}  # a text that happens to be JSON
    if any(columns.empty(found.get(name)) for name in needed):
        raise UserError(_form(needed, table, kind))
    return {**(given if "row" in prompt.names else {}), **found}


def _key(part: str, kind: Task, table: DataTable, given: dict[str, Any]) -> str:
    """The key a part is given under: its own name, its column's, or another name its column may have."""
    names = (part, table.columns.get(part, part), *kind.columns.get(part, ()))
    return next((name for name in names if columns.get(given, name) is not None), "")


def _object(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _form(needed: list[str], table: DataTable, kind: Task) -> str:
    """The error that shows what to write, for prompts with several columns."""
    fields = {table.columns.get(part, part): ["…", "…"] if part == kind.items else "…" for part in needed}
    form = json.dumps(fields, ensure_ascii=False) if fields else '{"column": "…"}'
    return f"{PLACE}: this run's template needs columns. Write them as a JSON object: {form}. Or use a raw prompt."
