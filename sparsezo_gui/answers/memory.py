"""The memory a run needs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

TIGHT = 0.85  # of the available memory; beyond it the estimate's own error could decide
METHODS = {"lora": "LoRA", "qlora": "QLoRA", "full": "full fine-tuning"}  # that memory is compared with


@dataclass(frozen=True)
class Part:
    """One part of the memory: ``bytes``, and why it is there in one sentence."""

    name: str
    bytes: int
    why: str


@dataclass(frozen=True)
class MemoryEstimate:
    """Parts in the order they are shown, against what the device could give now; other methods for comparison."""

    parts: tuple[Part, ...]
    available: int
    """Bytes that this program can use now: free ones and those it uses already."""
    capacity: int
    """Bytes that the device has."""
    rows: int
    """Rows of activations (perturbations × tokens) per pass (see `sparsezo_gui.engine.forward.PACK_ROWS`)."""
    small: int
    """Total bytes with fewer rows per pass, which a run uses automatically when memory is short."""
    others: dict[str, int]
    """Bytes that 'lora', 'qlora' and 'full' fine-tuning would take for the same pack of tokens; always estimated."""
    measured: bool = False
    """Whether the parts were measured; all other figures are estimates."""
    search: int = 0
    """Bytes that finding the mask takes before the run, beyond measured parts; a part among estimated ones."""

    chosen: str = ""
    """What [estimator] rule = 'auto' chose and why, in a sentence; '' for other rules."""

    @property
    def total(self) -> int:
        """Sum of the parts."""
        return sum(part.bytes for part in self.parts)

    def part(self, name: str) -> int:
        """Bytes of the part called ``name``, 0 if there is none."""
        return next((part.bytes for part in self.parts if part.name == name), 0)

    @property
    def most(self) -> int:
        """Peak of the run and of finding its mask."""
        return self.total + self.search

    @property
    def verdict(self) -> str:
        """'fits', 'tight' or 'too large'."""
        if self.most > self.available:
            return "too large"
        return "fits" if self.most <= TIGHT * self.available else "tight"

    def as_json(self) -> dict[str, Any]:
        """Plain object with total and verdict."""
        return {**asdict(self), "total": self.total, "verdict": self.verdict}
