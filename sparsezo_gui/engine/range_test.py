"""Learning-rate range test: a few steps at each of several rates, always from the base model on the same batches.

The idea is from Smith, arXiv 1506.01186; the rest is our own choice. Rates increase by half a power of ten from the low
end of the usual range. Each starts from a run's initial values, uses the same batches and directions, and is compared
by the loss on held-out training examples. A rate is unstable if that loss, or the median of the last losses, has
clearly increased; then no higher ones are tried, and lower ones only if it was the first. The stable rate with the
lowest loss is divided by `SAFETY`, because a run is many times longer, and the best rate for a few steps can be too
high for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from statistics import median

from sparsezo_gui.answers import RateReport, Rung, short_rate
from sparsezo_gui.engine.data.encode import Encoded
from sparsezo_gui.engine.masks.rule import Search, find_measured
from sparsezo_gui.engine.planning import concrete, formula
from sparsezo_gui.engine.session import Session
from sparsezo_gui.engine.session.loading import load_data, load_model
from sparsezo_gui.engine.spaces.values import tuned_values
from sparsezo_gui.engine.zo.generator import Stream, permutation
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe.events import Event, Progress
from sparsezo_gui.recipe.rates import highest
from sparsezo_gui.recipe.variants import shown

STEPS = 40  # at each rate
HELD_OUT = 64  # training examples to compare rates on
RUNG = math.sqrt(10.0)  # factor between two rates
MOST = 14  # rates tried
LAST, FAR = 8, 3.0  # a rate ends if the median loss of that many steps exceeds that multiple of the initial loss
WORSE = 1.1  # multiple of the initial loss, from which on a rate is unstable
SAFETY = 3.0  # divides the best rate


def find_rate(recipe: Recipe, steps: int = STEPS) -> Generator[Event, None, RateReport]:
    """Loads the model, finds the mask, and tries rates with ``steps`` steps each. Closing the generator cancels.

    Raises `UserError`.
    """
    if recipe.privacy.private:
        raise UserError(
            "Trying rates uses training examples without the noise of [privacy], so the rate would reveal "
            "information about them. Try rates on similar examples, with [privacy] rule = 'none'."
        )
    recipe, _ = yield from concrete(recipe)
    model = yield from load_model(recipe)
    data = yield from load_data(recipe, model)
    mask, _ = yield from find_measured(recipe.mask, model, Search(recipe.loop.seed, recipe.data))
    session = Session(recipe, model, tuned_values(model, mask))
    model.pack_rows = formula(recipe, model.source.spec, data).rows
    apart, rest = set_apart(data.train.encoded, recipe.loop.seed)
    compared = session.base(apart)

    def loss() -> float:
        with session.tuned.applied():
            return recipe.objective.measure(model, apart, base=compared).loss.item()

    return (yield from climb(session, rest, loss, steps))


def set_apart(examples: Sequence[Encoded], seed: int) -> tuple[list[Encoded], list[Encoded]]:
    """Held-out examples, at most a quarter of them, drawn from the seed; and the others. Raises `UserError`."""
    if len(examples) < 2:
        raise UserError("There are too few training examples to find a rate with: at least two are needed.")
    count = max(1, min(HELD_OUT, len(examples) // 4))
    mixed = [examples[place] for place in permutation(seed, 0, len(examples), Stream.APART)]
    return mixed[:count], mixed[count:]


def climb(
    session: Session, examples: Sequence[Encoded], loss: Callable[[], float], steps: int
) -> Generator[Event, None, RateReport]:
    """Tries rates on ``examples``; ``loss`` gives the loss of the session's current values."""
    update = type(session.recipe.update)
    usual = shown(update.model_fields["learning_rate"]).sane
    assert usual, "every update has a usual range of rates"
    rate = usual[0]
    session.begin()
    base, rungs = loss(), list[Rung]()
    while len(rungs) < MOST and rate <= highest(update):
        rung = yield from _rung(session, examples, loss, base, rate, steps)
        upwards = rungs[0].stable if rungs else rung.stable
        rungs.append(rung)
        if rung.stable != upwards:
            break
        rate = float(f"{rate * RUNG if upwards else rate / RUNG:.2g}")
    session.begin()
    report = RateReport(tuple(sorted(rungs, key=lambda rung: rung.rate)), base, steps, None)
    best = report.best
    return report if best is None else replace(report, rate=float(f"{best.rate / SAFETY:.1g}"))


def _rung(
    session: Session, examples: Sequence[Encoded], loss: Callable[[], float], base: float, rate: float, steps: int
) -> Generator[Event, None, Rung]:
    """Takes ``steps`` steps at ``rate`` from the initial values, fewer if the rate is clearly unstable."""
    session.begin()
    seen: list[float] = []
    for step in range(1, steps + 1):
        yield Progress(f"Trying a learning rate of {short_rate(rate)}", step - 1, steps, "steps")
        seen.append(_step(session, examples, rate))
        if not math.isfinite(seen[-1]) or (len(seen) >= LAST and median(seen[-LAST:]) > FAR * base):
            return Rung(rate, None, False)
    after = loss()
    finite = math.isfinite(after)
    return Rung(rate, after if finite else None, finite and after < WORSE * base)


def _step(session: Session, examples: Sequence[Encoded], rate: float) -> float:
    """Takes a step at ``rate`` and returns its loss."""
    batch = session.choose(examples).examples
    directions = session.directions()
    found = session.estimate(batch, directions, rate)
    if not all(map(math.isfinite, found.recorded)):
        return math.nan
    session.advance(directions, found.recorded, rate, found.exact)
    return found.loss
