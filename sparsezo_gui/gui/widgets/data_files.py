"""Files of data in file dialogs."""

from __future__ import annotations

from sparsezo_gui.formats import COMPRESSED, data_suffixes

_PATTERNS = (f"*{suffix}{packed}" for suffix in data_suffixes() for packed in ("", *COMPRESSED))
FILES = f"Data ({' '.join(_PATTERNS)});;All files (*)"
