"""Errors that a person can act on."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something outside the program is wrong: its message says what, where, and how to fix it.

    The command line prints the message and exits with code 2; the window shows it. Any other exception is our defect.
    """


class DiskFull(UserError):
    """A write found no room. What was to be written can be written again once there is some."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Ends a sentence about an unknown ``word``: the nearest known one, or the list of all."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"Did you mean '{close[0]}'?" if close else f"Known: {', '.join(known)}."
