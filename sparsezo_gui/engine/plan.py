"""The ways to tune a recipe's model on its data, side by side: memory and time of each on this computer.

Measured are the peak memory of a step on the largest batch, and the seconds of real steps, with masks that need no
search. How long the search takes, and computing once what enters the last blocks, follows from these seconds and
from numbers of tokens. How many steps are needed is what other runs needed (see `sparsezo_gui.recipe.ways`).
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import replace
from statistics import median

from sparsezo_gui.answers import MemoryEstimate, Pace, Plan, WayFigures
from sparsezo_gui.engine import known
from sparsezo_gui.engine.data import TaskData
from sparsezo_gui.engine.data.encode import Encoded
from sparsezo_gui.engine.frozen import FrozenModel
from sparsezo_gui.engine.hub.library import spec_of
from sparsezo_gui.engine.masks.rule import Search
from sparsezo_gui.engine.objective import count_tokens
from sparsezo_gui.engine.planning import formula, measured, stand_in
from sparsezo_gui.engine.pretrained.spec import ModelSpec
from sparsezo_gui.engine.rate_search import PART, Budget
from sparsezo_gui.engine.session import Session
from sparsezo_gui.engine.session.loading import load_data, load_model, tune_blocks
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe.events import Event, Progress
from sparsezo_gui.recipe.registry import SPACES
from sparsezo_gui.recipe.ways import STEPS, Way, as_settings, reason, ways
from sparsezo_gui.sizes import duration, size
from sparsezo_gui.work import changing

TIMED = 3  # steps, after the two of the memory measurement
PREFIXES = 8  # examples whose prefix is timed


def plan(recipe: Recipe, measure: bool | None = None) -> Generator[Event, None, Plan]:
    """The ways to tune ``recipe``, by measurement or by formula (None: measured if the model is on this computer).

    The model is loaded once. Closing the generator cancels. Raises `UserError`.
    """
    data = yield from known.data(recipe.data, recipe.model)
    spec, chosen = spec_of(recipe.model), _distinct(recipe)
    found = {way.name: _by_formula(way, recipe, spec, data) for way in chosen}
    if known.folder(recipe.model) is not None if measure is None else measure:
        found |= yield from _measured(recipe, [way for way in chosen if not found[way.name].problem], found)
    return recommend(_alike(list(found.values())), recipe)


def _alike(found: Sequence[WayFigures]) -> list[WayFigures]:
    """``found`` with the memory that was free when the first way was looked at."""
    memories = [way.memory for way in found if way.memory]
    return [
        replace(way, memory=replace(way.memory, available=memories[0].available)) if way.memory else way
        for way in found
    ]


def _distinct(recipe: Recipe) -> list[Way]:
    """The ways, without those that come to the same as an earlier one."""
    found: list[Way] = []
    for way in ways(recipe):
        if not any(_same(way, other, recipe) for other in found):
            found.append(way)
    return found


def _same(way: Way, other: Way, recipe: Recipe) -> bool:
    try:
        return way.recipe(recipe) == other.recipe(recipe)
    except UserError:
        return False


def _by_formula(way: Way, recipe: Recipe, spec: ModelSpec, data: TaskData | None) -> WayFigures:
    figures = WayFigures(way.name, way.title, way.limits, way.steps, way.settings, as_settings(recipe, way))
    try:
        return replace(figures, memory=formula(way.recipe(recipe), spec, data))
    except UserError as error:
        return replace(figures, refused=reason(error))


def _measured(
    recipe: Recipe, chosen: Sequence[Way], found: dict[str, WayFigures]
) -> Generator[Event, None, dict[str, WayFigures]]:
    """The figures of the ``chosen`` ways by measurement."""
    made: dict[str, WayFigures] = {}
    if not chosen:
        return made
    model = yield from load_model(recipe)
    data = yield from load_data(recipe, model)
    passes: float | None = None  # seconds that one token takes in a forward pass through all blocks
    # Ways that change the weights in place come last: the others need the original ones.
    for way in sorted(chosen, key=lambda way: SPACES[way.recipe(recipe).mask.space].in_place):
        own = way.recipe(recipe)
        tune_blocks(model, own)
        session = yield from stand_in(own, model)
        memory = yield from _named(way, measured(session, data))
        seconds, tokens = yield from _timed(way, session, data.train.encoded)
        if passes is None and model.prefix is None:
            passes = seconds / tokens / own.step_cost
        prefix, rates = _prefix(own, model, data.train.encoded), seconds * _trials(own)
        pace = Pace(seconds * own.cost / own.step_cost, _search(own, model, passes), prefix, rates)
        made[way.name] = replace(found[way.name], memory=memory, pace=pace)
        del session
    return made


def _named(way: Way, work: Generator[Event, None, MemoryEstimate]) -> Generator[Event, None, MemoryEstimate]:
    """``work`` with the name of the way in its progress."""
    return changing(work, lambda event: replace(event, stage=_stage(way)) if isinstance(event, Progress) else event)


def _stage(way: Way) -> str:
    return f"Measuring: {way.title}"


def _timed(way: Way, session: Session, examples: Sequence[Encoded]) -> Generator[Event, None, tuple[float, int]]:
    """Seconds of a real step (the median), and the tokens of the batches' mean, with prefixes computed before."""
    session.begin()
    times, tokens = [], 0
    for done in range(TIMED):
        yield Progress(_stage(way), done, TIMED, "steps")
        started = time.perf_counter()
        batch, _ = session.choose(examples)
        waited = time.perf_counter()
        if session.model.prefix is not None:
            session.model.prefix.keep(batch)
        kept = time.perf_counter()
        directions = session.directions()
        estimate = session.estimate(batch, directions)
        session.advance(directions, estimate.recorded, 0.0, estimate.exact)
        times.append(time.perf_counter() - kept + waited - started)
        tokens += sum(map(count_tokens, batch))
    return median(times), max(1, tokens // TIMED)


def _search(recipe: Recipe, model: FrozenModel, passes: float | None) -> float:
    """Seconds to find the mask, by the number of tokens that it reads."""
    return passes * recipe.mask.work(model, Search(recipe.loop.seed, recipe.data)) if passes else 0.0


def _trials(recipe: Recipe) -> float:
    """Steps that the search for a learning rate takes."""
    return recipe.loop.steps / PART if recipe.update.find_rate and Budget.of(recipe).steps else 0.0


def _prefix(recipe: Recipe, model: FrozenModel, examples: Sequence[Encoded]) -> float:
    """Seconds to compute what enters the tuned blocks for each training example that the usual steps use."""
    if model.prefix is None:
        return 0.0
    some = examples[:PREFIXES]
    started = time.perf_counter()
    for row in (row for example in some for row in example.joined):
        model.prefix.computed(row)
    share = (time.perf_counter() - started) / max(1, sum(map(count_tokens, some)))
    used = min(1.0, recipe.loop.steps * recipe.loop.batch_size / len(examples))
    return share * used * sum(map(count_tokens, examples))


def recommend(found: Sequence[WayFigures], recipe: Recipe) -> Plan:
    """The plan: recommended is the first way of `STEPS` that fits; if none does, the one that needs the least memory
    of those that can be started."""
    notes = _notes(found, recipe)
    possible = {way.name: way for way in found if not way.problem}
    fitting = [possible[name] for name in STEPS if name in possible and _memory(possible[name]).verdict == "fits"]
    if fitting:
        return Plan(tuple(found), fitting[0].name, _why(fitting, found), notes)
    if not possible:
        return Plan(tuple(found), "", "None of them can be started here. Choose a smaller model.", notes)
    least = min(possible.values(), key=lambda way: _memory(way).most)
    why = f"{least.title}: it needs the least memory, {_of(least)} free, which is tight. Close other programs."
    return Plan(tuple(found), least.name, why, notes)


def _why(fitting: Sequence[WayFigures], found: Sequence[WayFigures]) -> str:
    """Why the first of the ``fitting`` ways is recommended, and which one is faster."""
    best = fitting[0]
    if best.name.startswith("forward"):
        others = [way.problem for way in found if not way.name.startswith("forward") and way.problem]
        why = (
            f"{best.title}: exact gradients are not possible here. {others[0]}" if others else f"{best.title}: it fits."
        )
        return why
    why = f"{best.title}: usually {best.steps} steps instead of {STEPS['forward']:,}, and it fits ({_of(best)} free)."
    timed = [way for way in fitting if way.seconds is not None]
    quick = min(timed, key=lambda way: way.seconds or 0.0, default=best)
    if quick is best or quick.seconds is None or best.seconds is None:
        return why
    return f"{why} Faster: {quick.title}, {duration(quick.seconds)} instead of {duration(best.seconds)}."


def _memory(way: WayFigures) -> MemoryEstimate:
    assert way.memory is not None, "it has no problem"
    return way.memory


def _of(way: WayFigures) -> str:
    return f"{size(_memory(way).most)} of {size(_memory(way).available)}"


def _notes(found: Sequence[WayFigures], recipe: Recipe) -> tuple[str, ...]:
    """What the figures mean."""
    notes = ["Steps are those that such runs usually needed in batches of 16; your data may need more or fewer."]
    if any(way.pace for way in found):
        notes.append("Times include what comes before the first step, but no evaluations.")
    if recipe.privacy.private:
        notes.append(
            "[privacy] does not cover these figures: memory and times depend on the lengths of the training examples. "
            "Their answers are not used for anything else."
        )
    return tuple(notes)
