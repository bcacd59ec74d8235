"""What the window shows of a data set before a run: its rows, and the exact tokens the model will see."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sparsezo_gui.engine.data import columns, prepare, rendering, sources
from sparsezo_gui.engine.data.examples import Maker, maker
from sparsezo_gui.engine.data.faults import Gaps
from sparsezo_gui.engine.data.findings import Findings
from sparsezo_gui.engine.data.readers import Record
from sparsezo_gui.engine.data.rendering import Pieces
from sparsezo_gui.engine.data.tasks import Task, task
from sparsezo_gui.engine.pretrained.limits import Limits
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.events import Notice, Progress
from sparsezo_gui.recipe.recipe import DataTable

_BARS = 20  # of the length histogram
_CELL = 5_000  # characters of a cell
_HINTS = {  # words in a column's name that suggest a part, beyond the names a task knows
    "answer": ("label", "class", "categor", "answer", "target", "output", "respon", "complet", "tag", "reply"),
    "prompt": ("prompt", "question", "instruct", "input", "source", "text"),
    "text": ("text", "content", "body", "sentence", "message", "review", "title", "input", "question"),
    "messages": ("messag", "conversation", "chat", "dialog", "turn"),
}


@dataclass(frozen=True)
class DataPreview:
    """One page of a data set, and the examples it would become.

    ``rows`` are the cells of the page as text, in file order, and ``available`` counts all rows of that file.
    ``totals`` counts the rows a run would use, by split. ``columns_of`` gives the column of each part, and
    ``suggestion`` a column for parts without one. ``problem`` says what keeps rows from becoming examples ('' if
    nothing does); the fields after it are filled as far as possible. ``notices`` are those of the run, and ``offer``
    is the switch in [data] that fixes the problem ('' for none). ``examples`` are those of the page, as pieces of text
    with whether they are trained (tokens if a tokenizer was given; the correct candidate counts as trained), and
    ``left_out`` counts the characters of each that are omitted in its middle. ``classes`` counts training examples by
    answer. ``lengths`` are (longest tokens of the bar, examples) over all splits, ``longest`` is the longest example,
    ``longest_tokens`` its length; ``cut`` counts examples that lose tokens. ``tokenizer_problem`` says why the model's
    tokenizer cannot be used, if there are no tokens.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    page: int
    available: int
    totals: dict[str, int]
    columns_of: dict[str, str]
    suggestion: dict[str, str]
    problem: str = ""
    offer: str = ""
    notices: tuple[Notice, ...] = ()
    examples: tuple[Pieces, ...] = ()
    left_out: tuple[int, ...] = ()
    classes: dict[str, int] | None = None
    lengths: tuple[tuple[int, int], ...] = ()
    longest: Pieces = ()
    longest_tokens: int = 0
    cut: int = 0
    tokenizer_problem: str = ""


def preview(table: DataTable, tokenizer: Any = None, page: int = 0, page_size: int = 50) -> DataPreview:
    """A page of rows and what they become. Raises `UserError` only if the source cannot be read at all."""
    return sources.finish(previewing(table, tokenizer, page, page_size))


def previewing(
    table: DataTable, tokenizer: Any = None, page: int = 0, page_size: int = 50, limits: Limits | None = None
) -> Generator[Progress, None, DataPreview]:
    """`preview`, yielding progress. Close the generator to cancel."""
    yield Progress("Reading data")
    rows = yield from sources.read_rows(table)
    kind = task(table.task)
    paged = _page(table, kind, page, page_size)
    there = columns.names(rows["train"])
    head = tuple(name for name in there if "." not in name)
    common: dict[str, Any] = {
        "columns": head,
        "rows": tuple(tuple(_cell(row, name) for name in head) for row in paged),
        "page": page,
        "available": rows["train"].total,
        "totals": {name: len(part) for name, part in rows.items()},
    }
    try:
        make = yield from sources.in_background(lambda: maker(table, rows, tokenizer), Progress("Preparing examples"))
    except UserError as error:
        return DataPreview(**common, columns_of={}, suggestion=suggest(kind, table, there), problem=str(error))
    common |= {"columns_of": make.parts, "suggestion": {}}
    try:
        splits, found = yield from prepare.prepared(make, rows, table, limits)
        notices = yield from sources.in_background(found.notices, Progress("Preparing examples"))
        common |= {"notices": notices, "offer": "merge_labels" if found.mergeable else ""}
        examples, left_out = _shown(make, paged, table)
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
    unfolded = (row for record in part() for row in sources.explode(record, kind.explode))
    return list(itertools.islice(unfolded, page * size, (page + 1) * size))


def _cell(row: Record, name: str) -> str:
    value = columns.get(row.values, name, "")
    if isinstance(value, dict | list):
        value = json.dumps(value, ensure_ascii=False, default=str)
    return "" if value is None else str(value)[:_CELL]


def _shown(make: Maker, paged: list[Record], table: DataTable) -> tuple[tuple[Pieces, ...], tuple[int, ...]]:
    """The examples of a page as pieces of text, and what is left out of each; rows without an example are skipped."""
    shown = []
    for row in paged:
        with suppress(UserError):
            for example, encoded in prepare.encoded_row(make, row, table.max_tokens):
                shown.append(rendering.shortened(rendering.pieces(example, encoded, make.tokenizer)))
    examples, left_out = (tuple(each[part] for each in shown) for part in (0, 1))
    return examples, left_out


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
