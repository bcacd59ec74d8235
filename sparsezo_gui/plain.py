"""Text from outside as it is shown: in files, models, runs and answers stands what it likes, and none of it may steer a
terminal, turn the direction of what stands around it, or pass for something else.

Names and sentences are `printable`: whatever is not seen in them is escaped, such as ``\\u202e``. What is read for its
own sake, such as an answer of a model or an example, is `readable`: line ends, tabs, and the marks that letters of some
scripts need stay as they are. `streams` keeps both promises for all that a program writes to its terminal, whoever
writes it; `gui.widgets.plain` does so for the window.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TextIO

# Control characters but line end and tab, overrides of the direction, halves of characters.
_STEERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202d\u202e\ud800-\udfff]")


def printable(text: str, keep: str = "") -> str:
    """``text`` with what is not seen escaped, but for the characters in ``keep``."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() or sign in keep else _escaped(sign) for sign in text)


def readable(text: str) -> str:
    """``text`` with no more escaped than what could steer a terminal or write over the text around it."""
    return _STEERS.sub(lambda found: _escaped(found[0]), text)


def quoted_plain(text: str) -> str:
    """JSON or TOML, the same in meaning, with all that `readable` escapes escaped as it is there in strings."""
    return _STEERS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _escaped(sign: str) -> str:
    return sign.encode("unicode_escape").decode()


class PlainStream:
    """A text stream on which everything is `readable`; ``raw`` is the one below, for a program's own colours."""

    def __init__(self, raw: TextIO) -> None:
        self.raw = raw

    def write(self, text: str) -> int:
        """Writes the text, escaped sign by sign: so it does not matter into which pieces it is cut."""
        self.raw.write(readable(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Writes several."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


def raw(stream: Any) -> Any:
    """The stream below, where it is a `PlainStream`."""
    return stream.raw if isinstance(stream, PlainStream) else stream


@contextmanager
def streams() -> Iterator[None]:
    """Makes standard output and standard error plain while a program runs."""
    os.environ.setdefault("PYTHON_COLORS", "0")  # those of Python's own help and tracebacks would come out escaped
    if sys.stdout is None or sys.stderr is None:  # a window without a terminal on Windows
        yield
        return
    with redirect_stdout(PlainStream(raw(sys.stdout))), redirect_stderr(PlainStream(raw(sys.stderr))):  # type: ignore[type-var]
        yield
