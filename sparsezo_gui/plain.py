"""Safe display of text from outside: whatever files, models, runs and answers contain, it must not control a terminal,
reverse the text around it, or imitate something else.

Names and sentences are `printable`: all invisible characters are escaped, such as ``\\u202e``. Longer text, such as a
model's answer or an example, is `readable`: line breaks, tabs, and the marks that some scripts need stay. `streams`
applies this to everything that the program, or a library, writes to the terminal; `gui.widgets.plain` to the window.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TextIO

# Control characters except line break and tab, direction overrides, surrogates.
_STEERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202d\u202e\ud800-\udfff]")


def printable(text: str, keep: str = "") -> str:
    """``text`` with invisible characters escaped, except those in ``keep``."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() or sign in keep else _escaped(sign) for sign in text)


def readable(text: str) -> str:
    """``text`` with only those characters escaped that could control a terminal or overwrite other text."""
    return _STEERS.sub(lambda found: _escaped(found[0]), text)


def quoted_plain(text: str) -> str:
    """JSON or TOML with the same meaning, in which the characters that `readable` escapes are string escapes."""
    return _STEERS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _escaped(sign: str) -> str:
    return sign.encode("unicode_escape").decode()


class PlainStream:
    """A text stream on which everything is `readable`; ``raw`` is the underlying one, for our own colours."""

    def __init__(self, raw: TextIO) -> None:
        self.raw = raw

    def write(self, text: str) -> int:
        """Writes the text, escaped character by character, so it does not matter how it is split."""
        self.raw.write(readable(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Writes several lines."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


def raw(stream: Any) -> Any:
    """The underlying stream of a `PlainStream`, or ``stream`` itself."""
    return stream.raw if isinstance(stream, PlainStream) else stream


@contextmanager
def streams() -> Iterator[None]:
    """Wraps standard output and standard error in a `PlainStream` within its block."""
    os.environ.setdefault("PYTHON_COLORS", "0")  # colours in Python's own help and tracebacks would be escaped
    if sys.stdout is None or sys.stderr is None:  # a window without a terminal on Windows
        yield
        return
    with redirect_stdout(PlainStream(raw(sys.stdout))), redirect_stderr(PlainStream(raw(sys.stderr))):
        yield
