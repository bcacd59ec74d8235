"""Rows to examples: pieces of text of which some are trained on, and the candidates to choose from."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from sparsezo_gui.engine.data import chat, columns, labels
from sparsezo_gui.engine.data.readers import Record
from sparsezo_gui.engine.data.sources import Rows
from sparsezo_gui.engine.data.tasks import Answer, Task, task
from sparsezo_gui.engine.data.template import Literal, Template
from sparsezo_gui.errors import UserError, did_you_mean
from sparsezo_gui.recipe.recipe import DataTable

MOST_ANSWERS = 100  # more different labels than this are no answers but texts or numbers
Values = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Example:
    """One example. A choice has one untrained segment; ``choices`` begin with what parts them from it (a space, or
    nothing after a line's end); each ``ends`` its text where it is no word of a list. ``accepted`` are further right
    choices besides ``label``."""

    segments: tuple[tuple[str, bool], ...]
    choices: tuple[str, ...] = ()
    label: int = 0
    references: tuple[str, ...] = ()
    accepted: tuple[int, ...] = ()
    ends: bool = False

    @property
    def text(self) -> str:
        """The whole text, with the right choice."""
        return "".join(text for text, _ in self.segments) + (self.choices[self.label] if self.choices else "")


@dataclass(frozen=True)
class Maker:
    """Makes examples of one task. ``parts`` are the rows' columns, ``answers`` the candidates if these are fixed."""

    task: Task
    parts: dict[str, str]
    prompt: Template
    answers: tuple[Answer, ...]
    candidates: tuple[Template, ...]
    tokenizer: Any = None

    def example(self, row: Record) -> Example:
        """The example of one row. Raises `UserError` with the row's number."""
        made = getattr(self, f"_{self.task.kind}")(row)
        try:
            made.text.encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"{row.place}: the text holds half of a character (a lone surrogate). Correct the row."
            ) from error
        return made

    def _text(self, row: Record) -> Example:
        return Example(((self.prompt.render(self._values(row, self.prompt), row.place), True),))

    def _chat(self, row: Record) -> Example:
        turns = chat.messages(self._cell(row, "messages"), row.place)
        return Example(chat.segments(turns, self.tokenizer, row.place), references=(turns[-1]["content"].strip(),))

    def _completion(self, row: Record) -> Example:
        prompt, gap = self._prompt(row)
        answers = texts(self._cell(row, "answer")) or ((self.task.none,) if self.task.none else ())
        if not answers:
            raise UserError(f"{row.place}: there is no answer in the column '{self.parts['answer']}'.")
        return Example(((prompt, False), (gap + answers[0] + self.task.stop, True)), references=answers)

    def _choice(self, row: Record) -> Example:
        prompt, gap = self._prompt(row)
        value = self._cell(row, "answer")
        if self.task.items:
            found, right = self._own_candidates(row, value)
        else:
            found, right = [self._render(template, row) for template in self.candidates], [self._label(row, value)]
        references = tuple(found[index] for index in right)
        return Example(((prompt, False),), tuple(gap + text for text in found), right[0], references, tuple(right[1:]))

    def _preference(self, row: Record) -> Example:
        prompt, gap = self._prompt(row)
        found = [self._answer(row, part) for part in ("chosen", "rejected")]
        if found[0] == found[1]:
            raise UserError(f"{row.place}: the chosen and the rejected answer are the same. Leave the row out.")
        return Example(((prompt, False),), tuple(gap + text for text in found), references=(found[0],), ends=True)

    def _answer(self, row: Record, part: str) -> str:
        """The text of an answer, or the last turn of the conversation that ends in it."""
        value = self._cell(row, part)
        if isinstance(value, list):
            return chat.messages(value, row.place)[-1]["content"].strip()
        return columns.word(value)

    def _own_candidates(self, row: Record, value: Any) -> tuple[list[str], list[int]]:
        items = list(dict.fromkeys(texts(self._cell(row, self.task.items))))
        right = [items.index(answer) for answer in dict.fromkeys(texts(value)) if answer in items]
        if not right or len(items) < 2:
            raise UserError(
                f"{row.place}: the answer {value!r} is not among at least two candidates "
                f"({', '.join(items[:10]) or 'none'})."
            )
        return [self._render(self.candidates[0], row, item=item) for item in items], right

    def _prompt(self, row: Record) -> tuple[str, str]:
        """The prompt, and what stands between it and an answer. Spaces at its end go to the answer, because
        tokenizers join them to the word that follows."""
        text = self._render(self.prompt, row)
        prompt = text.rstrip(" ")
        if not prompt.strip():
            raise UserError(f"{row.place}: the prompt is empty. Correct the row or the template.")
        return prompt, text[len(prompt) :] or ("" if prompt[-1].isspace() else " ")

    def _render(self, template: Template, row: Record, **more: Any) -> str:
        return template.render({**self._values(row, template), **more}, row.place)

    def _values(self, row: Record, template: Template) -> Values:
        """What a template sees: the row's columns by name, the task's parts over them, and the ``row`` itself."""
        values = {"row": row.values, **row.values}
        for name in template.optional:
            if name in self.task.columns or name not in values:
                values[name] = ""  # also where another part has taken the column of that name
        for part, column in self.parts.items():
            value = columns.get(row.values, column, "")
            values[part] = str(value) if isinstance(value, int | float) else "" if value is None else value
        for name in template.names - {"row", "item"}:
            if columns.empty(values.get(name)):
                raise columns.Gap(row.place, f"the column '{self.parts.get(name, name)}' is empty")
        return values

    def _cell(self, row: Record, part: str) -> Any:
        value = columns.get(row.values, self.parts[part])
        if columns.empty(value):
            raise columns.Gap(row.place, f"the column '{self.parts[part]}' is empty")
        return value

    def _label(self, row: Record, value: Any) -> int:
        exact, loose = self._labels
        label = columns.word(value)
        index = exact.get(label, loose.get(labels.alike(label)))
        if index is None:
            raise columns.UnknownLabel(row.place, label, self.parts["answer"], sorted(exact))
        return index

    @functools.cached_property
    def _labels(self) -> tuple[dict[str, int], dict[str, int]]:
        """Answer of each label as it is spelled, and of what is like one label alone."""
        exact = {label: index for index, answer in enumerate(self.answers) for label in answer.labels}
        meant: dict[str, set[int]] = {}
        for label, index in exact.items():
            meant.setdefault(labels.alike(label), set()).add(index)
        return exact, {key: found.pop() for key, found in meant.items() if len(found) == 1}


def maker(table: DataTable, rows: dict[str, Rows], tokenizer: Any = None) -> Maker:
    """What makes the examples of a recipe's data table, fitted to the columns and labels of ``rows``."""
    kind = task(table.task)
    if kind.kind == "chat" and table.template:
        raise UserError("[data] template: conversations take the model's own chat template; leave it empty.")
    prompt = Template(table.template) if table.template else _bundled(kind, kind.prompt)
    templates = [prompt, *(_bundled(kind, answer.text) for answer in kind.answers), _bundled(kind, kind.item)]
    there = columns.names(rows["train"])
    if table.template:
        prompt.check_uses(there, kind.columns)
    asked = set().union(*(template.names for template in templates)) - {"row", "item"}
    unknown = sorted(asked - kind.columns.keys() - table.columns.keys() - set(there))
    if unknown:
        raise UserError(f"{prompt.where}: there is no column '{unknown[0]}'. {columns.choices(unknown[0], there)}")
    needed = (asked | {"answer", "messages", "chosen", "rejected", kind.items}) & kind.columns.keys()
    _known_parts(kind, table, prompt)
    parts = columns.resolve(
        kind, table, there, sorted(needed), sorted(prompt.optional & kind.columns.keys()), table.source
    )
    answers = _answers(kind, table, rows, parts)
    # The words of a user's answers are text, whatever braces they hold; those of a task's file are templates.
    bundled = answers == kind.answers
    candidates = tuple(_bundled(kind, each.text) if bundled else Literal(each.text) for each in answers)
    return Maker(kind, parts, prompt, answers, candidates or (_bundled(kind, kind.item),), tokenizer)


def _bundled(kind: Task, text: str) -> Template:
    return Template(text, f"task '{kind.name}'", bundled=True)


def texts(value: Any) -> tuple[str, ...]:
    """Answers in a cell: text, a number, a list of them, or an object that holds them under 'text' or 'spans'."""
    if isinstance(value, dict):
        return texts(value.get("text", value.get("spans")))
    if isinstance(value, list | tuple):
        return tuple(text for item in value for text in texts(item))
    return () if columns.empty(value) else (columns.word(value),)


def _known_parts(kind: Task, table: DataTable, prompt: Template) -> None:
    known = kind.columns.keys() | prompt.names | prompt.optional
    for part in table.columns.keys() - known:
        raise UserError(f"[data] columns: the task '{kind.name}' has no part '{part}'. {did_you_mean(part, known)}")


def _answers(kind: Task, table: DataTable, rows: dict[str, Rows], parts: dict[str, str]) -> tuple[Answer, ...]:
    """The fixed candidates: of the recipe, of the task, or the different labels of the training rows, sorted."""
    if kind.kind != "choice" or kind.items:
        if table.answers:
            raise UserError(f"[data] answers: the task '{kind.name}' has no fixed answers; leave it empty.")
        return ()
    if kind.answers:
        return _reworded(kind, table) if table.answers else kind.answers
    spelled = [[word.strip()] for word in table.answers] or _labels_of(table, rows, parts["answer"])
    words = [first for first, *_ in spelled]
    if len(set(filter(None, words))) != len(words) or len(words) < 2:
        raise UserError(f"[data] answers: a choice needs at least two different answers, not {words}.")
    numbers = any(word.isdigit() for word in words)
    return tuple(
        Answer(text=group[0], labels=tuple(group) if numbers else (*group, str(index)))
        for index, group in enumerate(spelled)
    )


def _reworded(kind: Task, table: DataTable) -> tuple[Answer, ...]:
    if len(table.answers) != len(kind.answers):
        usual = ", ".join(answer.text for answer in kind.answers)
        raise UserError(
            f"[data] answers: the task '{kind.name}' has {len(kind.answers)} ({usual}), not {len(table.answers)}."
        )
    return tuple(
        Answer(text=text, labels=(*old.labels, text)) for text, old in zip(table.answers, kind.answers, strict=True)
    )


def _labels_of(table: DataTable, rows: dict[str, Rows], column: str) -> list[list[str]]:
    """The labels of the rows, each with all its spellings where these are to be merged."""
    found = labels.count(rows, column)
    words = labels.spellings(found) if table.merge_labels else [[word] for word in sorted(found)]
    if len(words) > MOST_ANSWERS:
        raise UserError(
            f"The column '{column}' holds {len(words)} different values ('{words[0][0][:40]}', …): too many to "
            f"choose from. Name the label's column with columns = {{ answer = \"…\" }}, or take the task 'pairs'."
        )
    if len(words) == 1:
        raise UserError(
            f"A choice needs at least two different answers, and all rows that have a label in the column '{column}' "
            f"have '{words[0][0]}'. Give rows of other labels too, or name the label's column with "
            'columns = { answer = "…" }.'
        )
    return words
