"""Parquet files to rows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from sparsezo_gui.engine.data.lines import most, too_large
from sparsezo_gui.engine.data.record import Binary, Record
from sparsezo_gui.errors import UserError
from sparsezo_gui.untrusted import reason

ROWS = 100  # read at a time
_CALLS = frozenset(("tool_calls", "function_call", "tools", "functions"))


def read(path: Path) -> Iterator[Record]:
    """Rows unchanged; `datasets` would treat the file name as a pattern, and open paths found in the file."""
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        with pyarrow.OSFile(str(path)) as file, ParquetFile(file) as table:
            rows = (plain(row) for batch in _counted(path, table) for row in batch.to_pylist(maps_as_pydicts="lossy"))
            for number, values in enumerate(named(rows, classes(table.schema_arrow.metadata)), 1):
                yield Record(values, path.name, number)
    except UserError:
        raise
    except Exception as error:  # of a dozen classes, some neither ValueError nor OSError
        raise UserError(f"{path.name}: not a readable Parquet file ({reason(error)}).") from error


def _counted(path: Path, table: Any) -> Iterator[Any]:
    """Batches of rows, within the size limit for unpacked data: the file may refer to a long text many times."""
    left = most(path)
    sizes = (table.metadata.row_group(number).total_byte_size for number in range(table.num_row_groups))
    if sum(sizes) > left:
        raise too_large(path)
    for batch in table.iter_batches(ROWS):
        left -= batch.nbytes
        if left < 0:
            raise too_large(path)
        yield batch


def classes(metadata: Mapping[bytes, bytes] | None) -> dict[str, list[str]]:
    """Class names by column, if `datasets` wrote them into the file.

    It describes each column's features in JSON; earlier versions describe a list of them with a list. Metadata in any
    other form names no classes, and the rows are read anyway.
    """
    try:
        features = json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"].items()
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return {}
    return {
        name: feature["names"]
        for name, feature in features
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and _are_words(feature.get("names"))
    }


def _are_words(names: Any) -> bool:
    return isinstance(names, list) and all(isinstance(name, str) for name in names)


def named(rows: Iterable[dict[str, Any]], classes: Mapping[str, Sequence[str]]) -> Iterator[dict[str, Any]]:
    """Rows with class numbers replaced by the names in their column's ``classes`` (−1, no label, by None)."""
    for row in rows:
        for name, words in classes.items():
            number = row.get(name)
            if isinstance(number, int) and number < len(words):
                row[name] = words[number] if number >= 0 else None
        yield row


def plain(value: Any) -> Any:
    """The value in JSON types. UTF-8 bytes become text, other bytes a `Binary`, dates and times ISO 8601 text. Tool
    calls lose their nulls: in Parquet all objects have the same fields, so a call has the arguments of all others."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, dict):
        return {str(key): plain(_given(item) if key in _CALLS else item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        return text_of(value)
    return value.isoformat() if isinstance(value, date | datetime | time) else str(value)


def _given(value: Any) -> Any:
    """``value`` without null fields."""
    if isinstance(value, dict):
        return {key: _given(item) for key, item in value.items() if item is not None}
    return [_given(item) for item in value] if isinstance(value, list) else value


def text_of(content: bytes) -> str | Binary:
    """Bytes as text: some programs do not say which columns hold text."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return Binary(len(content))
    return Binary(len(content)) if "\0" in text else text
