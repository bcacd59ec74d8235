"""A run folder before it has a ``run.json``: a *start*, which its process prepares, or did until it ended.

It has an empty ``lock``, created first, and then a ``recipe.toml``, from which `training.resume` prepares it again.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

LOCK, LOCK_MARKER = "lock", "lock.pid"
RECIPE, MASK = "recipe.toml", "mask.safetensors"
FILES = (MASK, RECIPE, LOCK, LOCK_MARKER)
TEMPORARY = re.compile(r"\.(probe|.+\.\w{8})")


def is_start(path: Path) -> bool:
    """Whether the folder is a run without steps that is being prepared, or was."""
    with suppress(OSError):
        return (path / RECIPE).is_file() and may_be_start(path)
    return False


def may_be_start(path: Path) -> bool:
    """Whether all files in the folder could be those of a start, or there are none. Raises OSError."""
    names = os.listdir(path)
    if not names:
        return True
    if LOCK not in names or (path / LOCK).stat().st_size:
        return False
    return all(name in FILES or TEMPORARY.fullmatch(name) for name in names)
