"""The numbers in the metadata of a GGUF file, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsezo_gui.engine.pretrained.gguf.header import Header
from sparsezo_gui.errors import UserError, quoted

LARGEST = 2**31 - 1


@dataclass(frozen=True)
class Values:
    """The numbers that ``header`` has under the name of its family."""

    header: Header

    @property
    def family(self) -> str:
        """The family, in the words of llama.cpp."""
        return self.header.architecture

    def number(self, key: str, default: float | None = None) -> Any:
        """A positive number, or ``default``. Raises `UserError` if it is none, or is missing without a default."""
        name = f"{self.family}.{key}"
        value = self.header.metadata.get(name, default)
        if isinstance(value, np.ndarray) and len(set(value.tolist())) == 1:
            value = value[0].item()
        if isinstance(value, np.ndarray):
            raise UserError(
                f"{self.header.path}: its blocks differ in size ({quoted(name)} is a list), which SparseZO cannot "
                "read. Choose another model."
            )
        if type(value) not in (int, float) or not 0 < value <= LARGEST:
            raise UserError(
                f"{self.header.path}: {quoted(name)} must be a positive number, not {quoted(value)}. Download or copy "
                "the file again."
            )
        return value

    def has(self, key: str) -> bool:
        """Whether there is a number (or list) that is not 0."""
        value = self.header.metadata.get(f"{self.family}.{key}", 0)
        return isinstance(value, np.ndarray) or value != 0

    def in_first_block(self, name: str) -> bool:
        """Whether the first block has the tensor ``name``."""
        return f"blk.0.{name}" in self.header.tensors
