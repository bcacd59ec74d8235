"""What a window that was killed or crashed left behind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sparsezo_gui.answers.runs import RunSummary


@dataclass(frozen=True)
class Crash:
    """A window that ended without being closed: its report, as a file and as text, and the ``run`` that it interrupted,
    if there was one and it can be resumed."""

    report: Path
    text: str
    run: RunSummary | None = None
