"""Files that the user saves from the window."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import QSaveFile

from sparsezo_gui.errors import UserError
from sparsezo_gui.names import free


def with_suffix(chosen: str, suffix: str) -> Path:
    """The path that was ``chosen`` in a dialog, ending in ``suffix``. The dialog asks before it replaces a file; a name
    that it did not see is a free one."""
    path = Path(chosen)
    return path if path.suffix.lower() == suffix else free(path.with_name(path.name + suffix))


def save(path: Path, content: bytes) -> None:
    """Writes a file at once: one that is there stays whole until then. Raises `UserError` if it cannot be written."""
    file = QSaveFile(str(path))
    if not (file.open(QSaveFile.OpenModeFlag.WriteOnly) and file.write(content) == len(content) and file.commit()):
        raise UserError(f"{path}: cannot be written ({file.errorString()}). Choose another place.")
