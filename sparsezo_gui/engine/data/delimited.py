"""CSV and tab-separated files to rows.

A suffix does not say which separator a file has: in half of Europe spreadsheets write semicolons into .csv files. It is
the one with which the header and all rows at the beginning of the file have the same number of fields, more than one;
or the one named by Excel's first line 'sep=;'. Most tab-separated data sets contain bare quotes, but in some, quotes
enclose fields. The first rows with a quote decide which; a later contradiction is reported with its line.
"""

from __future__ import annotations

import csv
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from sparsezo_gui.engine.data.lines import lines
from sparsezo_gui.engine.data.record import Record
from sparsezo_gui.errors import UserError

SEPARATORS = ",;\t|"
SAMPLE, SAMPLE_CHARACTERS = 1000, 1_000_000  # of the beginning, to detect separator and quoting
MOST_COLUMNS = 10_000
LARGEST_FIELD = 16_000_000  # characters; a larger field means a quote that was never closed
QUOTED: Final = csv.QUOTE_MINIMAL
UNQUOTED: Final = csv.QUOTE_NONE
_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_SEP = re.compile(r'"?sep=([^"\r\n])"?[,;\t]*\s*', re.IGNORECASE)
_WRAPPED = re.compile(r'"(?:[^"]|"")*"')
_PROSE = 0.5  # of the separators; if a space follows more of them, they are punctuation
_SHORT = 40  # characters of a value that may be a label


@dataclass(frozen=True)
class Dialect:
    """How a line is split into fields. ``quoting`` is `QUOTED`, `UNQUOTED`, or None before the first quote."""

    separator: str
    quoting: Literal[0, 3] | None = QUOTED
    spaced: bool = False

    def reader(self, rows: Iterable[str]) -> Any:
        """A reader from the standard library."""
        quoting = UNQUOTED if self.quoting is None else self.quoting
        return csv.reader(
            rows, strict=True, delimiter=self.separator, quoting=quoting, skipinitialspace=self.spaced
        )  # fmt: skip


class Lines(Iterator[str]):
    """Lines of a file that can be peeked at. ``taken`` are the lines of the row being read, ``number`` is that of the
    last one."""

    def __init__(self, rest: Iterator[str]):
        self._rest, self._ahead, self.ended = rest, deque[str](), False
        self.number, self.taken = 0, list[str]()

    def __next__(self) -> str:
        line = self._ahead.popleft() if self._ahead else next(self._rest)
        self.number += 1
        self.taken.append(line)
        return line

    def peek(self, count: int = SAMPLE) -> list[str]:
        """The next lines, at most ``count``, without taking them. ``ended`` says whether there are no more."""
        size = sum(map(len, self._ahead))
        while len(self._ahead) < count and size < SAMPLE_CHARACTERS and not self.ended:
            line = next(self._rest, None)
            if line is None:
                self.ended = True
            else:
                self._ahead.append(line)
                size += len(line)
        return list(self._ahead)[:count]

    def until_quote(self) -> Iterator[str]:
        """Lines before the first one with a double quote."""
        while '"' not in (self.peek(1) or ['"'])[0]:
            yield next(self)


def read(path: Path) -> Iterator[Record]:
    """Rows of a CSV or tab-separated file. Raises `UserError` with the line."""
    csv.field_size_limit(LARGEST_FIELD)
    return _Table(path, Lines(lines(path))).rows()


class _Table:
    def __init__(self, path: Path, source: Lines):
        self.path, self.source = path, source
        self.given = _SEP.fullmatch((source.peek(1) or [""])[0])
        if self.given:
            next(source)
        self.sample = source.peek()
        self.dialect = self._dialect()
        self.patterns = _Patterns(self.sample, self.dialect)

    def _dialect(self) -> Dialect:
        if self.given:
            return _quoted(Dialect(self.given[1]), self.sample)
        usual = "\t" if ".tsv" in self.path.name.lower() else ","
        found = [_Candidate(dialect, self.sample, self.source.ended) for dialect in _dialects(usual)]
        best = max(found, key=lambda each: each.rank)
        rivals = [sign for sign in SEPARATORS if any(each.rank == best.rank and each.dialect.separator == sign
                                                     for each in found)]  # fmt: skip
        if best.agrees and best.rows > 1 and len(rivals) > 1:
            signs = " and ".join(_NAMES[sign] for sign in rivals)
            raise UserError(
                f"{self.path.name}: {signs} split all rows equally well, so the separator is unclear. Add a first line "
                f"that names it, such as sep={rivals[-1]}"
            )
        dialect = replace(best.dialect, spaced=best.spaced) if best.fields > 1 else Dialect(usual)
        return _quoted(dialect, self.sample)

    def rows(self) -> Iterator[Record]:
        number, columns = 0, list[str]()
        for line, fields in self._fields():
            if not columns:
                columns = _columns(self.path, fields)
                continue
            number += 1
            record = Record(dict(zip(columns, fields, strict=False)), self.path.name, number, line)
            if len(fields) != len(columns):
                raise UserError(f"{record.place}: {len(fields)} fields, but the header names {len(columns)} columns "
                                f"({', '.join(columns)}). {self._hint(len(columns))}")  # fmt: skip
            yield record
        if not columns:
            raise UserError(f"{self.path.name}: the file is empty.")
        if not number:
            raise UserError(f"{self.path.name}: the file has a header ({', '.join(columns)}) but no rows.")

    def _fields(self) -> Iterator[tuple[int, list[str]]]:
        """Line number and fields of each non-empty row, the header first."""
        source = self.source
        try:
            if self.dialect.quoting is None:
                yield from self._each(self.dialect.reader(source.until_quote()))
                self.dialect = _quoted(self.dialect, source.peek())
            yield from self._each(self.dialect.reader(source))
        except csv.Error as error:
            first = source.number - len(source.taken) + 1
            raise UserError(
                f"{self.path.name}, line {source.number}: {error}. Look for a double quote that is not closed or not "
                f"doubled in the row that begins in line {first}."
            ) from error

    def _each(self, reader: Any) -> Iterator[tuple[int, list[str]]]:
        taken = self.source.taken
        for fields in reader:
            if fields:
                first = self.source.number - len(taken) + 1
                self._check(first, taken)
                yield first, fields
            taken.clear()

    def _check(self, first: int, taken: list[str]) -> None:
        """Raises `UserError` if a quote seems to be misinterpreted."""
        if self.dialect.quoting != QUOTED:
            return
        if len(taken) > 1 and self.patterns.are_rows(taken):
            raise UserError(
                f"{self.path.name}, line {first}: a double quote opens a field that ends in line "
                f"{first + len(taken) - 1}, and each line of it looks like a row. If the quote belongs to the text, "
                'enclose the field in double quotes and write the quote as "".'
            )
        if self.dialect.separator == "\t" and len(taken) == 1 and '"' in taken[0] and self.patterns.is_bare(taken[0]):
            raise UserError(
                f"{self.path.name}, line {first}: a double quote is inside a field, but earlier fields are enclosed in "
                "double quotes, so it is unclear whether quotes belong to the text. Save the file as JSONL or CSV."
            )

    def _hint(self, columns: int) -> str:
        sign = _NAMES.get(self.dialect.separator, f"'{self.dialect.separator}'")
        if self.given:
            return f"The first line says that they are separated by {sign}."
        tried = "" if columns > 1 else " (semicolons, tabs and vertical bars were tried too)"
        quote = "" if self.dialect.quoting == UNQUOTED else " Enclose text that contains it in double quotes."
        return f"They are separated by {sign}{tried}.{quote}"


class _Candidate:
    """A dialect, and how well the rows of a sample agree with it."""

    def __init__(self, dialect: Dialect, sample: Sequence[str], ended: bool):
        self.dialect = dialect
        rows, broken = _parse(dialect, sample, ended)
        self.rows, self.fields = len(rows), len(rows[0]) if rows else 0
        same = sum(len(row) == self.fields for row in rows)
        self.agrees = self.fields > 1 and same == len(rows) and not broken
        gaps = [field[:1].isspace() for row in rows for field in row[1:]]
        self.spaced = dialect.spaced or (bool(gaps) and all(gaps))  # also in the header: the separator includes a space
        prose = self.spaced or sum(gaps) > _PROSE * len(gaps)
        # Of those with which all rows agree, the one that is not punctuation and splits the most. Else the one with
        # which most rows agree.
        self.rank = (
            (1, not prose, dialect.separator == "\t", self.fields)
            if self.agrees
            else (0, self.fields > 1 and same / len(rows), 0, 0)
        )


class _Patterns:
    """What the lines at the beginning of a file have in common, to tell lines of text from rows."""

    def __init__(self, sample: Sequence[str], dialect: Dialect):
        self._separator = dialect.separator
        rows = _split(sample, dialect.separator)
        self._count = Counter(map(len, rows)).most_common(1)[0][0] if rows else 0
        columns = list(zip(*(row for row in rows if len(row) == self._count <= MOST_COLUMNS), strict=True))
        self._usual = [{value for value, times in Counter(each[1:]).items() if times > 1} for each in columns]
        self._numeric = [len(each) > 2 and all(map(_is_number, each[1:])) for each in columns]

    def are_rows(self, taken: Sequence[str]) -> bool:
        """Whether each line of one row looks like a row itself: it has as many fields, and one of them is common in its
        column, or a number in a column of numbers; or there are many such lines that are not prose."""
        rows = _split(taken, self._separator)
        if self._count < 2 or any(len(row) != self._count for row in rows):
            return False
        if all(any(map(self._is_usual, range(self._count), row)) for row in rows):
            return True
        fields = [field for row in rows for field in row[1:]]
        return len(rows) > 3 and all(field.strip() and not field[0].isspace() for field in fields)

    def _is_usual(self, column: int, value: str) -> bool:
        known = 0 < len(value) < _SHORT and value in self._usual[column]
        return known or (self._numeric[column] and _is_number(value))

    def is_bare(self, line: str) -> bool:
        """Whether there is a quote inside an unquoted field."""
        return any(map(_is_bare, *_split([line], self._separator)))


def _dialects(usual: str) -> Iterator[Dialect]:
    """All dialects to try, the likely ones first."""
    for spaced in (False, True):
        for sign in (usual, *SEPARATORS.replace(usual, "")):
            yield Dialect(sign, QUOTED, spaced)
            if sign == "\t":
                yield Dialect(sign, UNQUOTED)


def _parse(dialect: Dialect, sample: Sequence[str], ended: bool) -> tuple[list[list[str]], bool]:
    """The non-empty rows of a sample, and whether reading failed before its end."""
    rows, reader = list[list[str]](), dialect.reader(sample)
    try:
        rows += (fields for fields in reader if fields)
    except csv.Error:  # at the very end: a field that continues after the sample
        return rows, ended or reader.line_num < len(sample)
    return rows, False


def _quoted(dialect: Dialect, sample: Sequence[str]) -> Dialect:
    """The dialect with its quoting. Quotes enclose fields in all files without tabs; in files with tabs, if some fields
    are quoted and no other field contains a quote, or if single lines do not form rows."""
    if dialect.separator != "\t":
        return dialect
    rows = _split(sample, "\t")
    held = [field for row in rows for field in row if '"' in field]
    if not held:
        return Dialect("\t", None)
    aligned = len(set(map(len, rows))) == 1
    meant = not any(map(_is_bare, held)) if aligned else any(map(_WRAPPED.fullmatch, held)) or _agrees(sample)
    return Dialect("\t", QUOTED if meant else UNQUOTED)


def _agrees(sample: Sequence[str]) -> bool:
    return _Candidate(Dialect("\t"), sample, False).agrees


def _split(sample: Iterable[str], separator: str) -> list[list[str]]:
    """Fields of each non-empty line, with quotes as ordinary characters."""
    return [line.rstrip("\r\n").split(separator) for line in sample if line.strip("\r\n")]


def _is_bare(field: str) -> bool:
    return '"' in field and not _WRAPPED.fullmatch(field)


def _is_number(value: str) -> bool:
    try:
        float(value.strip().strip('"').replace(",", "."))
    except ValueError:
        return False
    return True


def _columns(path: Path, header: list[str]) -> list[str]:
    names = [name.strip() or f"column {index}" for index, name in enumerate(header, 1)]
    if len(names) > MOST_COLUMNS:
        raise UserError(f"{path.name}: the header names {len(names):,} columns, more than {MOST_COLUMNS:,}.")
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise UserError(f"{path.name}: the header names '{name}' twice. Give each column its own name.")
    return names
