"""What the base model answered: ``answers.json`` in a run's folder, so that a resumed run, too, says which answers
changed. Nothing else depends on the file."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from sparsezo_gui.engine.files import open_plain, write_text
from sparsezo_gui.errors import UserError

ANSWERS = "answers.json"
LARGEST = 1 << 26  # bytes of the file
_FORM = TypeAdapter(dict[str, list[str]])


def answers_of(folder: Path) -> dict[str, list[str]]:
    """The answers to all examples, by split; none if the file is missing or damaged."""
    path = folder / ANSWERS
    with suppress(OSError, ValidationError):
        if os.path.exists(path):
            with open_plain(path) as file:
                return _FORM.validate_json(file.read(LARGEST + 1))
    return {}


def keep_answers(folder: Path, answers: dict[str, list[str]]) -> None:
    """Replaces the answers in ``folder``, unless they are too large or the disk is full."""
    text = json.dumps(answers)
    if len(text) <= LARGEST:
        with suppress(OSError, UserError):
            write_text(folder / ANSWERS, text)
