"""What the user calls a run and files it under: ``labels.json`` in its folder. The run itself does not depend on it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sparsezo_gui.engine.files import open_plain, write_text
from sparsezo_gui.errors import UserError

LABELS = "labels.json"
LARGEST, LONGEST, MOST = 1 << 16, 200, 20  # bytes of the file; characters of a name or tag; tags


class Labels(BaseModel):
    """The user's ``name`` for a run ('' for its own) and its ``tags``."""

    model_config = ConfigDict(frozen=True)

    name: Annotated[str, Field(max_length=LONGEST)] = ""
    tags: Annotated[tuple[Annotated[str, Field(max_length=LONGEST)], ...], Field(max_length=MOST)] = ()


def labels_of(folder: Path) -> Labels:
    """The labels of the run in ``folder``; those in a damaged file are ignored."""
    path = os.path.join(folder, LABELS)
    if not os.path.exists(path):  # as for most; quick, since the list of runs reads all of them
        return Labels()
    with suppress(OSError, ValidationError), open_plain(Path(path)) as file:
        return Labels.model_validate_json(file.read(LARGEST))
    return Labels()


def label(folder: Path, name: str, tags: tuple[str, ...]) -> None:
    """Replaces the labels of the run in ``folder``. Raises `UserError`."""
    tidy = tuple(dict.fromkeys(each for tag in tags if (each := " ".join(tag.split()))))
    try:
        found = Labels(name=" ".join(name.split()), tags=tidy)
    except ValidationError as error:
        raise UserError(
            f"Names and tags have up to {LONGEST} characters, and a run has up to {MOST} tags. Shorten them."
        ) from error
    write_text(folder / LABELS, found.model_dump_json(indent=2) + "\n")
