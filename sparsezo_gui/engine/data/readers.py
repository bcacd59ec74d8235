"""Files to rows, one at a time, with a sentence for everything that can be wrong in one.

CSV and JSON are read with the standard library and not with the builders of `datasets`: those infer types over the
whole file, hide row numbers, and keep a cache that can be stale. Parquet, which carries its types, goes through them.
"""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsezo_gui.errors import UserError

COMPRESSED: dict[str, Callable] = {".gz": gzip.open, ".xz": lzma.open}
LARGEST_FIELD = 16_000_000  # characters; a CSV field larger than this is a quote that was never closed
_QUOTED = re.compile(r'(?:^|\t)"(?:[^"\t\n]|"")*"(?=\t|\r?$)', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Record:
    """One row: its values by column, and where it was read. ``number`` counts rows from 1, ``line`` the lines."""

    values: dict[str, Any]
    source: str
    number: int
    line: int = 0

    @property
    def place(self) -> str:
        """For sentences: 'cats.csv, row 3 (line 4)'."""
        line = f" (line {self.line})" if self.line not in (0, self.number) else ""
        return f"{self.source}, row {self.number}{line}"


def kind(path: Path) -> str:
    """Suffix that says how a file is read, without that of its compression: '.csv' of 'cats.CSV.gz'."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def read(path: Path) -> Iterator[Record]:
    """Rows of one file. Raises `UserError` that names file and row; also when there is no row at all."""
    if kind(path) not in READERS:
        raise UserError(
            f"{path.name}: SparseZO does not know this kind of file. Known: {', '.join(READERS)}, and "
            f"these packed as .gz or .xz."
        )
    found = False
    try:
        for record in READERS[kind(path)](path):
            found = True
            yield record
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise UserError(
            f"{path.name}: cannot be unpacked ({error}); the file is damaged or was cut. Get it again."
        ) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}).") from error
    if not found:
        raise UserError(f"{path.name}: the file holds no rows. Give a file with at least one example.")


def _lines(path: Path) -> Iterator[str]:
    """Lines of a text file in UTF-8, with their ends."""
    opened = COMPRESSED.get(path.suffix.lower(), open)(path, "rb")
    with opened as file:
        for number, line in enumerate(file, 1):
            if number == 1 and line.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise UserError(f"{path.name}: this is text in UTF-16. Save it as UTF-8.")
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{path.name}, line {number}: byte {error.start + 1} is not text in UTF-8. Save the file as UTF-8."
                ) from error


def _csv(path: Path) -> Iterator[Record]:
    csv.field_size_limit(LARGEST_FIELD)
    lines = _lines(path)
    head = list(itertools.islice(lines, 100))
    reader = csv.reader(itertools.chain(head, lines), strict=True, **_dialect(path, head))
    try:
        header = next((fields for fields in reader if fields), None)
        if header is None:
            raise UserError(f"{path.name}: the file is empty.")
        columns = _columns(path, header)
        number, line = 0, reader.line_num + 1
        for fields in reader:
            if fields:
                number += 1
                record = Record(dict(zip(columns, fields, strict=False)), path.name, number, line)
                if len(fields) != len(columns):
                    raise UserError(
                        f"{record.place}: {len(fields)} fields, but the header names {len(columns)} columns "
                        f"({', '.join(columns)}). Put a text that holds the separator into double quotes."
                    )
                yield record
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"{path.name}, line {reader.line_num}: {error}. Look for a double quote that is not closed or not doubled."
        ) from error
    if not number:
        raise UserError(f"{path.name}: there is a header ({', '.join(columns)}) and no row below it.")


def _dialect(path: Path, head: list[str]) -> dict[str, Any]:
    """Separator and quoting. Tab-separated data sets mostly hold bare quotes; only a field that both begins and ends
    with one says that quotes are meant. Spreadsheets of half of Europe write semicolons into .csv files."""
    if kind(path) == ".tsv":
        quoted = _QUOTED.search("".join(head))
        return {"delimiter": "\t", "quoting": csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE}
    first = next((line for line in head if line.strip()), "")
    return {"delimiter": "," if "," in first else next((sign for sign in ";\t" if sign in first), ",")}


def _columns(path: Path, header: list[str]) -> list[str]:
    names = [name.strip() or f"column {index}" for index, name in enumerate(header, 1)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{path.name}: the header names '{twice[0]}' twice. Give each column its own name.")
    return names


def _jsonl(path: Path) -> Iterator[Record]:
    number = 0
    for line, text in enumerate(_lines(path), 1):
        if text.strip():
            number += 1
            try:
                value = json.loads(text)
            except (ValueError, RecursionError) as error:
                reason = getattr(error, "msg", "nested too deeply, or a number too long")
                raise UserError(
                    f"{path.name}, line {line}: not JSON ({reason}). Each line must be one object, such as "
                    f'{{"text": "…"}}.'
                ) from error
            yield _record(path, number, line, value)


def _json(path: Path) -> Iterator[Record]:
    text = "".join(_lines(path))
    if not text.strip():
        return
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and error.lineno > 1:  # one object per line under the name .json: common
            yield from _jsonl(path)
            return
        raise UserError(f"{path.name}, line {error.lineno}: not JSON ({error.msg}).") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path.name}: not JSON that can be read (nested too deeply, or a number too long).") from error
    for number, item in enumerate(_items(path, value), 1):
        yield _record(path, number, 0, item)


def _items(path: Path, value: Any) -> list:
    if isinstance(value, list):
        return value
    lists = {key: item for key, item in value.items() if isinstance(item, list)} if isinstance(value, dict) else {}
    if len(lists) == 1:
        return next(iter(lists.values()))
    raise UserError(
        f"{path.name}: needs a list of objects, or an object that holds exactly one list"
        f"{f'; this one holds {len(lists)}: ' + ', '.join(lists) if lists else ''}."
    )


def _record(path: Path, number: int, line: int, value: Any) -> Record:
    if isinstance(value, str):
        value = {"text": value}
    record = Record(value, path.name, number, line)
    if not isinstance(value, dict):
        raise UserError(
            f'{record.place}: must be an object with columns, such as {{"text": "…"}}, not {type(value).__name__}.'
        )
    return record


def _text(path: Path) -> Iterator[Record]:
    """Paragraphs between blank lines; a file without a blank line gives its lines."""
    number, held = 0, []
    for line, text in enumerate(itertools.chain(_lines(path), [None]), 1):
        if text is not None and text.strip():
            held.append((line, text.rstrip("\r\n")))
        elif held:
            end = text is None and number == 0
            for paragraph in [[line] for line in held] if end else [held]:
                number += 1
                yield Record({"text": "\n".join(text for _, text in paragraph)}, path.name, number, paragraph[0][0])
            held = []


def _parquet(path: Path) -> Iterator[Record]:
    from datasets import load_dataset

    try:
        rows = load_dataset("parquet", data_files=str(path), split="train", streaming=True)
        for number, values in enumerate(named(rows), 1):
            yield Record(values, path.name, number)
    except (ValueError, OSError, TypeError, KeyError) as error:
        raise UserError(f"{path.name}: not a Parquet file that can be read ({str(error).splitlines()[0]}).") from error


def named(rows: Any) -> Iterator[dict[str, Any]]:
    """Rows of a `datasets` data set, with class numbers turned into their names (−1, no label, into None)."""
    from datasets import ClassLabel

    classes = {name: feature for name, feature in (rows.features or {}).items() if isinstance(feature, ClassLabel)}
    for row in rows:
        for name, feature in classes.items():
            if isinstance(row[name], int):
                row[name] = feature.int2str(row[name]) if row[name] >= 0 else None
        yield row


READERS: dict[str, Callable[[Path], Iterator[Record]]] = {
    ".csv": _csv,
    ".tsv": _csv,
    ".json": _json,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".parquet": _parquet,
    ".txt": _text,
}
