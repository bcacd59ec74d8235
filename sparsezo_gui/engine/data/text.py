"""Plain text to rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from sparsezo_gui.engine.data.lines import lines
from sparsezo_gui.engine.data.record import Record

PARTED_WITHIN = 16_000_000  # characters of a text searched for a blank line, which means that it has paragraphs


def read(path: Path) -> Iterator[Record]:
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
