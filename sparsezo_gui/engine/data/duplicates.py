"""Examples that repeat another one: the same text with the same answer.

With [data] duplicates = 'remove', one of each stays: in the test split if it is there, else in validation, else the
first in training. So the splits that results are measured on stay what they are, comparable with other runs and with
published figures, and training loses what would give their answers away. It is also the split with the most examples.
Lee et al., 2022, "Deduplicating Training Data Makes Language Models Better", remove from training for the same reason.

Equal rows are found while the data is read (see `sparsezo_gui.engine.data.splits`), so that others take their places,
beside the rows that would be there anyway; examples that are equal although their rows differ, as in a column that is
not used, once they are made. Both take a hash for each, and no more of them than the recipe asks for.
"""

from __future__ import annotations

from hashlib import blake2b
from unicodedata import normalize

from sparsezo_gui.engine.data.encode import Encoded
from sparsezo_gui.engine.data.examples import Example

KEPT_FIRST = ("test", "validation", "train")
"""The splits in the order in which one of several duplicates stays."""


def content(example: Example, encoded: Encoded | None = None) -> int:
    """A number that is the same for examples of which the model sees the same, which may be less than the row."""
    if encoded and encoded.cut:
        return hash((encoded.rows, example.label))
    return same(*(text for text, _ in example.segments), *example.choices, str(example.label))


def same(*texts: str) -> int:
    """A number that is the same for the same texts, whatever the process. Texts that differ only in how Unicode
    composes their letters are the same."""
    known = repr([normalize("NFC", text) for text in texts]).encode()
    return int.from_bytes(blake2b(known, digest_size=8).digest(), "big", signed=True)
