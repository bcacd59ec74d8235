"""Finds the learning rate of a run by short runs before its first step.

All short runs start from the run's initial values, use the same batches and directions, have a whole schedule of their
own, and are compared by the loss on held-out training examples. Rates are half a power of ten apart. The first round
brackets the best rate: it begins with the usual one of runs as short, and goes on towards lower losses until both
neighbours of the best were tried, so that the answer is never at the edge of what was tried. Each further round runs
the best rate and its neighbours for twice as many steps (successive halving, arXiv 1502.07943). Rounds are planned to
take a tenth of the run's forward passes, with those on general text (below).

The best rate of a short run is too high for a long one, whose random movement adds up over more steps: the best is
divided by (steps / short steps)^`FADES`, or less with exact gradients. And a few steps tell little: chance decides
where random directions lead, and Adam's first steps move all values equally far. So the answer lies between the usual
rate and the best, `TELLING` steps being worth as much as what is usual. See tests/benchmarks/README.md.

Held-out examples do not show what a rate costs elsewhere: random directions move the values at random too, which can
ruin a model while its loss on a task falls. So the random part of a whole run is tried alone, on general text (see
`general`), and the rate is lowered until it costs little.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from statistics import median

from sparsezo_gui.answers import RateReport, Rung, short_rate
from sparsezo_gui.engine.data.encode import Encoded
from sparsezo_gui.engine.general import general_text, perplexity
from sparsezo_gui.engine.masks.kept import find_once
from sparsezo_gui.engine.masks.rule import Search
from sparsezo_gui.engine.objective import count_tokens
from sparsezo_gui.engine.planning import concrete, formula
from sparsezo_gui.engine.session import Session
from sparsezo_gui.engine.session.loading import load_data, load_model
from sparsezo_gui.engine.spaces.values import tuned_values
from sparsezo_gui.engine.zo.generator import Stream, normal, permutation
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import Recipe, with_settings
from sparsezo_gui.recipe.events import Event, Progress
from sparsezo_gui.recipe.rates import highest, in_weights

PART = 10  # the run's forward passes, divided by those of the search
FIRST, FURTHER, ROUNDS = 4, 3, 3  # short runs planned for the first and for each further round; most rounds
LEAST, MANY = 5, 8  # steps of the shortest useful run; and from how many on there is a further round
LEAST_EXACT = 2  # the former with exact gradients
RUNG = math.sqrt(10.0)  # factor between two rates
MOST = 14  # rates tried in a round
HELD_OUT = 4  # batches to compare rates on, at most; one for every `COMPARED` passes of the search
COMPARED = 60
LAST, FAR = 8, 3.0  # a short run ends if the median loss of that many steps exceeds that multiple of the initial loss
WORSE = 1.1  # multiple of the initial loss, from which on a rate is unstable
SAME = 1e-3  # relative change of the initial loss, below which a rate does nothing
FADES, FADES_EXACT = 0.5, 0.3
TELLING, TELLING_EXACT = 20.0, 2.0
GENERAL = 2  # times that general text is read if the first rate does no harm
HARM = 1.1  # multiple of the perplexity on general text, above which random movement is too much


@dataclass(frozen=True)
class Budget:
    """Batches of held-out examples, and steps of the short runs of each round."""

    compared: int
    steps: tuple[int, ...]

    @classmethod
    def of(cls, recipe: Recipe, general: float = 0.0) -> Budget:
        """A tenth of the forward passes of a run of ``recipe``, of which so many go to ``general`` text; no rounds if
        a tenth is too little even without these."""
        tenth = recipe.loop.steps * recipe.cost / PART
        passes = tenth - general
        compared = max(1, min(HELD_OUT, int(passes / COMPARED)))
        shortest = LEAST_EXACT if recipe.estimator.exact else LEAST
        for rounds in range(ROUNDS, 0, -1):
            runs = FIRST + FURTHER * (rounds - 1)
            lengths = FIRST + FURTHER * (2**rounds - 2)  # of all short runs, in steps of the shortest
            least = int((passes - runs * compared) / (lengths * recipe.step_cost))
            if least >= (shortest if rounds == 1 else MANY):
                return cls(compared, tuple(least * 2**index for index in range(rounds)))
        possible = tenth >= FIRST * (shortest * recipe.step_cost + compared)
        return cls(compared, (shortest,) if possible else ())


def find_rate(recipe: Recipe, steps: int | None = None) -> Generator[Event, None, RateReport]:
    """Loads the model, finds the mask, and searches, with one round of ``steps`` steps if they are given. Closing the
    generator cancels. Raises `UserError`."""
    if recipe.privacy.private:
        raise UserError(
            "Trying rates uses training examples without the noise of [privacy], so the rate would reveal "
            "information about them. Try rates on similar examples, with [privacy] rule = 'none'."
        )
    recipe, _ = yield from concrete(recipe)
    model = yield from load_model(recipe)
    data = yield from load_data(recipe, model)
    mask, _ = yield from find_once(recipe.mask, model, Search(recipe.loop.seed, recipe.data), recipe.model)
    session = Session(recipe, model, tuned_values(model, mask))
    model.pack_rows = formula(recipe, model.source.spec, data).rows
    search = prepared(session, data.train.encoded, None if steps is None else Budget(HELD_OUT, (steps,)))
    if search is None:
        raise UserError(
            f"[loop] steps = {recipe.loop.steps}: a tenth of them is too little to compare learning rates. Set more "
            "steps, or choose the length of the trials with --steps."
        )
    return (yield from search.run())


def prepared(session: Session, examples: Sequence[Encoded], budget: Budget | None = None) -> RateSearch | None:
    """A search for the rate of ``session`` on its training ``examples``; None if the run is too short for one. Raises
    `UserError` if there are too few examples."""
    recipe = session.recipe
    tokens = recipe.loop.batch_size * sum(map(count_tokens, examples)) / max(1, len(examples))
    general = sum(map(count_tokens, text_to_keep(session) or ())) / max(1.0, tokens)
    budget = budget or Budget.of(recipe, GENERAL * general)
    if not budget.steps:
        return None
    apart, rest = set_apart(examples, recipe.loop.seed, budget.compared * recipe.loop.batch_size)
    compared = session.base(apart)

    def loss() -> float:
        with session.current():
            return recipe.objective.measure(session.model, apart, base=compared).loss.item()

    return RateSearch(session, rest, loss, budget, compared=len(apart) / recipe.loop.batch_size, general=general)


def set_apart(examples: Sequence[Encoded], seed: int, most: int) -> tuple[list[Encoded], list[Encoded]]:
    """At most ``most`` held-out examples and a quarter of all, drawn from the seed, and the others. Raises
    `UserError`."""
    if len(examples) < 2:
        raise UserError("There are too few training examples to find a rate with: at least two are needed.")
    count = max(1, min(most, len(examples) // 4))
    mixed = [examples[place] for place in permutation(seed, 0, len(examples), Stream.APART)]
    return mixed[:count], mixed[count:]


@dataclass
class RateSearch:
    """A search on ``examples``; ``loss`` gives the loss of the session's current values on others."""

    session: Session
    examples: Sequence[Encoded]
    loss: Callable[[], float]
    budget: Budget
    base: float = math.nan
    compared: float = 0.0
    """Forward passes of a batch that ``loss`` takes."""
    general: float = 0.0
    """The same of general text, read once."""
    read: int = 0
    """How often that was read so far."""
    steps: int = 0
    """Steps taken so far."""
    rungs: dict[tuple[int, int], Rung] = field(default_factory=dict)
    """Results by steps and place: the number of half powers of ten from the usual rate."""

    @property
    def passes(self) -> int:
        """Forward passes of a batch taken so far."""
        compared = (1 + len(self.rungs)) * self.compared
        return round(self.steps * self.session.recipe.step_cost + compared + self.read * self.general)

    def run(self) -> Generator[Event, None, RateReport]:
        """Tries rates, and leaves the session as it was at its start."""
        session, best = self.session, None
        session.begin()
        self.base, place = self.loss(), 0
        for steps in self.budget.steps:
            found = yield from self._round(place, steps)
            if found is None:
                break
            place, best = found, self.rungs[steps, found]
        session.begin()
        rungs = tuple(self.rungs[key] for key in sorted(self.rungs))
        if best is None:
            return RateReport(rungs, self.base, rungs[-1].steps, None, passes=self.passes)
        wanted = self._answer(best)
        rate, self.read = yield from harmless(session, wanted)
        return RateReport(rungs, self.base, best.steps, rate, rate < wanted, self.passes)

    def _answer(self, best: Rung) -> float:
        """The rate of the run, where the ``best`` of the longest short runs is known."""
        usual, found = self.session.recipe.update.learning_rate, best.rate / self._shorter(best.steps)
        weight = best.steps / (best.steps + (TELLING_EXACT if self.session.recipe.estimator.exact else TELLING))
        return float(f"{math.pow(usual, 1 - weight) * math.pow(found, weight):.2g}")

    def _round(self, place: int, steps: int) -> Generator[Event, None, int | None]:
        """The place of the best of the rates around ``place``, where both neighbours of the best were tried, or are
        beyond what can be set; None if no rate helps."""
        tried: dict[int, float] = {}
        while True:
            missing = [each for each in (place, place - 1, place + 1) if each not in tried and self._can(each)]
            if not missing or len(tried) >= MOST:
                return place if math.isfinite(tried[place]) else None
            for each in missing:
                tried[each] = yield from self._try(each, steps)
            # Of equal losses, that of the rate nearest to the usual one; if none is finite, lower rates are next.
            place = min(tried, key=lambda each: (tried[each], abs(each) if math.isfinite(tried[each]) else each))
            if place == min(tried) and place < 0 and math.isclose(tried[place], self.base, rel_tol=SAME):
                return None  # all higher rates harm, and lower ones do nothing

    def _rate(self, place: int) -> float:
        usual = self.session.recipe.update.learning_rate * self._shorter(self.budget.steps[0])
        return float(f"{usual * RUNG**place:.2g}")

    def _shorter(self, steps: int) -> float:
        """The best rate of runs of ``steps`` steps, relative to that of the run."""
        recipe = self.session.recipe
        return max(1.0, math.pow(recipe.loop.steps / steps, FADES_EXACT if recipe.estimator.exact else FADES))

    def _can(self, place: int) -> bool:
        return self._rate(place) <= highest(type(self.session.recipe.update))

    def _try(self, place: int, steps: int) -> Generator[Event, None, float]:
        """The loss after a short run; infinite if it is unstable."""
        rate, losses = self._rate(place), list[float]()
        self.session.begin()
        short = with_settings(self.session.recipe, [f"loop.steps={steps}"])
        for step in range(1, steps + 1):
            yield Progress(f"Trying a learning rate of {short_rate(rate)}", step - 1, steps, "steps")
            losses.append(self._step(short.with_rate(rate), step))
            self.steps += 1
            if not math.isfinite(losses[-1]) or (len(losses) >= LAST and median(losses[-LAST:]) > FAR * self.base):
                break
        after = self.loss() if math.isfinite(losses[-1]) and len(losses) == steps else math.nan
        stable = math.isfinite(after) and after < WORSE * self.base
        loss = after if math.isfinite(after) else None
        self.rungs[steps, place] = Rung(rate, loss, stable, steps, tuple(losses))
        return float(after) if stable else math.inf

    def _step(self, short: Recipe, step: int) -> float:
        """Takes a step of a short run and returns its loss."""
        session, rate = self.session, short.update.rate(step, short.loop.steps)
        batch = session.choose(self.examples).examples
        directions = session.directions()
        found = session.estimate(batch, directions, rate)
        if not all(map(math.isfinite, found.recorded)):
            return math.nan
        session.take(directions, found.recorded, rate, found.exact)
        return found.loss


def text_to_keep(session: Session) -> list[Encoded] | None:
    """The general text on which `harmless` tries random movement; None if it tries none, or there is no text."""
    recipe, tuned = session.recipe, session.tuned
    if recipe.estimator.exact or tuned.space.in_place or not in_weights(type(recipe.update)):
        return None
    if tuned.freedom < recipe.loop.steps:  # slopes decide where values go, and not chance
        return None
    try:
        return general_text(session.model, recipe.data.max_tokens)
    except UserError:
        return None


def harmless(session: Session, rate: float) -> Generator[Event, None, tuple[float, int]]:
    """The highest of ``rate`` and its half powers of ten below at which the random part of a run's movement, tried
    alone from its start, keeps the perplexity on general text; and how often that text was read. Where it is not known,
    ``rate`` itself."""
    recipe, tuned, text, read = session.recipe, session.tuned, text_to_keep(session), 1
    if text is None:
        return rate, 0
    session.begin()
    with tuned.applied():
        base = yield from perplexity(session.model, text)
    if not math.isfinite(base):
        return rate, read
    schedule, steps = recipe.with_rate(1.0).update, recipe.loop.steps
    moved = math.sqrt(math.fsum(schedule.rate(step, steps) ** 2 for step in range(1, steps + 1)))
    if recipe.update.averages:
        moved /= math.sqrt(max(1, recipe.estimator.averaged(recipe.loop.batch_size)))
    random = normal(recipe.loop.seed, 0, 0, tuned.values.numel(), tuned.values.device)
    for _ in range(MOST):
        read += 1
        session.begin()
        tuned.values += random * (rate * moved)
        with tuned.applied():
            after = yield from perplexity(session.model, text)
        if after <= HARM * base:
            break
        rate = float(f"{rate / RUNG:.2g}")
    session.begin()
    return rate, read
