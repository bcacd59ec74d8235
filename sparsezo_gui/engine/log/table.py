"""The curves of a run as rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsezo_gui.engine.runs.curves import COLUMNS, steps_of
from sparsezo_gui.engine.runs.folder import RunFolder
from sparsezo_gui.recipe import outcome
from sparsezo_gui.recipe.events import GeneralText

Row = dict[str, float | int]


@dataclass(frozen=True)
class Table:
    """``steps``, an array with `COLUMNS`, and what was ``measured`` after each step, by column."""

    steps: np.ndarray[Any, Any]
    measured: Mapping[int, Row]

    @property
    def columns(self) -> list[str]:
        """The names of all columns, the measured ones by name."""
        return [*COLUMNS, *sorted({name for row in self.measured.values() for name in row})]

    @property
    def last(self) -> int:
        """The last step."""
        return int(self.steps["step"][-1]) if len(self.steps) else 0

    def rows(self) -> Iterator[Row]:
        """The rows in the order of steps; each has the columns with a finite value."""
        if 0 in self.measured:
            yield {"step": 0, **self.measured[0]}
        names = list(COLUMNS)
        for record in self.steps:
            step = int(record["step"])
            row = dict(zip(names, record.tolist(), strict=True)) | self.measured.get(step, {})
            yield {name: value for name, value in row.items() if math.isfinite(value)}


def table_of(run: RunFolder) -> Table:
    """The curves of ``run`` up to now. Raises `UserError`."""
    events, measured = outcome.on_lineage(run.events()), dict[int, Row]()
    for parent in run.lineage[:-1]:  # what was measured before the run branched
        events = [*(each for each in parent.events() if getattr(each, "step", math.inf) <= run.start), *events]
    for found in outcome.evaluations(events):
        row = measured.setdefault(found.step, {})
        row |= {f"{found.split}/{name}": float(value) for name, value in found.metrics.items() if name != "examples"}
    for event in events:
        if isinstance(event, GeneralText):
            measured.setdefault(event.step, {})["general/perplexity"] = float(event.tuned)
            measured.setdefault(0, {})["general/perplexity"] = float(event.base)
    finite = {
        step: {name: value for name, value in row.items() if math.isfinite(value)} for step, row in measured.items()
    }
    return Table(steps_of(run), finite)
