"""Names for new files and folders."""

from __future__ import annotations

from pathlib import Path


def free(path: Path) -> Path:
    """``path``, or if something has this name, the same with -2, -3, … before its suffix."""
    found, number = path, 1
    while found.exists():
        number += 1
        found = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return found
