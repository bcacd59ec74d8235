"""JSON to rows: lists, lines, and concatenated objects, row by row, whatever the size of the file.

A file with a single JSON object is read in one of these layouts: it has exactly one list (of rows), or only objects
(id → row), or only lists of equal length (column → values), or what pandas writes (``to_json`` with ``orient``
'columns', 'index', 'split' or 'table').
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sparsezo_gui.engine.data.lines import lines, texts
from sparsezo_gui.engine.data.record import Record
from sparsezo_gui.errors import UserError

LARGEST = 16_000_000  # characters of one row, or of an object that is read in one piece
_GAP = re.compile(r"[\s\ufeff]*")
_BETWEEN = re.compile(r"[\s\ufeff,]*")
_NUMBERED = re.compile(r"\d+")
_decode = json.JSONDecoder().raw_decode


def read_lines(path: Path) -> Iterator[Record]:
    """Rows of a file with one object per line. Raises `UserError` with the line.

    Objects that span several lines, several objects in a line, and a list of objects are read too.
    """
    number = 0
    for line, text in enumerate(lines(path), 1):
        text = text.strip("\ufeff \t\r\n")
        if not text:
            continue
        if not number and (text[0] == "[" or not _is_whole(text)):
            yield from read(path)
            return
        for value in _values(path, line, text):
            number += 1
            yield _record(path, number, line, value)


def _is_whole(text: str) -> bool:
    """Whether the first object of a file ends in its first line, or is not valid at all."""
    try:
        _decode(text)
    except (ValueError, RecursionError):
        return text[0] != "{"
    return True


def _values(path: Path, line: int, text: str) -> Iterator[Any]:
    """Values in a line: mostly one."""
    try:
        yield json.loads(text)
        return
    except (ValueError, RecursionError) as error:
        found = error
    place = 0
    try:
        while place < len(text):
            value, place = _decode(text, place)
            place = _end(_BETWEEN, text, place)
            yield value
    except (ValueError, RecursionError):
        raise UserError(
            f"{path.name}, line {line}: not JSON ({_reason(found)}). Each line must be one object, such as "
            f'{{"text": "…"}}.'
        ) from found


def read(path: Path) -> Iterator[Record]:
    """Rows of a JSON file in any of the layouts. Raises `UserError` with the line."""
    source = _Text(path)
    sign = source.sign()
    rows = source.elements if sign == "[" else source.one_after_the_other if sign == "{" else source.nothing
    for number, (line, value) in enumerate(rows(), 1):
        yield _record(path, number, line, value)


class _Text:
    """The text of a file, with only the value being read in memory."""

    def __init__(self, path: Path):
        self.path, self._rest = path, texts(path)
        self._held, self._place, self._line, self._ended = "", 0, 1, False

    def sign(self, between: re.Pattern[str] = _GAP) -> str:
        """The next character that is not a gap; '' at the end."""
        while True:
            place = _end(between, self._held, self._place)
            self._line += self._held.count("\n", self._place, place)
            self._place = place
            if place < len(self._held) or not self._more():
                return self._held[place : place + 1]

    def _more(self) -> bool:
        """Reads more of the text, if there is any: doubles what is held."""
        size = max(1, len(self._held) - self._place)
        more = []
        while size > 0 and not self._ended:
            more.append(next(self._rest, ""))
            self._ended = not more[-1]
            size -= len(more[-1])
        self._held, self._place = self._held[self._place :] + "".join(more), 0
        return bool(more and more[0])

    def value(self) -> Any:
        """The value that begins here. Raises `UserError`."""
        while True:
            try:
                value, end = _decode(self._held, self._place)
                # A number may continue after what is held.
                if isinstance(value, dict | list | str) or end < len(self._held) or not self._more():
                    break
            except (ValueError, RecursionError) as error:
                full = len(self._held) - self._place > LARGEST
                if full or isinstance(error, RecursionError) or not self._more():
                    raise self._broken(error) from error
        self._line += self._held.count("\n", self._place, end)
        self._place = end
        return value

    def _broken(self, error: Exception) -> UserError:
        inside = self._held.count("\n", self._place, error.pos) if isinstance(error, json.JSONDecodeError) else 0
        line = self._line + inside
        much = "" if self._ended else f", or one row has more than {LARGEST:,} characters"
        return UserError(f"{self.path.name}, line {line}: not JSON ({_reason(error)}{much}).")

    def elements(self) -> Iterator[tuple[int, Any]]:
        """Line and value of each element of the list that begins here and ends with the file."""
        yield from self._list()
        if self.sign():
            raise UserError(
                f"{self.path.name}, line {self._line}: text after the end of the list. Put all rows into one list, or "
                "one object on each line."
            )

    def _list(self) -> Iterator[tuple[int, Any]]:
        self._place += 1
        while (sign := self.sign(_BETWEEN)) != "]":
            if not sign:
                raise UserError(f"{self.path.name}, line {self._line}: the file ends inside its list. Is it truncated?")
            yield self._line, self.value()
        self._place += 1

    def one_after_the_other(self) -> Iterator[tuple[int, Any]]:
        """Concatenated objects; for a single object, its rows."""
        line, first = self._line, self._first()
        if first is None:
            yield from self._large()
        elif not self.sign(_BETWEEN):
            yield from ((0, row) for row in _rows(self.path, first))
        else:
            yield line, first
            while self.sign(_BETWEEN):
                yield self._line, self.value()

    def _first(self) -> Any:
        """The first object; None if it is larger than a row may be."""
        while True:
            try:
                return self.value()
            except UserError:
                if self._ended:
                    raise
                return None

    def _large(self) -> Iterator[tuple[int, Any]]:
        """Rows of an object that is larger than a row may be: the only list in it, or else its objects."""
        self._place += 1
        list_name, first, count, alike = "", None, 0, True
        while (sign := self.sign(_BETWEEN)) != "}":
            line, name = self._line, self._name(sign)
            if self.sign() == "[":
                if list_name or count:
                    raise _unknown(self.path, [list_name, name] if list_name else [])
                list_name = name
                yield from self._list()
                continue
            value = self.value()
            if list_name or not isinstance(value, dict):
                continue
            if _is_column(name, value):
                raise UserError(
                    f"{self.path.name}: stores the values column by column and is too large to read that way. Save it "
                    "with one object per line (in pandas: orient='records', lines=True)."
                )
            first = first or (line, value)
            alike = alike and value.keys() == first[1].keys()
            if alike and value is not first[1]:
                yield from [(line, value)] if count else [first, (line, value)]
                count += 1
        if not list_name and not count:
            raise _unknown(self.path, [])

    def _name(self, sign: str) -> str:
        name: str | None = self.value() if sign == '"' else None
        if name is None or self.sign() != ":":
            raise UserError(f"{self.path.name}, line {self._line}: not JSON (a name and a colon are missing).")
        self._place += 1
        return name

    def nothing(self) -> Iterator[tuple[int, Any]]:
        """No rows. Raises `UserError` if there is anything."""
        if self.sign():
            raise _unknown(self.path, [])
        yield from ()


def _rows(path: Path, table: dict[str, Any]) -> list[Any]:
    """Rows of one object. Raises `UserError`."""
    lists = {name: value for name, value in table.items() if isinstance(value, list)}
    if {"columns", "data"} <= lists.keys() and _fit(lists["columns"], lists["data"]):
        return [dict(zip(map(str, lists["columns"]), row, strict=True)) for row in lists["data"]]
    if len(lists) == 1:
        return next(iter(lists.values()))
    if table and all(isinstance(value, dict) for value in table.values()):
        if not all(_is_column(name, value) for name, value in table.items()):
            return list(table.values())
        return [{name: value.get(row) for name, value in table.items()} for row in next(iter(table.values()))]
    even = len({len(value) for value in lists.values()}) == 1 and len(lists) == len(table)
    if even and not any(isinstance(item, dict) for value in lists.values() for item in value) and any(lists.values()):
        return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
    raise _unknown(path, list(lists))


def _fit(columns: list[Any], rows: list[Any]) -> bool:
    return all(isinstance(row, list) and len(row) == len(columns) for row in rows)


def _is_column(name: str, value: dict[str, Any]) -> bool:
    """Whether an object maps row numbers to the values of a column, as pandas writes it."""
    return not _NUMBERED.fullmatch(name) and bool(value) and all(map(_NUMBERED.fullmatch, value))


def _unknown(path: Path, lists: list[str]) -> UserError:
    found = f"; this one has {len(lists)}: {', '.join(lists)}" if lists else ""
    return UserError(
        f"{path.name}: needs a list of objects, or an object with exactly one list{found}. Or write one object per "
        "line, as .jsonl."
    )


def _reason(error: Exception) -> str:
    return getattr(error, "msg", "nested too deeply, or a number too long")


def _record(path: Path, number: int, line: int, value: Any) -> Record:
    if isinstance(value, str):
        value = {"text": value}
    record = Record(value, path.name, number, line)
    if not isinstance(value, dict):
        raise UserError(
            f'{record.place}: must be an object with columns, such as {{"text": "…"}}, not {type(value).__name__}.'
        )
    return record


def _end(gap: re.Pattern[str], text: str, place: int) -> int:
    """Where the ``gap`` at a place, which may be empty, ends."""
    found = gap.match(text, place)
    return found.end() if found else place
