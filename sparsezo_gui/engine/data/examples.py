"""Rows to examples: pieces of text, some of them trained on, and candidates to choose from."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sparsezo_gui.answers import Candidate, Task
from sparsezo_gui.engine.data import chat, columns, labels
from sparsezo_gui.engine.data.candidates import by_label, candidates_of
from sparsezo_gui.engine.data.conversations import Unused, conversation, is_turns, written
from sparsezo_gui.engine.data.dialogues import Dialogues, texts
from sparsezo_gui.engine.data.record import Record
from sparsezo_gui.engine.data.splits import Rows
from sparsezo_gui.engine.data.tasks import task
from sparsezo_gui.engine.data.template import Literal, Template
from sparsezo_gui.engine.metrics import without_reasoning
from sparsezo_gui.engine.sandbox.prompt import described
from sparsezo_gui.errors import UserError, did_you_mean
from sparsezo_gui.recipe.recipe import DataTable

Values = dict[str, Any]
_PLAIN = (
    "The prompts do not use the model's chat template, but other programs will. To train with it, set [data] "
    "chat_template = true."
)


@dataclass(frozen=True, slots=True)
class Example:
    """One example. A choice has one untrained segment; ``choices`` begin with their separator from it (a space, or
    nothing after a line break); each ``ends`` its text unless it is a word from a list. ``accepted`` are other correct
    choices besides ``label``. A ``templated`` text was written by the model's chat template, with ``prompt`` as the
    text before the last answer; it is ``empty`` if an answer says nothing."""

    segments: tuple[tuple[str, bool], ...]
    choices: tuple[str, ...] = ()
    label: int = 0
    references: tuple[str, ...] = ()
    accepted: tuple[int, ...] = ()
    ends: bool = False
    templated: bool = False
    prompt: str = ""
    empty: bool = False

    @property
    def text(self) -> str:
        """The complete text, with the correct choice."""
        return "".join(text for text, _ in self.segments) + (self.choices[self.label] if self.choices else "")


@dataclass(frozen=True)
class Maker(Dialogues):
    """Makes examples of one task. ``parts`` are the rows' columns, ``answers`` the candidates if they are fixed.
    ``chat_template`` says that prompts go through the model's chat template; ``unused`` counts what is not learned."""

    task: Task
    parts: dict[str, str]
    prompt: Template
    answers: tuple[Candidate, ...]
    candidates: tuple[Template | Literal, ...]
    tokenizer: Any = None
    chat_template: bool = False
    unused: Unused = field(default_factory=Unused)

    @property
    def notices(self) -> tuple[str, ...]:
        """Sentences for the user about the examples made so far."""
        plain = self.task.chat_template and not self.chat_template and getattr(self.tokenizer, "chat_template", None)
        return (*((_PLAIN,) if plain else ()), *self.unused.sentences)

    def example(self, row: Record) -> Example:
        """The example of a row. Raises `UserError` with the row's number."""
        made: Example = getattr(self, f"_{self.task.kind}")(row)
        if not made.templated:
            self._count(row, frozenset())
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
        extra = (self._optional(row, part) for part in ("system", "tools"))
        talk = conversation(self._cell(row, "messages"), row.place, *extra)
        found = self._rendered(talk, row)
        return _templated_example(found)

    def _completion(self, row: Record) -> Example:
        value = self._cell(row, "answer")
        if self._templated(row):
            found = self._rendered(self._conversation(row, "answer"), row)
            others = () if is_turns(value) else tuple(text.strip() for text in texts(value)[1:])
            return _templated_example(found, others)
        answers = self._answers(row, "answer")
        prompt, gap = self._prompt(row)
        answer = _joined(prompt, gap, answers[0]) + self.task.stop
        return Example(((prompt, False), (answer, True)), references=tuple(text.strip() for text in answers))

    def _choice(self, row: Record) -> Example:
        prompt, gap = self._prompt(row)
        value = self._cell(row, "answer")
        if self.task.items:
            found, right = self._own_candidates(row, value)
        else:
            self._check_text(row, "answer", value)
            found, right = [self._render(template, row) for template in self.candidates], [self._label(row, value)]
        references = tuple(found[index] for index in right)
        choices = tuple(_joined(prompt, gap, text) for text in found)
        return Example(((prompt, False),), choices, right[0], references, tuple(right[1:]))

    def _preference(self, row: Record) -> Example:
        if self._templated(row):
            return self._compared(row)
        prompt, gap = self._prompt(row)
        found = [self._answers(row, part)[0] for part in ("chosen", "rejected")]
        self._differ(row, found)
        answers = tuple(_joined(prompt, gap, text) for text in found)
        return Example(((prompt, False),), answers, references=(found[0].strip(),), ends=True)

    def _compared(self, row: Record) -> Example:
        """A preference rendered by the model's chat template, once for each of the two answers."""
        talks = [self._conversation(row, part) for part in ("chosen", "rejected")]
        talks = [replace(talk, trained=talk.trained[-1:]) for talk in talks]
        chosen, rejected = (chat.render(talk, self.tokenizer, row.place) for talk in talks)
        self._count(row, chosen.unused | rejected.unused)
        answers = tuple("".join(text for text, trained in each.segments if trained) for each in (chosen, rejected))
        self._differ(row, answers)
        prompts = {each.before for each in (chosen, rejected)}
        if len(prompts) > 1:
            raise UserError(
                f"{row.place}: the chosen and the rejected answer do not follow the same conversation. Correct the row."
            )
        return Example(
            ((prompts.pop(), False),), answers, references=_reference(chosen), ends=True, templated=True,
            prompt=chosen.prompt, empty=chosen.empty or rejected.empty,
        )  # fmt: skip

    def _differ(self, row: Record, found: Sequence[str]) -> None:
        if found[0] == found[1]:
            raise UserError(f"{row.place}: the chosen and the rejected answer are the same. Leave the row out.")

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
        """The prompt and its separator from an answer. Spaces at its end go to the answer, because tokenizers merge
        them with the following word."""
        text = self._filled(row)
        if self.task.chat_template:  # with what another program would put into separate turns
            system = self._optional(row, "system") if "system" not in self.prompt.used else None
            first = [written(system, f"{row.place}: the system prompt")] if system else []
            text = "\n".join([*first, *(turn["content"] for turn in self._history(row)), text])
        prompt = text.rstrip(" ")
        return prompt, text[len(prompt) :]

    def _filled(self, row: Record) -> str:
        text = self._render(self.prompt, row)
        if not text.strip():
            raise UserError(f"{row.place}: the prompt is empty. Correct the row or the template.")
        return text

    def _render(self, template: Template | Literal, row: Record, **more: Any) -> str:
        return template.render({**self._values(row, template), **more}, row.place)

    def _values(self, row: Record, template: Template | Literal) -> Values:
        """What a template sees: the row's columns by name, overridden by the task's parts, and the ``row`` itself."""
        values = {"row": row.values, **{name: value for name, value in row.values.items() if value == value}}
        values = {**dict.fromkeys(row.values, ""), **values}  # NaN is an empty cell
        for name in template.optional:
            if name in self.task.columns or name not in values:
                values[name] = ""  # also if another part has taken the column of that name
        for part, column in self.parts.items():
            value = columns.get(row.values, column, "")
            number = isinstance(value, int | float) and not columns.empty(value)
            values[part] = str(value) if number else "" if columns.empty(value) else value
        for name in template.written & values.keys():
            self._check_text(row, name, values[name])
        for name in template.names - {"row", "item"}:
            if columns.empty(values.get(name)):
                raise columns.Gap(row.place, f"the column '{self.parts.get(name, name)}' is empty")
        return values

    def _check_text(self, row: Record, part: str, value: Any) -> None:
        if not (holds := described(value)):
            return
        inner = next(iter(value), "part") if isinstance(value, dict) else 0
        cure = f"In [data] template, name the part to use, as {{{{ {part}[{inner!r}] }}}}, or use another column."
        if is_turns(value):
            holds, cure = "a conversation", "The tasks 'chat', 'pairs' and 'preference' render it with a chat template."
        elif isinstance(value, bytes):
            cure = "Use another column."
        raise UserError(f"{row.place}: the column '{self.parts.get(part, part)}' holds {holds}, not text. {cure}")

    def _optional(self, row: Record, part: str) -> Any:
        value = columns.get(row.values, self.parts[part]) if part in self.parts else None
        return None if columns.empty(value) else value

    def _cell(self, row: Record, part: str) -> Any:
        value = columns.get(row.values, self.parts[part])
        if columns.empty(value):
            raise columns.Gap(row.place, f"the column '{self.parts[part]}' is empty")
        return value

    def _label(self, row: Record, value: Any) -> int:
        exact, loose = self._by_label
        label = columns.word(value)
        index = exact.get(label, loose.get(labels.alike(label)))
        if index is None:
            raise columns.UnknownLabel(row.place, label, self.parts["answer"], sorted(exact))
        return index

    @functools.cached_property
    def _by_label(self) -> tuple[dict[str, int], dict[str, int]]:
        return by_label(self.answers)


def maker(table: DataTable, rows: dict[str, Rows], tokenizer: Any = None) -> Maker:
    """The maker of a recipe's examples, fitted to the columns and labels of ``rows``."""
    kind = task(table.task)
    rows["train"].check()
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
    if kind.kind == "preference" and not table.template and _holds_prompts(kind, table, rows, there):
        needed -= {"prompt"}
    _known_parts(kind, table, prompt)
    optional = sorted((prompt.optional | columns.LATER) & kind.columns.keys())
    parts = columns.resolve(kind, table, there, sorted(needed), optional, table.source)
    answers = candidates_of(kind, table, rows, parts.get("answer", ""))
    # A user's answers are plain text, braces included; those in a task file are templates.
    bundled = answers == kind.answers
    candidates = tuple(_bundled(kind, each.text) if bundled else Literal(each.text) for each in answers)
    candidates = candidates or (_bundled(kind, kind.item),)
    templated = kind.chat_template and table.chat_template and bool(getattr(tokenizer, "chat_template", None))
    unused = Unused("conversation" if kind.kind == "chat" else "row")
    return Maker(kind, parts, prompt, answers, candidates, tokenizer, templated, unused)


def _holds_prompts(kind: Task, table: DataTable, rows: dict[str, Rows], there: Sequence[str]) -> bool:
    """Whether the answers to compare are complete conversations, and no column holds their prompts."""
    if "prompt" in table.columns or columns.named(kind.columns["prompt"], there):
        return False
    name = table.columns.get("chosen") or columns.named(kind.columns["chosen"], there) or ""
    return any(is_turns(columns.get(row.values, name)) for row in rows["train"][:1])


def _bundled(kind: Task, text: str) -> Template:
    return Template(text, f"task '{kind.name}'", bundled=True)


def _joined(prompt: str, gap: str, answer: str) -> str:
    """``answer`` as it follows ``prompt``, separated by a space unless something else separates them."""
    parted = gap or prompt[-1:].isspace() or answer[:1].isspace()
    return gap + answer if parted else " " + answer


def _templated_example(found: chat.Rendered, others: tuple[str, ...] = ()) -> Example:
    references = _reference(found) + others
    return Example(
        found.segments, references=references, templated=True, prompt=found.prompt, empty=found.empty
    )  # fmt: skip


def _reference(found: chat.Rendered) -> tuple[str, ...]:
    """The answer without its reasoning."""
    answer = without_reasoning(found.answer).strip()
    return (answer,) if answer else ()


def _known_parts(kind: Task, table: DataTable, prompt: Template) -> None:
    known = kind.columns.keys() | prompt.names | prompt.optional
    for part in table.columns.keys() - known:
        raise UserError(f"[data] columns: the task '{kind.name}' has no part '{part}'. {did_you_mean(part, known)}")
