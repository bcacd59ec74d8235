"""The ways to tune a model, from forward passes alone to exact gradients: what each sets, and what it cannot do.

The command ``sparsezo plan`` compares them, and ``[estimator] rule = "auto"`` chooses among them.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.presets import PRESETS, preset
from sparsezo_gui.recipe.recipe import Recipe
from sparsezo_gui.recipe.registry import MASKS, UPDATES
from sparsezo_gui.recipe.tables import changed

Tables = dict[str, dict[str, Any]]

AUTO = "auto"
SUFFIXES = {"all": "all blocks", "half": "the last half of the blocks", "quarter": "the last quarter of the blocks"}
"""Values of [mask] blocks that 'auto' tries, in this order, and what they mean."""

# Steps usually needed in batches of 16, measured on the starter and SmolLM2: tests/benchmarks/README.md, "Learning
# rates of exact gradients" and "Suffix tuning"; for forward passes tests/benchmarks/quality.md.
STEPS = {"exact": 100, "lora": 100, "exact-half": 100, "forward-subspace": 250, "forward": 2000}
"""By way; the first one that fits is recommended."""

_NO_GRADIENT = "Cannot tune accuracy or other counts, keep examples private, or compute in int8."
_MANY_STEPS = "Needs many more steps than exact gradients, and usually ends less accurate."
_LOOKS = "Looks at gradients of some examples now and then, so it cannot keep them private."
_LAST_HALF = "Changes only the last half of the blocks."


@dataclass(frozen=True)
class Way:
    """``settings`` by table make a recipe tune this way; ``steps`` are usually needed; ``limits`` are sentences."""

    name: str
    title: str
    settings: Tables
    limits: str

    @property
    def steps(self) -> int:
        return STEPS[self.name]

    def recipe(self, recipe: Recipe) -> Recipe:
        """``recipe`` tuned this way. Raises `UserError` if its other parts do not allow that."""
        return changed(recipe, self.settings)


def ways(recipe: Recipe) -> list[Way]:
    """The ways to tune as ``recipe`` says, which itself is one of those that need forward passes only, if it does."""
    own, exact, half = _forward(recipe), _exact(), preset("Exact, last half").settings
    lora = {**half, "mask": {**half["mask"], "blocks": "all"}}
    forward, subspace = own, preset("Gradient subspace").settings
    if own["mask"]["rule"] == subspace["mask"]["rule"]:
        forward, subspace = PRESETS[0].settings, own
    part = _LAST_HALF if subspace["mask"]["blocks"] == "half" else ""
    found = [
        Way("forward", "Forward passes only", forward, _MANY_STEPS),
        Way("exact", "Exact gradients", exact, _NO_GRADIENT),
        Way("forward-subspace", "Forward passes in a gradient subspace", subspace, f"{part} {_LOOKS}".strip()),
        Way("exact-half", "Exact gradients, last half", half, f"{_LAST_HALF} {_NO_GRADIENT}"),
        Way("lora", "LoRA, exact gradients", lora, f"Changes whole matrices. {_NO_GRADIENT}"),
    ]
    return [Way(way.name, way.title, {**way.settings, "loop": {"steps": way.steps}}, way.limits) for way in found]


def _forward(recipe: Recipe) -> Tables:
    """What makes a recipe like ``recipe`` use forward passes only, whatever its method was changed to since."""
    if recipe.estimator.backwards:
        return PRESETS[0].settings
    own = recipe.model_dump(mode="json", include={"mask", "estimator", "update"})
    return own | {"estimator": {"rule": "two-sided"}} if recipe.estimator.rule == AUTO else own


def _exact() -> Tables:
    """The preset's settings but for the density, which a sensitive mask keeps."""
    settings = preset("Exact gradients").settings
    return {**settings, "mask": {key: value for key, value in settings["mask"].items() if key != "density"}}


def as_settings(recipe: Recipe, way: Way) -> tuple[str, ...]:
    """What ``way`` changes in ``recipe``, as settings of the command line: none that follows from the others."""
    needed = [(table, key, value) for table, values in way.settings.items() for key, value in values.items()]
    with suppress(UserError):  # the recipe does not allow this way
        made = way.recipe(recipe)
        for each in list(needed):
            rest = [other for other in needed if other is not each]
            with suppress(UserError):  # what is left does not go together
                if changed(recipe, _tables(rest)) == made:
                    needed = rest
    return tuple(
        f"{table}.{key}={value if isinstance(value, str) else json.dumps(value)}" for table, key, value in needed
    )


def _tables(settings: list[tuple[str, str, Any]]) -> Tables:
    found = Tables()
    for table, key, value in settings:
        found.setdefault(table, {})[key] = value
    return found


def uses(recipe: Recipe, settings: Tables) -> bool:
    """Whether ``recipe`` has the method of ``settings``, with whichever learning rate and steps."""
    try:
        return method(recipe) == method(changed(recipe, settings))
    except UserError:
        return False


def method(recipe: Recipe) -> tuple[object, ...]:
    """What distinguishes ways to tune."""
    return recipe.mask, recipe.estimator, recipe.update.rule


def resolved(recipe: Recipe, blocks: str = "") -> Recipe:
    """A recipe with [estimator] rule = 'auto' made concrete: exact gradients in ``blocks``, or, if that is empty,
    forward passes. Raises `UserError` if its other parts do not allow that.

    Mask and update are those of the preset for these blocks, or of the gradient subspace for forward passes where it is
    allowed (not in private runs), unless the recipe has other rules than the default ones: those stay, and the learning
    rate follows them. With exact gradients a sensitive mask of all blocks keeps its settings.
    """
    update = recipe.update.model_dump(mode="json")
    if not blocks:
        made = changed(recipe, {"estimator": {"rule": "two-sided"}})
        if recipe.mask.rule == MASKS.default:
            with suppress(UserError):
                subspace = preset("Gradient subspace").settings
                made = changed(made, {"mask": subspace["mask"], "update": subspace["update"]})
        return made if update["rule"] == UPDATES.default else changed(made, {"update": update})
    settings = _exact() if blocks == "all" else preset("Exact, last half").settings
    mask = recipe.mask.model_dump(mode="json")
    if mask["rule"] == MASKS.default:
        made = changed(recipe, {**settings, "mask": {**settings["mask"], "blocks": blocks}})
    else:
        made = changed(changed(recipe, _exact()), {"mask": {**mask, "blocks": blocks}})
    return made if update["rule"] == UPDATES.default else changed(made, {"update": update})


def suffixes(recipe: Recipe) -> list[str]:
    """The values of [mask] blocks to try for ``recipe``, largest first: none beyond its own."""
    own, names = recipe.mask.blocks, list(SUFFIXES)
    return names[names.index(own) :] if own in names else [own]


def reason(error: UserError) -> str:
    """Why parts do not go together, in a sentence without the fixes that follow it."""
    return f"{str(error).splitlines()[0].removeprefix('recipe: ').split('. ')[0].rstrip('.')}."
