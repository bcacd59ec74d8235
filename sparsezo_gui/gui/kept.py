"""What the settings keep from the last session, which may be damaged or from another version."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import QSettings

MOST = 1000  # entries of a list


def texts(store: QSettings, key: str) -> list[str]:
    """A list of texts, at most `MOST`; without what is none."""
    value: Any = store.value(key)
    entries = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return [each for each in entries if isinstance(each, str)][:MOST]
