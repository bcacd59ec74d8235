"""Files to rows, one at a time, with a sentence for everything that can be wrong in one.

CSV and JSON are read with the standard library and Parquet with pyarrow, not with the builders of `datasets`: those
infer types over the whole file, hide row numbers, and keep a cache that can be stale.
"""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import lzma
import re
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsezo_gui.border import reason
from sparsezo_gui.errors import UserError

COMPRESSED: dict[str, Callable] = {".gz": gzip.open, ".xz": lzma.open}
SMALL, MOST_TIMES = 20_000_000, 100  # bytes that any file may unpack to; a larger one, so many times its size
MOST_BYTES = 10_000_000_000  # and no packed one to more than these; a larger one is unpacked by its owner
PARQUET_ROWS = 100  # read at a time
MOST_COLUMNS = 10_000
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
    except MemoryError as error:  # what the head of a .xz file asks for
        raise UserError(f"{path.name}: cannot be unpacked or read in the memory that there is.") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}).") from error
    if not found:
        raise UserError(f"{path.name}: the file holds no rows. Give a file with at least one example.")


def _lines(path: Path) -> Iterator[str]:
    """Lines of a text file in UTF-8, with their ends."""
    for number, line in enumerate(_unpacked(path), 1):
        if number == 1 and line.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise UserError(f"{path.name}: this is text in UTF-16. Save it as UTF-8.")
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise UserError(
                f"{path.name}, line {number}: byte {error.start + 1} is not text in UTF-8. Save the file as UTF-8."
            ) from error


def _unpacked(path: Path) -> Iterator[bytes]:
    """Lines of a file as bytes. A small file that was packed to unpack to a huge one is refused in time."""
    unpack = COMPRESSED.get(path.suffix.lower())
    left = _most(path) if unpack else sys.maxsize - 1  # a plain file holds what the disk does
    with (unpack or open)(path, "rb") as file:
        while line := file.readline(left + 1):
            left -= len(line)
            if left < 0:
                raise _too_large(path)
            yield line


def _most(path: Path) -> int:
    """Bytes that a packed file may unpack to."""
    return min(MOST_BYTES, max(SMALL, MOST_TIMES * path.stat().st_size))


def _too_large(path: Path) -> UserError:
    return UserError(
        f"{path.name}: unpacks to more than {MOST_TIMES} times its size or {MOST_BYTES / 1e9:g} GB, so it was not "
        "read. If you trust it, unpack it (or convert it to JSONL) and use that file."
    )


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
    if len(names) > MOST_COLUMNS:
        raise UserError(f"{path.name}: the header names {len(names):,} columns, more than {MOST_COLUMNS:,}.")
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise UserError(f"{path.name}: the header names '{name}' twice. Give each column its own name.")
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
    parted, number, held = _parted(path), 0, []
    for line, text in enumerate(itertools.chain(_lines(path), [""]), 1):
        if text.strip():
            held.append(text.rstrip("\r\n"))
        if held and not (parted and text.strip()):
            number += 1
            first = line - len(held) + bool(text.strip())
            yield Record({"text": "\n".join(held)}, path.name, number, first)
            held = []


def _parted(path: Path) -> bool:
    """Whether a blank line comes after one with text."""
    filled = False
    for text in _lines(path):
        if filled and not text.strip():
            return True
        filled = filled or bool(text.strip())
    return False


def _parquet(path: Path) -> Iterator[Record]:
    """Rows as they stand in the file: `datasets` would take its name for a pattern, and open paths that stand in it."""
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        with pyarrow.OSFile(str(path)) as file, ParquetFile(file) as table:
            rows = (row for batch in _counted(path, table) for row in batch.to_pylist())
            for number, values in enumerate(named(rows, _classes(table.schema_arrow.metadata)), 1):
                yield Record(values, path.name, number)
    except UserError:
        raise
    except Exception as error:  # of a dozen classes, some of which are no errors of values or of the system
        raise UserError(f"{path.name}: not a Parquet file that can be read ({reason(error)}).") from error


def _counted(path: Path, table: Any) -> Iterator[Any]:
    """Batches of rows, as far as they unfold to what data can: a short word for a long text may stand there often."""
    left = _most(path)
    told = (table.metadata.row_group(number).total_byte_size for number in range(table.num_row_groups))
    if sum(told) > left:
        raise _too_large(path)
    for batch in table.iter_batches(PARQUET_ROWS):
        left -= batch.nbytes
        if left < 0:
            raise _too_large(path)
        yield batch


def _classes(metadata: Any) -> dict[str, list[str]]:
    """Names of the classes by column, where `datasets` wrote them into the file."""
    features = json.loads((metadata or {}).get(b"huggingface", "{}")).get("info", {}).get("features", {})
    return {name: feature["names"] for name, feature in features.items() if feature.get("_type") == "ClassLabel"}


def named(rows: Iterable[dict[str, Any]], classes: Mapping[str, Sequence[str]]) -> Iterator[dict[str, Any]]:
    """Rows with class numbers turned into the names of their column's ``classes`` (−1, no label, into None)."""
    for row in rows:
        for name, words in classes.items():
            if isinstance(row[name], int):
                row[name] = words[row[name]] if row[name] >= 0 else None
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
