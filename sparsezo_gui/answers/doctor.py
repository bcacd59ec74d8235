"""What `sparsezo doctor` finds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """What was ``found`` by one ``check``. If something is wrong, ``problem`` says what in a sentence, and ``command``
    fixes it; it is empty where no command can."""

    check: str
    found: str
    problem: str = ""
    command: str = ""
