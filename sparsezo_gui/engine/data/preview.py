"""What the window shows of a data set before a run: its rows, and the exact tokens the model will see."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import suppress
from typing import Any

from sparsezo_gui.answers import DataPreview, Pieces, Task
from sparsezo_gui.engine.data import columns, prepare, rendering, sources
from sparsezo_gui.engine.data.background import in_background
from sparsezo_gui.engine.data.examples import Maker, maker
from sparsezo_gui.engine.data.faults import Gaps
from sparsezo_gui.engine.data.findings import Findings
from sparsezo_gui.engine.data.keys import LeftOut, name_of
from sparsezo_gui.engine.data.record import Record, explode
from sparsezo_gui.engine.data.splits import read_rows
from sparsezo_gui.engine.data.tasks import task
from sparsezo_gui.engine.pretrained.limits import Limits
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.events import Progress
from sparsezo_gui.recipe.recipe import DataTable
from sparsezo_gui.work import finish

_BARS = 20  # of the length histogram
_CELL = 5_000  # characters of a cell
_BEGINNING = 100  # characters of a row that is left out
_HINTS = {  # words in a column's name that suggest a part, beyond the names a task knows
    "answer": ("label", "class", "categor", "answer", "target", "output", "respon", "complet", "tag", "reply"),
    "prompt": ("prompt", "question", "instruct", "input", "source", "text"),
    "text": ("text", "content", "body", "sentence", "message", "review", "title", "input", "question"),
    "messages": ("messag", "conversation", "chat", "dialog", "turn"),
}


def preview(table: DataTable, tokenizer: Any = None, page: int = 0, page_size: int = 50) -> DataPreview:
    """A page of rows and what they become. Raises `UserError` only if the source cannot be read at all."""
    return finish(previewing(table, tokenizer, page, page_size))


def previewing(
    table: DataTable, tokenizer: Any = None, page: int = 0, page_size: int = 50, limits: Limits | None = None
) -> Generator[Progress, None, DataPreview]:
    """`preview`, yielding progress. Close the generator to cancel."""
    yield Progress("Reading data")
    rows = yield from read_rows(table)
    kind = task(table.task)
    paged = _page(table, kind, page, page_size)
    there = columns.names(rows["train"] or paged)
    head = tuple(name for name in there if "." not in name)
    common: dict[str, Any] = {
        "columns": head,
        "rows": tuple(tuple(_cell(row, name) for name in head) for row in paged),
        "page": page,
        "available": rows["train"].total,
        "totals": {name: len(part) for name, part in rows.items()},
        "names": tuple(map(name_of, paged)),
        "left_out_rows": _left_out(rows["train"].left_out),
    }
    try:
        make = yield from in_background(lambda: maker(table, rows, tokenizer), Progress("Preparing examples"))
    except UserError as error:
        return DataPreview(**common, columns_of={}, suggestion=suggest(kind, table, there), problem=str(error))
    common |= {"columns_of": make.parts, "suggestion": {}}
    try:
        splits, found = yield from prepare.prepared(make, rows, table, limits)
        notices = yield from in_background(found.notices, Progress("Preparing examples"))
        gone = rows["train"].left_out
        common |= {
            "totals": {name: len(split) for name, split in splits.items()}, "offer": found.offer,
            "notices": tuple(each for each in notices if each.text != gone.said),  # the rows themselves show that
        }  # fmt: skip
        used = [row for row in paged if row not in gone]
        examples, left_out = _shown(make, used, table)
        return DataPreview(**common, examples=examples, left_out=left_out, **_figures(make, splits, found))
    except UserError as error:
        return DataPreview(**common, problem=str(error), offer="leave_out_gaps" if isinstance(error, Gaps) else "")


def suggest(kind: Task, table: DataTable, there: tuple[str, ...]) -> dict[str, str]:
    """A column for each part without one: by a word in its name, or the only one left."""
    wanted = [
        part
        for part in kind.columns
        if part not in columns.LATER
        and table.columns.get(part) not in there
        and not columns.named(kind.columns[part], there)
    ]
    taken = set(table.columns.values()) | {name for names in kind.columns.values() for name in names}
    found: dict[str, str] = {}
    for part in wanted:
        free = [name for name in there if name not in taken and name not in found.values()]
        hinted = [name for name in free if any(hint in name.lower() for hint in _HINTS.get(part, (part,)))]
        if guess := (hinted or (free if len(free) == 1 else [])):
            found[part] = guess[0]
    return found


def _page(table: DataTable, kind: Task, page: int, size: int) -> list[Record]:
    """Rows of a page, in the order of the file with the training rows."""
    parts = sources.find(table.source)
    part = parts.get("train") or next(iter(parts.values()))
    unfolded = (row for record in part() for row in explode(record, kind.explode))
    return list(itertools.islice(unfolded, page * size, (page + 1) * size))


def _cell(row: Record, name: str) -> str:
    value = columns.get(row.values, name, "")
    if isinstance(value, dict | list):
        value = json.dumps(value, ensure_ascii=False, default=str)
    return "" if value is None else str(value)[:_CELL]


def _left_out(rows: LeftOut) -> tuple[tuple[str, str], ...]:
    """The names of the rows, and how each begins."""
    return tuple((name, _beginning(row)) for name, row in rows.first.items())


def _beginning(row: Record) -> str:
    return " · ".join(filter(None, (_cell(row, name) for name in row.values)))[:_BEGINNING]


def _shown(make: Maker, paged: list[Record], table: DataTable) -> tuple[tuple[Pieces, ...], tuple[int, ...]]:
    """The examples of a page as pieces of text, and what is left out of each; rows without an example are skipped."""
    shown = []
    for row in paged:
        with suppress(UserError):
            for example, encoded in prepare.encoded_row(make, row, table.max_tokens):
                shown.append(rendering.shortened(rendering.pieces(example, encoded, make.tokenizer)))
    return tuple(pieces for pieces, _ in shown), tuple(left_out for _, left_out in shown)


def _figures(make: Maker, splits: dict[str, prepare.Split], found: Findings) -> dict[str, Any]:
    """Counts of the answers; with a tokenizer also the lengths of all examples."""
    classes = dict(sorted(found.labels.items())) if make.answers else None
    if not found.longest:
        return {"classes": classes}
    split, lengths = next(each for each in found.lengths.items() if found.longest in each[1])
    place = lengths.index(found.longest)
    longest = splits[split].examples[place], splits[split].encoded[place]
    return {
        "classes": classes,
        "lengths": _histogram(list(itertools.chain.from_iterable(found.lengths.values()))),
        "longest": rendering.shortened(rendering.pieces(*longest, make.tokenizer))[0],
        "longest_tokens": found.longest,
        "cut": found.truncated,
    }


def _histogram(lengths: Sequence[int]) -> tuple[tuple[int, int], ...]:
    longest = max(lengths)
    width = -(-longest // _BARS)
    counts = Counter((length - 1) // width for length in lengths)
    return tuple(((bar + 1) * width, counts[bar]) for bar in range(-(-longest // width)))
