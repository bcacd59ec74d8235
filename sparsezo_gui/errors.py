"""Errors that the user can act on."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from sparsezo_gui.plain import printable
from sparsezo_gui.redaction import redacted

if TYPE_CHECKING:
    from sparsezo_gui.engine.pretrained.code import Code

_LONGEST = 2000  # characters in a sentence; a quoted file may have megabytes


class UserError(Exception):
    """A problem outside the program. The message says what is wrong, where, and how to fix it, one sentence per line.

    The command line prints the message and exits with code 2; the window shows it. Any other exception is a bug.
    """

    def __init__(self, *sentences: str) -> None:
        """Sentences may quote files and URLs: secrets in them are redacted, and unprintable characters, which could
        control a terminal, are escaped."""
        super().__init__(*(_sentence(sentence) for sentence in sentences))

    def __str__(self) -> str:
        return "\n".join(self.args)


class ConsentNeeded(UserError):
    """A model needs its own Python code, which the user has not allowed to run: ``code``."""

    def __init__(self, code: Code, *sentences: str) -> None:
        super().__init__(*sentences)
        self.code = code


def _sentence(text: str) -> str:
    shown = printable(redacted(text[: 2 * _LONGEST])[: _LONGEST + 1])
    return shown if len(shown) <= _LONGEST else shown[: _LONGEST - 1] + "…"


def quoted(value: object) -> str:
    """A value from a file, for use in a sentence."""
    try:
        return repr(value)
    except (ValueError, RecursionError):  # an int with too many digits, or endlessly nested lists
        return f"a very long {type(value).__name__}"


class ChangedInputs(UserError):
    """Inputs of a run have changed since it started: ``changed`` names them. The last sentence, if there are several,
    says how to continue anyway on the command line; the window asks instead."""

    def __init__(self, *sentences: str, changed: tuple[str, ...]) -> None:
        super().__init__(*sentences)
        self.changed = changed


class LostWorker(UserError):
    """Another worker of the run, or the connection to it, is gone."""


class DiskFull(UserError):
    """The disk is full. The write can be repeated once there is space."""


def out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` was caused by a lack of memory, of the computer or a GPU. Imports no library."""
    said = ("out of memory", "can't allocate memory", "Cannot allocate memory", "can't start new thread", "bad_alloc")
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, RuntimeError | OSError) and any(words in str(error) for words in said):
        return True
    return error.__cause__ is not None and out_of_memory(error.__cause__)


OUT_OF_MEMORY = (
    "Memory ran out. Close other programs, or choose a smaller model, fewer bits, a smaller [loop] batch_size or a "
    "lower [data] max_tokens; 'sparsezo estimate' shows how much is needed. All completed steps are saved."
)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Suggestion for an unknown ``word``: the closest known one, or a list of all."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"Did you mean '{close[0]}'?" if close else f"Known: {', '.join(known)}."
