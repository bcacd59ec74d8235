"""The line of a run: every step that led to where it stands, through the runs it branched off from."""

from __future__ import annotations

import dataclasses
import itertools
import shlex
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sparsezo_gui.engine.runs import journal
from sparsezo_gui.engine.runs.folder import RunFolder
from sparsezo_gui.engine.runs.journal import Header, Journal
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


def line(run: RunFolder, step: int | None = None) -> Line:
    """The line of ``run`` as its journals tell it, up to ``step`` (None: all of it), for which no more is read than it
    takes. Raises `UserError`."""
    tree = run.lineage
    segments: tuple[Segment, ...] = ()
    faults: list[str] = []
    for part, branch in itertools.pairwise(tree):
        beginning = branch.facts.branched
        found = _segment(part, count=beginning.records)
        if beginning.hash is None:
            faults.append(_UNKNOWN.format(branch.name))
        elif beginning.hash != found.journal.hash(beginning.records):
            again = shlex.join(["sparsezo", "branch", str(part.path)])
            raise UserError(_OTHER.format(branch.path, beginning.step, part.name, part.journal, again))
        segments = Line((*segments, found)).until(beginning.step).segments
    found = _segment(run, step=step)
    return Line((*segments, found), " ".join((*faults, found.journal.fault)).strip()).until(step)


_UNKNOWN = (
    "The branch '{}' was made by an earlier version, which kept no hash of the steps that it starts from: they are not "
    "checked."
)
_OTHER = (
    "{}: branched off at step {} of '{}', whose journal holds other steps now, for example because a backup was "
    "restored and resumed. Restore the journal that the branch started from ({}), or make a new branch: {}"
)


def _segment(run: RunFolder, count: int | None = None, step: int | None = None) -> Segment:
    """All that ``run`` took by itself, or what its first ``count`` records tell. Raises `UserError`."""
    recipe, start = run.recipe, run.start
    if count and not run.journal.exists():
        raise UserError(f"{run.journal}: is missing, and a branch begins from it. Restore it from a copy of the run.")
    if run.journal.exists():
        found = journal.read(run.journal, count, step)
    else:
        found = Journal(Header(recipe.scalars, start), np.zeros(0, journal.record_dtype(recipe.scalars)))
    if found.header.start != start:
        raise UserError(f"{run.journal}: begins at another step than this run does. Restore the run from one copy.")
    return Segment(run, recipe, found, found.step)
