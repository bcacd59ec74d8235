"""Labels that mean the same but are spelled differently."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict

from sparsezo_gui.engine.data import columns
from sparsezo_gui.engine.data.splits import Rows

_DECIMAL = re.compile(r"[+-]?\d+\.\d*")


def alike(word: str) -> str:
    """A key that is equal for labels that differ only in case, spaces, invisible characters, or as 1 and 1.0."""
    visible = "".join(sign for sign in unicodedata.normalize("NFKC", word) if unicodedata.category(sign) != "Cf")
    plain = " ".join(visible.split()).casefold()
    return plain.rstrip("0").rstrip(".") if _DECIMAL.fullmatch(plain) else plain


def count(rows: dict[str, Rows], column: str) -> Counter[str]:
    """Rows per label: of training rows and those split off from them, which may include a rare one."""
    values = (columns.get(row.values, column) for part in rows.values() if not part.own for row in part)
    return Counter(columns.word(value) for value in values if not columns.empty(value))


def spellings(found: Counter[str]) -> list[list[str]]:
    """Groups of alike labels, the most frequent spelling of each first."""
    groups: dict[str, list[str]] = defaultdict(list)
    for word in sorted(found, key=lambda word: (-found[word], len(word), word.swapcase())):
        groups[alike(word)].append(word)
    return sorted(groups.values())
