"""The processes that share the passes of a run.

A pass, that of one pack of examples at some points, is the unit of work. Passes are the same however many workers there
are, and what they give is put together in their order, so that the number of workers changes no bit of a run.

One worker leads: it reads the data, takes the decisions and writes the run. The others (see `sparsezo_gui.engine.team`)
hold the same model and the same tuned values, and make their part of the passes. `Workers` is the leader of none: this
process makes all passes itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from sparsezo_gui.engine.gradient import BackwardPasses
    from sparsezo_gui.engine.objective import Passes
    from sparsezo_gui.recipe import Recipe


class Workers:
    """This process alone."""

    rank = 0
    size = 1
    here: dict[str, Any] | None = None
    """What the model's layers hold, for the other workers; None if they cannot know."""

    def run(self, passes: Passes) -> list[Tensor]:
        """What each of the ``passes`` gives."""
        return passes.run(range(len(passes.rows)))

    def add(self, passes: BackwardPasses, found: Tensor) -> list[float]:
        """Adds the gradients of ``passes`` to ``found`` (n,), in order, and returns their losses."""
        return passes.run(range(len(passes.rows)), found)

    @contextmanager
    def at(self, where: str, session: Any) -> Iterator[None]:
        """Inside, the layers of the model hold the 'current' or the 'original' values of ``session``."""
        yield

    def prepare(self, recipe: Recipe) -> Recipe:
        """What decides the passes of ``recipe``, made independent of this computer. Raises `UserError` for what cannot
        be shared."""
        return recipe

    def load(self, recipe: Recipe) -> None:
        """Lets the others load the model of ``recipe``, while this process does."""

    def open(self, session: Any) -> None:
        """Gives the others the mask and the settings of ``session``."""

    def ready(self, session: Any) -> None:
        """Before the passes of a step: gives the others the values of ``session``, unless they have them."""

    def began(self, session: Any) -> None:
        """After `Session.begin`."""

    def advanced(self, session: Any, recorded: Sequence[float], rate: float, exact: Any) -> None:
        """After `Session.advance`, along the directions of the step: ``exact`` is the gradient that went in."""

    @property
    def greeting(self) -> str:
        """Who shares the run, in a sentence; empty if nobody does."""
        return ""

    @property
    def account(self) -> str:
        """What was exchanged and who did how much, in sentences; empty if nothing was."""
        return ""


def shares(rows: Sequence[int], workers: int) -> list[range]:
    """The units of each worker: neighbours, with about the same number of ``rows``."""
    middles = [2 * end - own for own, end in zip(rows, accumulate(rows), strict=True)]
    owners = [middle * workers // (2 * sum(rows)) for middle in middles]
    firsts = [sum(owner < worker for owner in owners) for worker in range(workers + 1)]
    return [range(first, last) for first, last in pairwise(firsts)]
