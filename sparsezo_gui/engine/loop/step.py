"""One training step."""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from typing import cast

from sparsezo_gui.engine import device as devices
from sparsezo_gui.engine.loop.running import Events, Loaded, Running
from sparsezo_gui.engine.loop.writing import keep_gradient
from sparsezo_gui.engine.objective import count_tokens
from sparsezo_gui.engine.runs.gradients import Rounded, rounded
from sparsezo_gui.recipe import events as e


def take_step(running: Running, model: Loaded) -> Events:
    """One step: draw directions, run all forward passes on the same batch, update, record. None is taken if a command
    comes while its directions are found again."""
    started = time.perf_counter()
    session, recipe = model.session, model.session.recipe
    number, private = session.step + 1, recipe.privacy.private
    basis = None
    if recipe.mask.due(number):
        basis = yield from _refreshed(running, model)
        if basis is None:
            return
    batch, tokens = session.choose(model.data.train.encoded)
    rate = recipe.update.rate(number, recipe.loop.steps) * session.factor
    directions = session.directions()
    found = session.estimate(batch, directions, rate)
    # Non-finite scalars must not reach the values; recorded zeros make the replay skip the step too.
    recorded, exact = found.recorded, found.exact
    kept = rounded(exact)
    if running.run.facts.rounds:
        exact = kept.unpacked(session.tuned.values)
    finite = all(map(math.isfinite, recorded)) and (exact is None or bool(exact.isfinite().all()))
    if not finite:
        recorded, exact = (0.0,) * len(recorded), None
    session.take(directions, recorded, rate, exact)
    # The number of tokens of a private batch would reveal its examples, as its loss would.
    passes = recipe.estimator.forward_passes + recipe.update.forward_passes
    tokens = 0 if private else tokens + sum(map(count_tokens, batch)) * passes
    memory, seconds = devices.memory_used(session.model.device), time.perf_counter() - started
    now = time.time()
    if basis or (recipe.estimator.exact and any(recorded)):
        yield from keep_gradient(running, number, now, basis or kept)
    yield from running.written(
        lambda: running.journal.append(
            step=number, tokens=tokens, loss=found.loss, rate=rate, seconds=seconds, memory=memory, values=recorded,
            at=now,
        )
    )  # fmt: skip
    yield e.Step(number, found.loss, recorded[0], rate, seconds, memory, tokens)
    running.bad = 0 if private or (finite and math.isfinite(found.loss)) else running.bad + 1
    if running.bad:
        what = "gradient" if math.isfinite(found.loss) else "loss"
        yield from running.record(e.Notice(f"Step {number} had no finite {what} and was skipped.", "warning"))
    if running.guard:
        running.guard.saw(number, found.loss, recorded)


def _refreshed(running: Running, model: Loaded) -> Generator[e.Event, None, Rounded | None]:
    """Finds the basis of the step's directions again, which takes as long as dozens of steps; None if a command came
    meanwhile that does not wait."""
    work = model.session.refresh(model.data.train.encoded)
    while not running.leaving():
        try:
            yield next(work)
        except StopIteration as found:
            return cast("Rounded", found.value)
    work.close()
    return None
