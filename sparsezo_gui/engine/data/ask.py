"""A question to a model that was tuned: put as the examples of its task were.

A question goes the way of a row: its columns are what the user gives, its answer is a placeholder, and what the task
makes of it is cut off where the answer would begin. So the prompt has the tokens of an evaluation's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sparsezo_gui.engine.data import chat, columns
from sparsezo_gui.engine.data.encode import Encoded, Tokens, encode, prompt_tokens
from sparsezo_gui.engine.data.examples import Example, maker
from sparsezo_gui.engine.data.readers import Record
from sparsezo_gui.engine.data.sources import Rows
from sparsezo_gui.engine.data.tasks import Task, task
from sparsezo_gui.engine.data.template import Template
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.recipe import DataTable

PLACE = "The prompt"
EMPTY = "The prompt is empty. Write a text for the model to continue."
UNCUT = 1 << 30  # tokens: what is too long for the model is refused, and not cut
_ANSWERS = {"completion": {"answer": "x"}, "preference": {"chosen": "x", "rejected": "y"}}


@dataclass(frozen=True)
class EncodedPrompt:
    """What to go on from, and, where one of some ``candidates`` is to be chosen, the ``choice`` to be scored."""

    prompt: Tokens
    candidates: tuple[str, ...] = ()
    choice: Encoded | None = None

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return max(len(self.prompt), self.choice.length if self.choice else 0)


class _Question(Record):
    """The row that a question stands in for."""

    place = PLACE  # type: ignore[assignment]


def encode_prompt(
    table: DataTable, tokenizer: Any, text: str, answers: tuple[str, ...] = (), raw: bool = False
) -> EncodedPrompt:  # fmt: skip
    """``text`` as a prompt of the task in ``table``; as it is where it is ``raw``, or the task is plain text.

    It is a JSON object of columns, or, where the prompt is made of one column, the text of that. ``answers`` are the
    candidates that the data told, see `answers_in_data`; without them nothing is there to choose from. Raises
    `UserError`.
    """
    text, kind = text.encode("utf-8", "replace").decode(), task(table.task)  # a terminal may give half characters
    if raw or kind.kind == "text":
        return EncodedPrompt(prompt_tokens(text, tokenizer))
    if not text.strip():
        raise UserError(EMPTY)
    free = kind.kind != "choice" or (answers_in_data(table) and not answers)
    if answers_in_data(table):
        table = table.model_copy(update={"answers": answers or ("x", "y")})
    example = _example(kind, table, tokenizer, text)
    if free:
        return EncodedPrompt(prompt_tokens(example.prompt or _untrained(example), tokenizer, example.templated))
    choice = encode(example, tokenizer, UNCUT)
    return EncodedPrompt(choice.prompt, tuple(each.strip() for each in example.choices), choice)


def _example(kind: Task, table: DataTable, tokenizer: Any, text: str) -> Example:
    """What the task makes of the question, with a placeholder for the answer."""
    values = _values(kind, table, text)
    parts = {part: part for part in values if part in kind.columns or part in table.columns}
    row = _Question(values, PLACE, 1)
    return maker(table.model_copy(update={"columns": parts}), {"train": Rows((row,), 1)}, tokenizer).example(row)


def answers_in_data(table: DataTable) -> bool:
    """Whether the candidates of a choice are the labels of the data, and neither the recipe's nor the task's."""
    kind = task(table.task)
    return kind.kind == "choice" and not (table.answers or kind.answers or kind.items)


def learned_end(table: DataTable, tokenizer: Any) -> int | None:
    """The token with which examples of ``table`` teach to end an answer, if they teach one; a choice does not."""
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


def _values(kind: Task, table: DataTable, text: str) -> dict[str, Any]:
    """The values of the row, by the parts of the task."""
    if kind.kind == "chat":
        turns = [{"role": "user", "content": text}, {"role": "assistant", "content": "x"}]
        return {"messages": turns}
    values = _given(kind, table, text)
    if kind.items:
        found = values[kind.items] if isinstance(values[kind.items], list) else []
        return {**values, "answer": found[:1]}
    label = kind.answers[0].labels[0] if kind.answers else (table.answers or ("",))[0]
    return {**values, **_ANSWERS.get(kind.kind, {"answer": label})}


def _given(kind: Task, table: DataTable, text: str) -> dict[str, Any]:
    """The values of the columns that the prompt and the candidates are made of."""
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
        if (key := _key(name, kind, table, given)) not in keys.values()  # a column has one part
    }
    found = {name: columns.get(given, key) for name, key in keys.items() if key}
    if len(needed) == 1 and not found:
        return {needed[0]: text}  # a text that happens to be JSON
    if any(columns.empty(found.get(name)) for name in needed):
        raise UserError(_form(needed, table, kind))
    return {**(given if "row" in prompt.names else {}), **found}


def _key(part: str, kind: Task, table: DataTable, given: dict[str, Any]) -> str:
    """Under what a part is given: its own name, its column's, or another name that its column may have."""
    names = (part, table.columns.get(part, part), *kind.columns.get(part, ()))
    return next((name for name in names if columns.get(given, name) is not None), "")


def _object(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _form(needed: list[str], table: DataTable, kind: Task) -> str:
    """What to write instead, for prompts of several columns."""
    fields = {table.columns.get(part, part): ["…", "…"] if part == kind.items else "…" for part in needed}
    form = json.dumps(fields, ensure_ascii=False) if fields else '{"column": "…"}'
    return f"{PLACE}: this run's template needs columns. Write them as a JSON object: {form}. Or ask with a raw prompt."
