"""What the window shows of a data set before a run: its rows, and the very tokens the model will see."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any

from sparsezo_gui.engine.data import columns, prepare, sources
from sparsezo_gui.engine.data.conversations import Unused
from sparsezo_gui.engine.data.encode import Encoded, begun, ended
from sparsezo_gui.engine.data.examples import Example, Maker, maker
from sparsezo_gui.engine.data.readers import Record
from sparsezo_gui.engine.data.tasks import Task, task
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.events import Progress
from sparsezo_gui.recipe.recipe import DataTable

Pieces = tuple[tuple[str, bool], ...]
_BARS = 20  # of the length histogram
SHOWN = 10_000  # characters of an example; of a longer one, so many of its beginning and end
_CELL = 5_000  # characters of a cell
_HINTS = {  # words in a column's name that speak for a part, beyond the names a task knows
    "answer": ("label", "class", "categor", "answer", "target", "output", "respon", "complet", "tag", "reply"),
    "prompt": ("prompt", "question", "instruct", "input", "source", "text"),
    "text": ("text", "content", "body", "sentence", "message", "review", "title", "input", "question"),
    "messages": ("messag", "conversation", "chat", "dialog", "turn"),
}


@dataclass(frozen=True)
class DataPreview:
    """One page of a data set, and what would become of it.

    ``rows`` are the cells of the page as text, in the file's order, and ``available`` counts all rows of that file.
    ``totals`` counts the examples a run would use, by split. ``columns_of`` gives the column of each part, and
    ``suggestion`` a column for parts that have none. ``problem`` says what keeps rows from becoming examples ('' when
    nothing does); the fields below it are filled as far as it lets them. ``examples`` are those of the page, as pieces
    of text with whether they are trained (tokens where a tokenizer was given; the right candidate counts as trained),
    and ``left_out`` counts the characters of each that are not shown, in its middle.
    ``classes`` counts training examples by answer. ``lengths`` are (longest tokens of the bar, examples) over all
    splits, ``longest`` is the longest example, ``longest_tokens`` its length; ``cut`` counts examples that lose tokens.
    ``tokenizer_problem`` says why there are no tokens where the model's tokenizer cannot be used.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    page: int
    available: int
    totals: dict[str, int]
    columns_of: dict[str, str]
    suggestion: dict[str, str]
    problem: str = ""
    notices: tuple[str, ...] = ()
    examples: tuple[Pieces, ...] = ()
    left_out: tuple[int, ...] = ()
    classes: dict[str, int] | None = None
    lengths: tuple[tuple[int, int], ...] = ()
    longest: Pieces = ()
    longest_tokens: int = 0
    cut: int = 0
    tokenizer_problem: str = ""


def preview(table: DataTable, tokenizer: Any = None, page: int = 0, page_size: int = 50) -> DataPreview:
    """A page of rows and what they become. Raises `UserError` only when the source cannot be read at all."""
    return sources.finish(previewing(table, tokenizer, page, page_size))


def previewing(
    table: DataTable, tokenizer: Any = None, page: int = 0, page_size: int = 50
) -> Generator[Progress, None, DataPreview]:
    """`preview`, telling how far it is. Close the generator to cancel."""
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
        "notices": tuple(part.note for part in rows.values() if part.note),
    }
    try:
        make = maker(table, rows, tokenizer)
    except UserError as error:
        return DataPreview(**common, columns_of={}, suggestion=suggest(kind, table, there), problem=str(error))
    common |= {"columns_of": make.parts, "suggestion": {}}
    try:
        shown = [pieces(make.example(row), tokenizer) for row in paged]
        examples, left_out = (tuple(each[part] for each in shown) for part in (0, 1))
        make = replace(make, unused=Unused(make.unused.noun))  # the page's rows are counted among all
        statistics = yield from _statistics(make, rows, table)
        common["notices"] = (*make.notices, *common["notices"])
        return DataPreview(**common, examples=examples, left_out=left_out, **statistics)
    except UserError as error:
        return DataPreview(**common, problem=str(error))


def suggest(kind: Task, table: DataTable, there: tuple[str, ...]) -> dict[str, str]:
    """A column for each part that has none: by a word in its name, or the only one left."""
    wanted = [
        part
        for part in kind.columns
        if part not in columns.LATER
        and table.columns.get(part) not in there
        and not any(name in there for name in kind.columns[part])
    ]
    taken = set(table.columns.values()) | {name for names in kind.columns.values() for name in names}
    found: dict[str, str] = {}
    for part in wanted:
        free = [name for name in there if name not in taken and name not in found.values()]
        hinted = [name for name in free if any(hint in name.lower() for hint in _HINTS.get(part, (part,)))]
        if guess := (hinted or (free if len(free) == 1 else [])):
            found[part] = guess[0]
    return found


def pieces(example: Example, tokenizer: Any = None) -> tuple[Pieces, int]:
    """The text of an example, with its right candidate as the trained part: token by token with a tokenizer. Also how
    many characters of its middle are left out."""
    parts = list(example.segments)
    if example.choices:
        parts.append((example.choices[example.label], True))
    parts, left_out = _ends(parts)
    if tokenizer is None:
        return tuple(parts), left_out
    ends = parts[-1][1] and (example.ends or not example.choices)
    return tuple(_tokens(replace(example, segments=tuple(parts)), tokenizer, ends)), left_out


def _ends(parts: list[tuple[str, bool]]) -> tuple[list[tuple[str, bool]], int]:
    """Beginning and end of a text that is too long to be shown, with a sign between them; what is left out."""
    over = sum(len(text) for text, _ in parts) - SHOWN
    if over <= 0:
        return parts, 0
    kept, start, first = [], 0, SHOWN // 2  # the middle is [first, first + over)
    for text, trained in parts:
        begin, end = max(0, first - start), max(0, first + over - start)
        sign = "…" if 0 <= first - start < len(text) else ""
        kept.append((text[:begin] + sign + text[end:], trained))
        start += len(text)
    return [part for part in kept if part[0]], over


def _tokens(example: Example, tokenizer: Any, ends: bool) -> Iterator[tuple[str, bool]]:
    """Tokens of an example's segments as the model sees them, with the ones before the text and, where it ``ends``,
    after it. Each is the text since the one before it, so that together they are the text: a token that is part of a
    character is empty."""
    prefix, whole = begun(example, tokenizer)
    yield from ((name, False) for name in tokenizer.convert_ids_to_tokens(list(prefix)))
    text = "".join(text for text, _ in example.segments)
    begin = 0
    for token, owner, end in zip(whole.tokens, whole.owners, whole.ends, strict=True):
        yield tokenizer.decode([token]) if end is None else text[begin:end], example.segments[owner][1]
        begin = max(begin, end or 0)
    if ends and len(ended(whole, tokenizer, 0).tokens) > len(whole.tokens):
        yield tokenizer.eos_token, True


def _page(table: DataTable, kind: Task, page: int, size: int) -> list[Record]:
    """Rows of a page, in the order of the file that the training rows come from."""
    parts = sources.find(table.source)
    part = parts.get("train") or next(iter(parts.values()))
    unfolded = (row for record in part() for row in sources.explode(record, kind.explode))
    return list(itertools.islice(unfolded, page * size, (page + 1) * size))


def _cell(row: Record, name: str) -> str:
    value = columns.get(row.values, name, "")
    return "" if value is None else str(value)[:_CELL]


def _statistics(
    make: Maker, rows: dict[str, sources.Rows], table: DataTable
) -> Generator[Progress, None, dict[str, Any]]:
    """Balance of the answers; with a tokenizer also the lengths of all examples."""
    labels, encoded, work = Counter[str](), [], prepare.Preparing(rows)
    for name, part in rows.items():
        for row in part:
            yield from work.next()
            example = make.example(row)
            if name == "train" and example.choices:
                labels[example.choices[example.label].strip()] += 1
            if make.tokenizer is not None:
                encoded += prepare.encoded_example(make, example, row, table.max_tokens)
    classes = dict(sorted(labels.items())) if make.answers else None
    if make.tokenizer is None:
        return {"classes": classes}
    longest, most = max(encoded, key=lambda pair: pair[1].length)
    return {
        "classes": classes,
        "lengths": _histogram([one for _, one in encoded]),
        "longest": pieces(longest, make.tokenizer)[0],
        "longest_tokens": most.length,
        "cut": sum(one.cut > 0 for _, one in encoded),
    }


def _histogram(encoded: list[Encoded]) -> tuple[tuple[int, int], ...]:
    longest = max(one.length for one in encoded)
    width = -(-longest // _BARS)
    counts = Counter((one.length - 1) // width for one in encoded)
    return tuple(((bar + 1) * width, counts[bar]) for bar in range(-(-longest // width)))
