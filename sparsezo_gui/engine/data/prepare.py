"""From a recipe's data table to encoded examples, and from the name of a text to blocks of tokens."""

from __future__ import annotations

import itertools
import re
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from sparsezo_gui import resources
from sparsezo_gui.answers import Task
from sparsezo_gui.engine.data import columns, duplicates, readers, sources
from sparsezo_gui.engine.data.background import Clock, in_background
from sparsezo_gui.engine.data.encode import Encoded, encode, encode_text, encode_text_blocks
from sparsezo_gui.engine.data.examples import Example, Maker, maker
from sparsezo_gui.engine.data.faults import Faults
from sparsezo_gui.engine.data.findings import Findings
from sparsezo_gui.engine.data.keys import by_content
from sparsezo_gui.engine.data.record import Record
from sparsezo_gui.engine.data.rendering import trained_sequence
from sparsezo_gui.engine.data.spill import SpillList
from sparsezo_gui.engine.data.splits import Rows, load_rows, read_rows, smallest
from sparsezo_gui.engine.data.tokenise import Tokens, text_of
from sparsezo_gui.engine.pretrained.limits import Limits
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.events import Notice, Progress
from sparsezo_gui.recipe.recipe import DataTable
from sparsezo_gui.work import finish

_CHARACTERS = 4  # per token, roughly


@dataclass(frozen=True)
class Split:
    """Examples of one split, as text and encoded for the model."""

    examples: SpillList[Example]
    encoded: SpillList[Encoded]

    def __len__(self) -> int:
        return len(self.examples)


Made = tuple[Example, Encoded | None]


@dataclass(frozen=True)
class TaskData:
    """All examples of a run.

    ``answers`` are the fixed candidates of a choice (else empty); ``truncated`` counts examples that were cut and
    ``tokens_cut`` the tokens they lost; ``longest`` is in tokens; ``notices`` are for the user.
    """

    task: Task
    train: Split
    validation: Split
    test: Split
    answers: tuple[str, ...]
    truncated: int
    tokens_cut: int
    longest: int
    notices: tuple[Notice, ...] = ()


def load_task(table: DataTable, tokenizer: Any, limits: Limits | None = None) -> Generator[Progress, None, TaskData]:
    """Reads, renders and tokenises a recipe's data for a model with these ``limits`` (None: unknown), yielding
    progress. Close the generator to cancel.

    Raises `UserError` for anything in the data or recipe that cannot become examples.
    """
    yield Progress("Reading data")
    rows = yield from read_rows(table)
    make = yield from in_background(lambda: maker(table, rows, tokenizer), Progress("Preparing examples"))
    splits, found = yield from prepared(make, rows, table, limits)
    total = sum(len(part) for part in rows.values())
    notices = yield from in_background(found.notices, Progress("Preparing examples", total, total, "examples"))
    return TaskData(
        make.task,
        **splits,
        answers=tuple(answer.text for answer in make.answers if "{{" not in answer.text),
        truncated=found.truncated,
        tokens_cut=found.tokens_cut,
        longest=found.longest,
        notices=notices,
    )


def prepared(
    make: Maker, rows: dict[str, Rows], table: DataTable, limits: Limits | None = None
) -> Generator[Progress, None, tuple[dict[str, Split], Findings]]:
    """The examples of each split, encoded if there is a tokenizer, and the findings. Raises one `UserError` for all
    rows that cannot become examples."""
    wrong, found, clock = Faults(), Findings(make, table, rows, limits), Clock()
    total, done = sum(map(len, rows.values())), 0
    splits = {name: Split(SpillList(), SpillList()) for name in rows}
    for name in duplicates.KEPT_FIRST if table.duplicates == "remove" else rows:
        for row in rows[name]:
            if clock.due():
                yield Progress("Preparing examples", done, total, "examples")
            done += 1
            if wrong.full:
                break
            try:
                made = encoded_row(make, row, table.max_tokens)
                if any(found.is_empty(example) for example, _ in made) and table.leave_out_gaps:
                    raise columns.Gap(row.place, "the answer is empty")
            except columns.Gap as gap:
                found.leave_out(gap.what) if table.leave_out_gaps else wrong.add(row, gap)
            except UserError as error:
                wrong.add(row, error)
            else:
                _add(splits[name], made[: getattr(table, name) - len(splits[name])], found, name, row)
    yield Progress("Preparing examples", total, total, "examples")
    wrong.check(done)
    found.check()
    return splits, found


def _add(split: Split, made: list[Made], found: Findings, name: str, row: Record) -> None:
    for example, encoded in made:
        if not found.add(name, row, example, encoded):
            continue
        split.examples.append(example)
        if encoded is not None:
            split.encoded.append(encoded)


def encoded_row(make: Maker, row: Record, max_tokens: int) -> list[Made]:
    """The examples of a row: one, or as many as a long plain text needs; encoded only if there is a tokenizer."""
    example = make.example(row)
    if make.tokenizer is None:
        return [(example, None)]
    try:
        if make.task.kind != "text":
            return [(example, encode(example, make.tokenizer, max_tokens))]
        made = encode_text(example.text, make.tokenizer, max_tokens)
    except UserError as error:
        raise UserError(f"{row.place}: {error}") from error
    if len(made) < 2:
        return [(example, encoded) for encoded in made]
    # A part may begin inside a word, so it is identified by its tokens and not by a slice of the text.
    texts = (text_of((*one.rows[0].tokens, one.rows[0].targets[-1]), make.tokenizer) for one in made)
    return [(Example(((text, True),)), one) for text, one in zip(texts, made, strict=True)]


@dataclass(frozen=True)
class Passage:
    """Tokens to find a mask with; at each of ``places``, the next token is predicted."""

    tokens: Tokens
    places: tuple[int, ...]


def passages(source: str, tokenizer: Any, sequences: int, tokens: int, table: DataTable | None = None) -> list[Passage]:
    """At most ``sequences`` passages of at most ``tokens`` tokens, with every token predicted.

    ``source`` is as for `text_blocks`, or 'answers': the training examples of ``table`` one by one, with only the
    trained tokens predicted; for a choice, those of the correct candidate.
    """
    if source != "answers":
        return [
            Passage(block, tuple(range(len(block) - 1)))
            for block in text_blocks(source, tokenizer, sequences, tokens, table)
        ]
    make, rows = _examples(table, tokenizer, source)
    made = (encoded for row in rows for _, encoded in encoded_row(make, row, tokens) if encoded)
    return [_answer(encoded) for encoded in itertools.islice(made, sequences)]


def answered(table: DataTable, tokenizer: Any, most: int) -> list[Encoded]:
    """The first ``most`` training examples of ``table``, encoded. Raises `UserError` if there are none."""
    make, rows = _examples(table, tokenizer, "answers")
    made = (encoded for row in rows for _, encoded in encoded_row(make, row, table.max_tokens) if encoded)
    found = list(itertools.islice(made, most))
    if not found:
        raise UserError(f"[data] source = '{table.source}': no training example is left to find directions with.")
    return found


def _answer(encoded: Encoded) -> Passage:
    tokens, learned = trained_sequence(encoded)
    return Passage(tokens[: learned[-1] + 1], tuple(place - 1 for place in learned))


def text_blocks(
    source: str, tokenizer: Any, sequences: int, tokens: int, table: DataTable | None = None
) -> list[Tokens]:
    """At most ``sequences`` blocks of ``tokens`` tokens of text, to find a mask with.

    ``source`` is a bundled text's name, a file, a folder, a Hub data set, or 'task' (here also 'answers'): the training
    examples of ``table``. Long texts are split into passages, which are taken in the order of their hashes: a
    reproducible sample of the complete source.
    """
    if source in ("task", "answers"):
        make, rows = _examples(table, tokenizer, source)
        texts = (make.example(row).text for row in rows)
    else:
        size = tokens * _CHARACTERS
        limit = max(sequences, sequences * tokens // 8)
        numbered = (Record({"text": text}, source, 0) for text in _passages(_texts(source), size))
        groups, _ = finish(smallest(lambda: numbered, limit, by_content))
        texts = (group[0].values["text"] for group in groups)
    blocks = encode_text_blocks(texts, tokenizer, tokens, sequences)
    if not blocks:
        raise UserError(f"The text '{source}' is too short to find a mask with. Choose a longer one.")
    return blocks


def _examples(table: DataTable | None, tokenizer: Any, source: str) -> tuple[Maker, Iterator[Record]]:
    """The maker of examples, and the training rows that become some."""
    if table is None:
        raise UserError(f"[mask] text: '{source}' needs the data table of a recipe.")
    rows = load_rows(table)
    make = maker(table, rows, tokenizer)
    return make, _used(make, rows, table)


def _used(make: Maker, rows: dict[str, Rows], table: DataTable) -> Iterator[Record]:
    """The training rows, without those with gaps and without duplicates if the table says so."""
    unique, seen = table.duplicates == "remove", set[int]()
    for split in duplicates.KEPT_FIRST if unique else ("train",):
        for row in rows[split]:
            if table.leave_out_gaps and _has_gap(make, row):
                continue
            content = duplicates.content(make.example(row)) if unique else 0
            if split == "train" and content not in seen:
                yield row
            if unique:
                seen.add(content)


def _has_gap(make: Maker, row: Record) -> bool:
    try:
        make.example(row)
    except columns.Gap:
        return True
    return False


def _texts(source: str) -> Iterator[str]:
    """Texts of a source: of the column 'text', or else of the first column with text."""
    bundled = resources.BUNDLED_TEXT.get(source)
    parts = {"": partial(readers.read, bundled)} if bundled else sources.find(source, stream=True)
    part = parts.get("train") or next(iter(parts.values()))
    column = ""
    for record in part():
        column = column if column in record.values else _text_column(record)
        if not columns.empty(record.values[column]):
            yield str(record.values[column])


def _text_column(record: Record) -> str:
    names = [name for name, value in record.values.items() if isinstance(value, str)]
    if not names:
        raise UserError(f"{record.place}: no column contains text. {columns.choices('text', list(record.values))}")
    return "text" if "text" in names else names[0]


def _passages(texts: Iterable[str], size: int) -> Iterator[str]:
    """Texts; long ones in pieces of about ``size`` characters that end at a space."""
    for text in texts:
        yield from (
            piece.strip() for piece in re.findall(rf"(?s).{{1,{size}}}(?=\s|$)|.{{1,{size}}}", text) if piece.strip()
        )


__all__ = ["Passage", "Rows", "Split", "TaskData", "answered", "load_task", "passages", "text_blocks"]
