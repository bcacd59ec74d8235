"""Errors that a person can act on."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from sparsezo_gui.masking import masked
from sparsezo_gui.plain import printable

_LONGEST = 2000  # characters of a sentence; one that quotes a file may quote megabytes


class UserError(Exception):
    """Something outside the program is wrong: its message says what, where, and how to fix it, in one line a sentence.

    The command line prints the message and exits with code 2; the window shows it. Any other exception is our defect.
    """

    def __init__(self, *sentences: str) -> None:
        """Sentences may quote files and addresses: secrets in them are redacted, and what cannot be printed, and could
        steer a terminal, is shown escaped."""
        super().__init__(*(_sentence(sentence) for sentence in sentences))

    def __str__(self) -> str:
        return "\n".join(self.args)


class ConsentNeeded(UserError):
    """A model needs Python code of its own that the user has not let run; ``code`` is the engine's `Code`."""

    def __init__(self, code: Any, *sentences: str) -> None:
        super().__init__(*sentences)
        self.code = code


def _sentence(text: str) -> str:
    shown = printable(masked(text[: 2 * _LONGEST])[: _LONGEST + 1])
    return shown if len(shown) <= _LONGEST else shown[: _LONGEST - 1] + "…"


def quoted(value: object) -> str:
    """A value from a file as a sentence shows it."""
    try:
        return repr(value)
    except (ValueError, RecursionError):  # a number of more digits than Python writes, or lists without end
        return f"a very long {type(value).__name__}"


class ChangedInputs(UserError):
    """What a run was trained or measured on is not there any more as it was: ``changed`` names the inputs. The last
    sentence, where there is a second one, is what the command line takes to go on all the same; the window asks."""

    def __init__(self, *sentences: str, changed: tuple[str, ...]) -> None:
        super().__init__(*sentences)
        self.changed = changed


class DiskFull(UserError):
    """A write found no room. What was to be written can be written again once there is some."""


def out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` comes of memory that ran out, of the computer or of a GPU. No library is imported to tell."""
    said = ("out of memory", "can't allocate memory", "Cannot allocate memory", "can't start new thread", "bad_alloc")
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, RuntimeError | OSError) and any(words in str(error) for words in said):
        return True
    return error.__cause__ is not None and out_of_memory(error.__cause__)


OUT_OF_MEMORY = (
    "Memory ran out. Close other programs, or choose a smaller model, fewer bits, a smaller [loop] batch_size or a "
    "lower [data] max_tokens; 'sparsezo estimate' tells what is needed. All steps that were taken are kept."
)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Ends a sentence about an unknown ``word``: the nearest known one, or the list of all."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"Did you mean '{close[0]}'?" if close else f"Known: {', '.join(known)}."
