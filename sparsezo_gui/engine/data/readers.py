"""Files to rows, one at a time, with a sentence for everything that can be wrong in one.

CSV and JSON are read with the standard library and Parquet with pyarrow, not with the builders of `datasets`: those
infer types over the whole file, hide row numbers, and keep a cache that can be stale.
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

PARTED_WITHIN = 16_000_000  # characters of a text, in which a blank line says that it has paragraphs


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


def _text(path: Path) -> Iterator[Record]:
    """Paragraphs between blank lines; a file without a blank line at its beginning gives its lines."""
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
    """Whether a blank line comes after one with text."""
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
