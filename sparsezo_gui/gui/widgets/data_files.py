"""Files of data in file dialogs, and those that are dropped on a page."""

from __future__ import annotations

import os
from pathlib import Path

from PySide6.QtGui import QDropEvent

from sparsezo_gui.formats import COMPRESSED, data_format, data_suffixes

_PATTERNS = (f"*{suffix}{packed}" for suffix in data_suffixes() for packed in ("", *COMPRESSED))
FILES = f"Data ({' '.join(_PATTERNS)});;All files (*)"


def dropped(event: QDropEvent) -> list[str]:
    """Local folders, and files of a kind that can be read."""
    paths = [url.toLocalFile() for url in event.mimeData().urls() if url.isLocalFile()]
    return [path for path in paths if os.path.isdir(path) or data_format(Path(path))]
