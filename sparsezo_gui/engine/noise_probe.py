"""Measures how much of the loss differences is rounding noise, and chooses an ε with little of it.

A run does so before its first step where its numbers are coarse or its ε is small; the window and `sparsezo noise` do
it for a recipe.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from sparsezo_gui.engine.data import TaskData
from sparsezo_gui.engine.masks.kept import find_once
from sparsezo_gui.engine.masks.rule import Search
from sparsezo_gui.engine.objectives.likelihood import Likelihood
from sparsezo_gui.engine.planning import concrete, formula
from sparsezo_gui.engine.probe import ModelProbe
from sparsezo_gui.engine.session import Session
from sparsezo_gui.engine.session.loading import load_data, load_model
from sparsezo_gui.engine.spaces.values import tuned_values
from sparsezo_gui.engine.zo.batches import shuffled_batch
from sparsezo_gui.engine.zo.estimators.two_sided import TwoSided
from sparsezo_gui.engine.zo.noise import probes, until_clear
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe.events import Event, Notice, Progress
from sparsezo_gui.recipe.noise import Noise, NoiseProbed

DIRECTIONS = 2  # to measure along; drawn for step 0, which the loop does not use


def probe_noise(recipe: Recipe) -> Generator[Event, None, NoiseProbed]:
    """Loads the model, finds the mask, and measures at the recipe's ε and above. Closing the generator cancels. Raises
    `UserError`."""
    if recipe.privacy.private:
        raise UserError(
            "Measuring noise uses training examples without the noise of [privacy], so it would reveal information "
            "about them. Measure with similar examples, with [privacy] rule = 'none'."
        )
    recipe, _ = yield from concrete(recipe)
    if not hasattr(recipe.estimator, "epsilon"):
        raise UserError(
            f"[estimator] rule = '{recipe.estimator.rule}' has no epsilon: it takes no differences of the loss, so "
            "there is no noise in them to measure."
        )
    model = yield from load_model(recipe)
    data = yield from load_data(recipe, model)
    mask, _ = yield from find_once(recipe.mask, model, Search(recipe.loop.seed, recipe.data), recipe.model)
    session = Session(recipe, model, tuned_values(model, mask))
    session.begin()
    model.pack_rows = formula(recipe, model.source.spec, data).rows
    yield Progress("Measuring rounding noise of the loss")
    return NoiseProbed.of(list(_trials(session, data)))


def needed(session: Session) -> bool:
    """Whether a run measures noise. In fp32, the usual ε is far above it; and it uses examples without [privacy]."""
    recipe = session.recipe
    fine = getattr(recipe.estimator, "epsilon", 1.0) < TwoSided().epsilon
    return (session.model.rounds or fine) and not recipe.privacy.private and hasattr(recipe.estimator, "epsilon")


def tune_epsilon(session: Session, data: TaskData) -> Generator[Event, None, list[Event]]:
    """Raises ε if the model's compute type is too coarse for it; returns the events that say so."""
    recipe, events = session.recipe, list[Event]()
    yield Progress("Measuring rounding noise of the loss")
    found = NoiseProbed.of(until_clear(_trials(session, data)))
    if found.epsilon != found.wanted:
        estimator = recipe.estimator.model_copy(update={"epsilon": found.epsilon})
        session.recipe = recipe.model_copy(update={"estimator": estimator})
        events.append(Notice(f"Epsilon was raised from {found.wanted:g} to {found.epsilon:g}: with less, differences "
                             "of the loss could not be distinguished from rounding noise."))  # fmt: skip
    noise = found.chosen
    if not noise.clear:
        events.append(Notice(
            f"Loss differences ({noise.difference:.1e}) are close to rounding noise ({noise.rounding:.1e}): "
            "the run may learn slowly. Set a larger [estimator] epsilon or [model] compute = 'float32', or tune more "
            "weights.", "warning",
        ))  # fmt: skip
    return [found, *events]


def _trials(session: Session, data: TaskData) -> Iterator[Noise]:
    """The noise of the loss of the first batch, from the recipe's ε up."""
    recipe = session.recipe
    batch = shuffled_batch(recipe.loop, 1, data.train.encoded)
    source = session.source(recipe, 0)
    along = TwoSided(directions=DIRECTIONS)
    z = session.tuned.shape(along, session.tuned.draw(along, source, len(batch)), source.step, None)
    # A counted objective jumps even without rounding, so the likelihood stands in for it.
    smooth = recipe if not recipe.objective.counts else recipe.model_copy(update={"objective": Likelihood()})
    probe = replace(session, recipe=smooth).probe(batch, z)
    epsilon: float = getattr(recipe.estimator, "epsilon")  # noqa: B009 (only some estimators have one)
    return probes(epsilon, [partial(_along, probe, direction) for direction in torch.eye(DIRECTIONS)])


def _along(probe: ModelProbe, direction: Tensor, offsets: Tensor) -> Tensor:
    return probe.losses(offsets * direction)
