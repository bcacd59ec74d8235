"""The line of a run: every step that led to where it stands, through the runs it branched off from."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sparsezo_gui.engine.runs import journal
from sparsezo_gui.engine.runs.folder import RunFolder
from sparsezo_gui.engine.runs.journal import Journal
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import Recipe


@dataclass(frozen=True)
class Segment:
    """The part of a line that one run of a tree took: its steps ``first`` + 1 … ``last``, which ``steps`` records."""

    run: RunFolder
    recipe: Recipe
    journal: Journal
    last: int

    @property
    def first(self) -> int:
        """The step that it begins from."""
        return self.journal.header.start

    @cached_property
    def steps(self) -> np.ndarray:
        """Its records."""
        return self.journal.steps[: self.last - self.first]


@dataclass(frozen=True)
class Line:
    """``segments`` from the root on; ``fault`` says what of the last journal could not be used."""

    segments: tuple[Segment, ...]
    fault: str = ""

    @property
    def step(self) -> int:
        """Its last step."""
        return self.segments[-1].last

    @property
    def factor(self) -> float:
        """What the scheduled rate is multiplied by after its last step."""
        part = self.segments[-1]
        if part.last == part.first:
            return part.run.facts.branched.factor if part.run.facts.branched else 1.0
        scheduled = part.recipe.update.rate(part.last, part.recipe.loop.steps)
        return float(f"{part.steps[-1]['rate'] / scheduled:.12g}") if scheduled else 1.0

    def until(self, step: int | None) -> Line:
        """The line up to ``step`` (None: all of it). Raises `UserError` where it does not reach there."""
        if step is None:
            return self
        if not 0 <= step <= self.step:
            name, count = self.segments[-1].run.name, self.step
            many = f"{count} step{'s' if count != 1 else ''}" if count else "not taken any step yet"
            raise UserError(f"Run '{name}' has {many}, so there is no step {step}.")
        last = self.segments[-1]  # at its very beginning it is there, too, with the recipe that it goes on with
        kept = [part for part in self.segments if part.first < step or (part is last and part.first == step)]
        kept = kept or [self.segments[0]]
        return Line((*kept[:-1], dataclasses.replace(kept[-1], last=min(step, kept[-1].last))), self.fault)


def line(run: RunFolder) -> Line:
    """The line of ``run`` as its journals tell it. Raises `UserError`."""
    return _line(run, None)


def _line(run: RunFolder, count: int | None) -> Line:
    parent, branched, header = run.parent, run.facts.branched, run.header
    before = _line(parent, branched.records).until(branched.step).segments if parent and branched else ()
    if count and not run.journal.exists():
        raise UserError(f"{run.journal}: is missing, and a branch begins from it. Restore it from a copy of the run.")
    found = journal.read(run.journal, count) if run.journal.exists() else Journal(header, _none(header.probes))
    if found.header.start != header.start:
        raise UserError(f"{run.journal}: begins at another step than this run does. Restore the run from one copy.")
    return Line((*before, Segment(run, run.recipe, found, found.step)), found.fault)


def _none(probes: int) -> np.ndarray:
    return np.zeros(0, journal.record_dtype(probes))
