"""What `sparsezo_gui.engine.bench.quality` compares: methods as settings of a recipe.

Methods that are not named after an update take scalar-normalised steps, all with a decaying rate, so that only what the
name says differs. The search for the best rate starts from the rates here. The methods in `STEPS` are as users get
them: their rate is not searched for, and they take so many steps. A name may set density and steps, as in
'random@0.01:300'.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import NamedTuple

from sparsezo_gui.engine.masks.rule import BLOCKS
from sparsezo_gui.errors import UserError, did_you_mean
from sparsezo_gui.recipe import Recipe, with_settings
from sparsezo_gui.recipe.presets import PRESETS

_SENSITIVE = ("mask.rule=sensitive", "update.learning_rate=4e-3")
_DENSE = ("model.bits=32", "update.learning_rate=2e-3")
_WITHOUT_GRADIENT = ("update.learning_rate=1.6e-2",)


def _estimated_by(estimator: str) -> tuple[str, ...]:
    return (*_SENSITIVE, f"estimator.rule={estimator}")


METHODS: dict[str, tuple[str, ...]] = {
    "sensitive": _SENSITIVE,
    "sensitive-answers": (*_SENSITIVE, "mask.text=answers"),
    "sensitive-16": (*_SENSITIVE, "model.bits=16"),
    "random": ("mask.rule=random", *_WITHOUT_GRADIENT),
    "large-magnitude": ("mask.rule=large-magnitude", *_WITHOUT_GRADIENT),
    "small-magnitude": ("mask.rule=small-magnitude", *_WITHOUT_GRADIENT),
    "weight-activation": ("mask.rule=weight-activation", *_WITHOUT_GRADIENT),
    "rows": ("mask.rule=rows", *_WITHOUT_GRADIENT),
    "outlier-channels": ("mask.rule=outlier-channels", "mask.threshold=50", *_WITHOUT_GRADIENT),
    "multi-task": ("mask.rule=multi-task", "update.learning_rate=4e-3"),
    "subspace": ("mask.rule=subspace", *_WITHOUT_GRADIENT),
    "activation-subspace": ("mask.rule=activation-subspace", *_WITHOUT_GRADIENT),
    "mezo": ("mask.rule=all", *_DENSE),
    "sparse-mezo": ("mask.rule=small-magnitude-dynamic", *_DENSE),
    "lezo": ("mask.rule=random-layers", *_DENSE),
    "four-directions": (*_SENSITIVE, "estimator.directions=4"),
    **{
        rule: _estimated_by(rule)
        for rule in ("fzoo", "grzo", "hizoo", "conmezo", "bszo", "curvzo", "loren", "elastic", "forward-gradient")
    },
    "addax": (*_estimated_by("addax"), "estimator.short=36"),
    "first-order": (*_estimated_by("first-order"), "update.rule=adam", "update.learning_rate=1e-3"),
    **{
        update: ("mask.rule=sensitive", f"update.rule={update}", f"update.learning_rate={rate}")
        for update, rate in (("sgd", 1e-3), ("sign", 4e-3), ("momentum", 1e-4), ("adam", 1e-3), ("conservative", 1e-3))
    },
    "coreset": (*_SENSITIVE, "selection.rule=coreset"),
}
COMMON = ("update.rule=scalar-normalised", "update.schedule=linear")
PRESET = {
    "exact": "Exact gradients", "exact-half": "Exact, last half", "gradient-subspace": "Gradient subspace",
}  # fmt: skip
STEPS = {"default": 1500, "exact": 100, "exact-half": 100, "gradient-subspace": 250}
UNTUNED, PROBE, LORA = "untuned", "linear-probe", "lora"
MASKLESS = (UNTUNED, PROBE, LORA)
ALL = (UNTUNED, PROBE, *STEPS, *METHODS, LORA)


class Name(NamedTuple):
    """The parts of a name; ``steps`` is 0 if it sets none."""

    method: str
    blocks: str
    density: str
    steps: int

    @property
    def masked(self) -> str:
        """The name without density and steps."""
        return f"{self.method}{self.blocks and f'/{self.blocks}'}"


def parsed(name: str) -> Name:
    """The parts of ``name``, such as 'random/half@0.01:300'. Raises `UserError`."""
    rest, colon, steps = name.partition(":")
    rest, at, density = rest.partition("@")
    method, slash, blocks = rest.partition("/")
    if method not in ALL:
        raise UserError(f"Unknown method '{method}'. {did_you_mean(method, ALL)}")
    if colon and (not steps.isdecimal() or not int(steps) or method in (UNTUNED, PROBE)):
        raise UserError(f"'{name}': write steps as a whole number above 0, of a method that takes steps: lora:100.")
    if slash and method in MASKLESS:
        raise UserError(f"'{name}': '{method}' has no mask whose blocks can be chosen. Use '{method}'.")
    if slash and not re.fullmatch(BLOCKS, blocks):
        raise UserError(f"'{name}': write blocks as all, half, quarter or a number, before density and steps: "
                        "exact/half:100.")  # fmt: skip
    if at and not has_density(method):
        raise UserError(f"'{name}': the mask of '{method}' has no density. Use '{method}'.")
    return Name(method, blocks, density, int(steps or 0))


def settings(name: str) -> tuple[str, ...]:
    """Settings of the method ``name``. Raises `UserError`."""
    method, blocks, density, _ = parsed(name)
    chosen = (("blocks", blocks), ("density", density))
    return (*_own(method), *(f"mask.{key}={value}" for key, value in chosen if value))


def _own(method: str) -> tuple[str, ...]:
    if method in PRESET:
        tables = next(preset.settings for preset in PRESETS if preset.title == PRESET[method])
        return tuple(
            f"{table}.{key}={json.dumps(value)}" for table, values in tables.items() for key, value in values.items()
        )
    return (*COMMON, *METHODS[method]) if method in METHODS else ()


def searched(name: str) -> bool:
    """Whether the rate of the method is searched for."""
    method = parsed(name).method
    return method in METHODS or method == LORA


def has_density(method: str) -> bool:
    """Whether ``method`` tunes a density of the weights that can be chosen."""
    chosen = with_settings(Recipe(), _own(method))
    return method not in MASKLESS and "density" in type(chosen.mask).model_fields


def named(methods: Sequence[str], densities: Sequence[str]) -> list[str]:
    """The full names of ``methods``: at each of ``densities``, where they have one, and with the steps of those in
    `STEPS`. Raises `UserError`."""
    found = []
    for name in methods:
        method, _, density, steps = chosen = parsed(name)
        several = [density] if density or not densities or not has_density(method) else densities
        count = steps or STEPS.get(method, 0)
        found += [f"{chosen.masked}{each and f'@{each}'}{f':{count}' if count else ''}" for each in several]
    return found
