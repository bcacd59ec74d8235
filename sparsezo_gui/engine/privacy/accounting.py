"""Privacy accounting: (ε, δ) spent by the steps of a run, with Google's dp-accounting.

Rényi differential privacy of the Poisson-sampled Gaussian mechanism, composed over the steps; neighbours differ by
adding or removing one example.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparsezo_gui.engine.privacy.gaussian import Gaussian
from sparsezo_gui.engine.runs import journal
from sparsezo_gui.errors import UserError

if TYPE_CHECKING:
    from sparsezo_gui.engine.runs.folder import RunFolder
    from sparsezo_gui.recipe import Recipe

ORDERS = (*range(2, 65), 80, 96, 128, 192, 256, 512, 1024)  # integers: finite sums, without approximation
Part = tuple[float, float, int]  # sampling rate, noise, steps


@dataclass(frozen=True)
class Spent:
    """(ε, δ) of ``steps`` steps, including ``records`` of the run's own journal. ε is infinite if some steps had no
    privacy."""

    steps: int
    epsilon: float
    delta: float
    records: int = 0

    def __str__(self) -> str:
        if math.isinf(self.epsilon):
            return "no privacy, because some of the earlier steps had none"
        return f"(ε, δ) = ({self.epsilon:.3g}, {self.delta:g})"


def check() -> None:
    """Raises `UserError` if the package is missing."""
    try:
        import dp_accounting  # noqa: F401
    except ImportError as error:
        raise UserError(
            "[privacy] needs the package dp-accounting, which tracks the privacy budget. Install it: pip install "
            "'sparsezo-gui[privacy]'"
        ) from error


def rate(recipe: Recipe, examples: int) -> float:
    """The probability of each of ``examples`` to be in a batch."""
    return min(1.0, recipe.loop.batch_size / examples)


def epsilon(parts: Iterable[Part], delta: float) -> float:
    """ε at ``delta`` of all ``parts`` together."""
    check()
    import dp_accounting as dp
    from dp_accounting.rdp import RdpAccountant

    accountant = RdpAccountant(ORDERS)
    for sampled, noise, steps in parts:
        if steps:
            accountant.compose(dp.PoissonSampledDpEvent(sampled, dp.GaussianDpEvent(noise)), steps)
    return float(accountant.get_epsilon(delta))


def planned(recipe: Recipe, examples: int) -> Spent | None:
    """What the whole run would spend with this number of training ``examples``; None without privacy."""
    privacy, steps = recipe.privacy, recipe.loop.steps
    if not isinstance(privacy, Gaussian):
        return None
    return Spent(steps, epsilon([(rate(recipe, examples), privacy.noise, steps)], privacy.delta), privacy.delta)


def spent(run: RunFolder) -> Spent | None:
    """What ``run`` has spent so far, including rolled-back steps and the runs it branched from; None without
    privacy."""
    privacy, records = run.recipe.privacy, 0
    if not isinstance(privacy, Gaussian):
        return None
    parts: list[Part] = []
    each: RunFolder | None = run
    while each is not None:
        if each.journal.exists():
            found = journal.read(each.journal).records
            records = len(found) if each is run else records
            steps = int((found["kind"] == journal.STEP).sum())
            recipe, examples = each.recipe, each.facts.examples
            if isinstance(recipe.privacy, Gaussian) and examples:
                parts.append((rate(recipe, examples), recipe.privacy.noise, steps))
            else:
                parts.append((1.0, 0.0, steps))
        each = each.parent
    told = any(steps and not noise for _, noise, steps in parts)
    total = math.inf if told else epsilon(parts, privacy.delta)
    return Spent(sum(steps for _, _, steps in parts), total, privacy.delta, records)
