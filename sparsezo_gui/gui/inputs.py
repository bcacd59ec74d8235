"""Which settings an answer of the engine depends on: it holds as long as these stay."""

from __future__ import annotations

from typing import Any

from sparsezo_gui.answers import Plan
from sparsezo_gui.gui.calls import Request
from sparsezo_gui.gui.requests import EstimateMemory, EstimateWays, PreviewData
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe.noise import NoiseProbed
from sparsezo_gui.recipe.ways import method, uses


def same_model(asked: Request[Any] | None, recipe: Recipe) -> bool:
    """Whether an estimate that was ``asked`` for is about the model of ``recipe``, if not about all its settings."""
    return isinstance(asked, EstimateMemory | EstimateWays) and asked.recipe.model.id == recipe.model.id


def same_data(asked: Request[Any] | None, recipe: Recipe) -> bool:
    """Whether a preview that was ``asked`` for is of the data of ``recipe`` in the tokens of its model, if not with all
    its settings."""
    if not isinstance(asked, PreviewData):
        return False
    return (asked.recipe.model.id, asked.recipe.data.source) == (recipe.model.id, recipe.data.source)


def of_fits(recipe: Recipe) -> tuple[Any, ...]:
    """The settings, besides the model, that decide which models fit."""
    model = recipe.model
    return model.bits, model.compute, model.device, recipe.data, *method(recipe), recipe.loop.batch_size


def of_mask(recipe: Recipe) -> tuple[Any, ...]:
    """The settings that a mask depends on."""
    return recipe.model, recipe.mask, recipe.loop.seed, recipe.data if recipe.mask.reads_task else None


def of_rate(recipe: Recipe) -> tuple[Any, ...]:
    """The settings that a suitable learning rate depends on."""
    update = recipe.update.model_copy(update={"learning_rate": 1.0, "find_rate": False, "schedule": "constant"})
    loop = recipe.loop.batch_size, recipe.loop.seed
    return recipe.model, recipe.data, recipe.mask, recipe.estimator, update, recipe.objective, recipe.privacy, loop


def of_noise(recipe: Recipe) -> tuple[Any, ...]:
    """The settings, besides epsilon, that differences of the loss and their noise depend on."""
    estimator = recipe.estimator.rule, hasattr(recipe.estimator, "epsilon")
    return recipe.model, recipe.data, recipe.mask, estimator, recipe.objective, recipe.loop.batch_size, recipe.loop.seed


def probes(report: NoiseProbed, asked: Recipe, recipe: Recipe) -> bool:
    """Whether ``report``, which was measured for ``asked``, is about ``recipe``, which may use its epsilon."""
    epsilon = getattr(recipe.estimator, "epsilon", None)
    return of_noise(asked) == of_noise(recipe) and epsilon in (report.wanted, report.epsilon)


def of_plan(recipe: Recipe) -> tuple[Any, ...]:
    """The settings that a comparison of ways depends on, besides the method."""
    return recipe.model, recipe.data, recipe.objective, recipe.selection, recipe.privacy, recipe.loop.batch_size


def compares(plan: Plan, asked: Recipe, recipe: Recipe) -> bool:
    """Whether ``plan``, which compares ways to tune ``asked``, does so for ``recipe``, which may use one of them."""
    same = of_plan(asked) == of_plan(recipe)
    return same and (method(asked) == method(recipe) or any(uses(recipe, way.tables) for way in plan.ways))
