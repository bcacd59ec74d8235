"""The lineage of a run: all steps that led to its current state, through the runs that it branched from."""

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
from sparsezo_gui.recipe import Recipe, outcome


@dataclass(frozen=True)
class Segment:
    """The part of a lineage in one run: steps ``first`` + 1 … ``last``, recorded in ``steps``."""

    run: RunFolder
    recipe: Recipe
    journal: Journal
    last: int

    @property
    def first(self) -> int:
        """The step that it starts from."""
        return self.journal.header.start

    @cached_property
    def steps(self) -> np.ndarray:
        """Its records."""
        return self.journal.steps[: self.last - self.first]


@dataclass(frozen=True)
class Lineage:
    """``segments`` from the root on; ``fault`` says what part of the last journal is unusable."""

    segments: tuple[Segment, ...]
    fault: str = ""

    @property
    def step(self) -> int:
        """Its last step."""
        return self.segments[-1].last

    @property
    def factor(self) -> float:
        """The factor on the scheduled rate after its last step."""
        part = self.segments[-1]
        if part.last == part.first:
            return part.run.facts.branched.factor if part.run.facts.branched else 1.0
        scheduled = part.recipe.update.rate(part.last, part.recipe.loop.steps)
        return float(f"{part.steps[-1]['rate'] / scheduled:.12g}") if scheduled else 1.0

    def until(self, step: int | None) -> Lineage:
        """The lineage up to ``step`` (None: all of it). Raises `UserError` if it has no such step."""
        if step is None:
            return self
        if not 0 <= step <= self.step:
            name, count = self.segments[-1].run.name, self.step
            many = f"{count} step{'s' if count != 1 else ''}" if count else "no steps yet"
            raise UserError(f"Run '{name}' has {many}, so there is no step {step}.")
        last = self.segments[-1]  # also at its very start, for the recipe that the run continues with
        kept = [part for part in self.segments if part.first < step or (part is last and part.first == step)]
        kept = kept or [self.segments[0]]
        return Lineage((*kept[:-1], dataclasses.replace(kept[-1], last=min(step, kept[-1].last))), self.fault)


def lineage_of(run: RunFolder, step: int | None = None) -> Lineage:
    """The lineage of ``run`` from its journals, up to ``step`` (None: all of it); reads no more than needed. Raises
    `UserError`."""
    tree = run.lineage
    segments: tuple[Segment, ...] = ()
    faults: list[str] = []
    for part, branch in itertools.pairwise(tree):
        beginning = branch.facts.branched
        assert beginning, "all runs but the root are branches"
        found = _segment(part, count=beginning.records)
        if beginning.hash is None:
            faults.append(_UNKNOWN.format(branch.name))
        elif beginning.hash != found.journal.hash(beginning.records):
            again = shlex.join(["sparsezo", "branch", str(part.path)])
            raise UserError(_OTHER.format(branch.path, beginning.step, part.name, part.journal, again))
        segments = Lineage((*segments, found)).until(beginning.step).segments
    found = _segment(run, step=step)
    return Lineage((*segments, found), " ".join((*faults, found.journal.fault)).strip()).until(step)


def step_of(run: RunFolder, step: int | str | None) -> int | None:
    """``step`` of ``run``, or its best step on the validation examples for 'best'; None for the last. Raises
    `UserError` if the run has no such step."""
    if isinstance(step, str):
        if step != "best":
            raise UserError(f"There is no step '{step}'. Use a number or 'best'.")
        best = outcome.best(outcome.on_lineage(run.events()))
        if best is None:
            raise UserError(f"Run '{run.name}' has no evaluation on validation examples yet, so there is no best step.")
        step = best.step
    return None if step is None else lineage_of(run, step).step


_UNKNOWN = (
    "The branch '{}' was made by an earlier version, which stored no hash of the steps that it starts from, so they "
    "cannot be checked."
)
_OTHER = (
    "{}: branched at step {} of '{}', whose journal has different steps now, for example because a backup was "
    "restored and resumed. Restore the journal that the branch started from ({}), or make a new branch: {}"
)


def _segment(run: RunFolder, count: int | None = None, step: int | None = None) -> Segment:
    """The steps of ``run`` itself, or those in its first ``count`` records. Raises `UserError`."""
    recipe, start = run.recipe, run.start
    if count and not run.journal.exists():
        raise UserError(f"{run.journal}: missing, but a branch starts from it. Restore it from a copy of the run.")
    if run.journal.exists():
        found = journal.read(run.journal, count, step)
    else:
        found = Journal(Header(recipe.recorded, start), np.zeros(0, journal.record_dtype(recipe.recorded)))
    if found.header.start != start:
        raise UserError(f"{run.journal}: starts at another step than this run. Restore the run's files from one copy.")
    return Segment(run, recipe, found, found.step)
