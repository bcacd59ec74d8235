"""Files to text: decompressed within a safe limit, decoded, and split into lines."""

from __future__ import annotations

import codecs
import itertools
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from sparsezo_gui.errors import UserError
from sparsezo_gui.formats import COMPRESSED
from sparsezo_gui.sizes import size

SMALL, MOST_TIMES = 20 << 20, 100  # bytes any file may unpack to; a larger one, this many times its size
MOST_BYTES = 10 << 30  # and no compressed file to more; the user has to unpack a larger one
PIECE = 2**20  # bytes read at a time
_MARKS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF16_LE: "utf-16",
          codecs.BOM_UTF16_BE: "utf-16"}  # fmt: skip


def lines(path: Path) -> Iterator[str]:
    """Lines of a text file with their line ends: LF and CR LF, or CR alone if the beginning of the file has no LF."""
    held: list[str] = []
    end = ""
    for text in texts(path):
        end = end or ("\n" if "\n" in text else "\r" if "\r" in text[:-1] else "")
        *complete, rest = text.split(end) if end else [text]
        for piece in complete:
            yield "".join((*held, piece, end)) if held else piece + end
            held.clear()
        if rest:
            held.append(rest)
    if held:
        yield "".join(held)


def texts(path: Path) -> Iterator[str]:
    """Text of a file in pieces: UTF-8, or UTF-16 or UTF-32 if the file begins with their byte order mark.

    Raises `UserError` with the line for bytes that are not valid text.
    """
    decoder, number, column = None, 1, 0  # the line and its bytes before the piece
    for piece in itertools.chain(pieces(path), [b""]):
        decoder = decoder or codecs.getincrementaldecoder(_encoding(path, piece))()
        try:
            text = decoder.decode(piece, final=not piece)
        except UnicodeDecodeError as error:
            before = error.object[: error.start]
            column = error.start - before.rfind(b"\n") if b"\n" in before else column + error.start + 1
            line = number + before.count(b"\n")
            raise UserError(
                f"{path.name}, line {line}: byte {column} is not valid UTF-8. Save the file as UTF-8."
            ) from error
        number += text.count("\n")
        column = len(text.rpartition("\n")[2].encode()) + (0 if "\n" in text else column)
        if text:
            yield text


def _encoding(path: Path, piece: bytes) -> str:
    if piece.startswith(b"PK\x03\x04"):
        raise UserError(
            f"{path.name}: this is an Excel workbook or another ZIP archive, whatever its name. Save the table as CSV."
        )
    found = next((name for mark, name in _MARKS.items() if piece.startswith(mark)), "utf-8-sig")
    if found == "utf-8-sig" and piece.count(0) * 4 > len(piece):
        raise UserError(
            f"{path.name}: many bytes are zero, so this is not UTF-8 text (maybe UTF-16 without a byte order mark). "
            "Save the file as UTF-8."
        )
    return found


def pieces(path: Path) -> Iterator[bytes]:
    """Decompressed bytes of a file. A small file that unpacks to a huge one (a zip bomb) is refused in time."""
    module = COMPRESSED.get(path.suffix.lower())
    unpack = import_module(module).open if module else None
    left = most(path) if unpack else sys.maxsize  # an uncompressed file cannot grow
    with (unpack or open)(path, "rb") as file:
        while piece := file.read(PIECE):
            left -= len(piece)
            if left < 0:
                raise too_large(path)
            yield piece


def most(path: Path) -> int:
    """Bytes that a compressed file may unpack to."""
    return min(MOST_BYTES, max(SMALL, MOST_TIMES * path.stat().st_size))


def too_large(path: Path) -> UserError:
    """For a file that unpacks to more than `most`."""
    return UserError(
        f"{path.name}: unpacks to more than {MOST_TIMES} times its size or {size(MOST_BYTES)}, so it was not "
        "read. If you trust it, unpack it (or convert it to JSONL) and use that file."
    )
