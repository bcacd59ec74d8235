"""Files to rows, one at a time, with an error message for everything that can be wrong in a file.

CSV and JSON are read with the standard library and Parquet with pyarrow, not with the builders of `datasets`: those
infer types from the whole file, hide row numbers, and keep a cache that can become stale.
"""

from __future__ import annotations

import gzip
import itertools
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from sparsezo_gui.engine.data import delimited, objects, parquet
from sparsezo_gui.engine.data.lines import COMPRESSED, lines
from sparsezo_gui.engine.data.record import Record
from sparsezo_gui.errors import UserError

PARTED_WITHIN = 16_000_000  # characters of a text searched for a blank line, which means that it has paragraphs


def kind(path: Path) -> str:
    """Suffix that decides how a file is read, without that of its compression: '.csv' for 'cats.CSV.gz'."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def read(path: Path) -> Iterator[Record]:
    """Rows of a file. Raises `UserError` that names file and row, also if there are no rows."""
    if kind(path) not in READERS:
        raise UserError(
            f"{path.name}: SparseZO cannot read this kind of file. Supported: {', '.join(READERS)}, also "
            f"compressed as .gz or .xz."
        )
    found = False
    try:
        for record in READERS[kind(path)](path):
            found = True
            yield record
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise UserError(
            f"{path.name}: cannot be unpacked ({error}); the file is damaged or truncated. Download it again."
        ) from error
    except MemoryError as error:  # the header of a .xz file can request it
        raise UserError(f"{path.name}: cannot be unpacked or read with the available memory.") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}).") from error
    if not found:
        raise UserError(f"{path.name}: the file has no rows. Choose a file with at least one example.")


def _text(path: Path) -> Iterator[Record]:
    """Paragraphs separated by blank lines, or the lines of a file without a blank line near its beginning."""
    parted, number, held = _parted(path), 0, []
    for line, text in enumerate(itertools.chain(lines(path), [""]), 1):
        if text.strip():
            held.append(text.rstrip("\r\n"))
        if held and not (parted and text.strip()):
            number += 1
            first = line - len(held) + bool(text.strip())
            yield Record({"text": "\n".join(held)}, path.name, number, first)
            held = []


def _parted(path: Path) -> bool:
    """Whether a blank line follows a line with text."""
    filled, left = False, PARTED_WITHIN
    for text in lines(path):
        if filled and not text.strip():
            return True
        filled, left = filled or bool(text.strip()), left - len(text)
        if left < 0:
            return False
    return False


READERS: dict[str, Callable[[Path], Iterator[Record]]] = {
    ".csv": delimited.read,
    ".tsv": delimited.read,
    ".json": objects.read,
    ".jsonl": objects.read_lines,
    ".ndjson": objects.read_lines,
    ".parquet": parquet.read,
    ".txt": _text,
}
