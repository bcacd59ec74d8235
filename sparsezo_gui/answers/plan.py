"""The ways to tune a model side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sparsezo_gui.answers.memory import MemoryEstimate
from sparsezo_gui.sizes import size


@dataclass(frozen=True)
class Pace:
    """Measured: ``seconds`` of a step, with its share of finding directions again. Estimated from that: those before
    the first step, ``search`` to find the mask, ``prefix`` to compute once what enters the tuned blocks, and ``rates``
    to find a learning rate."""

    seconds: float
    search: float = 0.0
    prefix: float = 0.0
    rates: float = 0.0

    @property
    def before(self) -> float:
        """Seconds before the first step."""
        return self.search + self.prefix + self.rates


@dataclass(frozen=True)
class WayFigures:
    """A way to tune, see `sparsezo_gui.recipe.ways`; ``refused`` says why the recipe does not allow it ('' if it does),
    and then there are no figures. Without a measurement there is no ``pace``."""

    name: str
    title: str
    limits: str
    steps: int
    tables: dict[str, dict[str, Any]]
    """What it sets in the recipe."""
    settings: tuple[str, ...] = ()
    """The same as settings of the command line, without those that the recipe has already."""
    refused: str = ""
    memory: MemoryEstimate | None = None
    pace: Pace | None = None

    @property
    def seconds(self) -> float | None:
        """Seconds of a whole run of the usual number of steps, without evaluations."""
        pace = self.pace
        return None if pace is None else pace.before + self.steps * pace.seconds

    @property
    def problem(self) -> str:
        """Why it cannot be started here, in a sentence; empty if it can."""
        memory = self.memory
        if self.refused or memory is None or memory.verdict != "too large":
            return self.refused
        return f"It needs {size(memory.most)}, and {size(memory.available)} are free."

    def as_json(self) -> dict[str, Any]:
        """Plain object, with seconds, bytes and ``problem``."""
        memory, pace = self.memory, self.pace
        return {
            "way": self.name, "title": self.title, "settings": list(self.settings),
            "memory_bytes": memory.most if memory else None,
            "memory_measured": bool(memory and memory.measured), "verdict": memory.verdict if memory else None,
            "step_seconds": pace.seconds if pace else None, "search_seconds": pace.search if pace else None,
            "prefix_seconds": pace.prefix if pace else None, "rate_search_seconds": pace.rates if pace else None,
            "usual_steps": self.steps, "seconds": self.seconds,
            "limits": self.limits, "problem": self.problem,
        }  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """``ways`` side by side; the name of the ``recommended`` one ('' for none) and ``why``, in sentences; ``notes`` on
    what the figures mean."""

    ways: tuple[WayFigures, ...]
    recommended: str
    why: str
    notes: tuple[str, ...] = ()

    @property
    def best(self) -> WayFigures | None:
        """The recommended way."""
        return next((way for way in self.ways if way.name == self.recommended), None)

    def as_json(self) -> list[dict[str, Any]]:
        """An object for each way, then the recommendation."""
        rows = [{"event": "way", **way.as_json(), "recommended": way.name == self.recommended} for way in self.ways]
        return [*rows, {"event": "recommendation", "way": self.recommended, "why": self.why, "notes": list(self.notes)}]
