"""The lazy registry: each rule's name, and the class that implements it. Adding a variant adds one line here.

Paths are strings, so listing the names imports nothing, and using a variant imports one small file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from sparsezo_gui.errors import UserError, did_you_mean, quoted
from sparsezo_gui.lazy import load
from sparsezo_gui.recipe.parts import Estimator, MaskRule, Objective, Privacy, Selection, Space, Update
from sparsezo_gui.recipe.variants import Variant

if TYPE_CHECKING:
    from sparsezo_gui.engine.spaces.space import Space

Part = TypeVar("Part", bound=Variant)

_ENGINE = "sparsezo_gui.engine"


@dataclass(frozen=True)
class Registry(Generic[Part]):
    """Variants of one part (``table`` of the recipe) by rule."""

    table: str
    default: str
    paths: dict[str, str]

    def __iter__(self) -> Iterator[str]:
        return iter(self.paths)

    def __getitem__(self, rule: str) -> type[Part]:
        """The variant's class. Raises `UserError` for an unknown rule."""
        if not isinstance(rule, str) or rule not in self.paths:
            word = quoted(rule)
            raise UserError(f"[{self.table}] rule: {word} is not a known rule. {did_you_mean(word, self.paths)}")
        return cast("type[Part]", load(self.paths[rule]))

    def having(self, key: str) -> list[str]:
        """The rules that have a field ``key``."""
        return [rule for rule in self if key in self[rule].model_fields]

    def build(self, table: Any) -> Part:
        """A variant from a recipe table. Raises `UserError`, and pydantic's error for its fields."""
        if isinstance(table, Variant):
            if not isinstance(table, kind := self[table.rule]):
                raise UserError(f"[{self.table}] rule = '{table.rule}': this is not a {kind.__name__}.")
            return table
        if not isinstance(table, dict):
            raise UserError(f"[{self.table}]: must be a table, not {quoted(table)}.")
        variant = self[table.get("rule", self.default)]
        return variant(**{key: value for key, value in table.items() if key != "rule"})

    def changed(self, table: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
        """The settings of ``table``, updated with ``values``.

        If the rule changes, only settings with the same default in both rules are kept; others, such as the learning
        rate, may be far off for the new rule.
        """
        before, after = table["rule"], values.get("rule")
        if isinstance(after, str) and after in self.paths and after != before:
            old, new = self[before].model_fields, self[after].model_fields
            table = {key: table[key] for key in table.keys() & new.keys() if old[key].default == new[key].default}
        return {**table, **values}


MASKS = Registry[MaskRule](
    "mask",
    "sensitive",
    {
        "sensitive": f"{_ENGINE}.masks.sensitive:Sensitive",
        "gradient-subspace": f"{_ENGINE}.masks.gradient_subspace:GradientSubspace",
        "weight-activation": f"{_ENGINE}.masks.weight_activation:WeightActivation",
        "outlier-channels": f"{_ENGINE}.masks.outliers:OutlierChannels",
        "rows": f"{_ENGINE}.masks.rows:Rows",
        "multi-task": f"{_ENGINE}.masks.multi_task:MultiTask",
        "random": f"{_ENGINE}.masks.random:Random",
        "large-magnitude": f"{_ENGINE}.masks.magnitude:LargeMagnitude",
        "small-magnitude": f"{_ENGINE}.masks.magnitude:SmallMagnitude",
        "small-magnitude-dynamic": f"{_ENGINE}.masks.small_dynamic:SmallMagnitudeDynamic",
        "random-layers": f"{_ENGINE}.masks.layers:RandomLayers",
        "all": f"{_ENGINE}.masks.all:All",
        "subspace": f"{_ENGINE}.masks.subspace:Subspace",
        "activation-subspace": f"{_ENGINE}.masks.activation_guided:ActivationSubspace",
        "lora": f"{_ENGINE}.masks.lora:Lora",
        "saved": f"{_ENGINE}.masks.saved:Saved",
    },
)
ESTIMATORS = Registry[Estimator](
    "estimator",
    "two-sided",
    {
        "two-sided": f"{_ENGINE}.zo.estimators.two_sided:TwoSided",
        "fzoo": f"{_ENGINE}.zo.estimators.fzoo:FZOO",
        "grzo": f"{_ENGINE}.zo.estimators.grzo:GRZO",
        "hizoo": f"{_ENGINE}.zo.estimators.hizoo:HiZOO",
        "conmezo": f"{_ENGINE}.zo.estimators.conmezo:ConMeZO",
        "bszo": f"{_ENGINE}.zo.estimators.bszo:BSZO",
        "curvzo": f"{_ENGINE}.zo.estimators.curvzo:CurvZO",
        "forward-gradient": f"{_ENGINE}.zo.estimators.forward_gradient:ForwardGradient",
        "first-order": f"{_ENGINE}.zo.estimators.first_order:FirstOrder",
        "elastic": f"{_ENGINE}.zo.estimators.elastic:Elastic",
        "addax": f"{_ENGINE}.zo.estimators.addax:Addax",
        "loren": f"{_ENGINE}.zo.estimators.loren:Loren",
        "auto": f"{_ENGINE}.zo.estimators.auto:Auto",
    },
)
UPDATES = Registry[Update](
    "update",
    "scalar-normalised",
    {
        "sgd": f"{_ENGINE}.zo.updates.sgd:SGD",
        "scalar-normalised": f"{_ENGINE}.zo.updates.scalar_normalised:ScalarNormalised",
        "sign": f"{_ENGINE}.zo.updates.sign:Sign",
        "momentum": f"{_ENGINE}.zo.updates.momentum:Momentum",
        "adam": f"{_ENGINE}.zo.updates.adam:Adam",
        "conservative": f"{_ENGINE}.zo.updates.conservative:Conservative",
    },
)
OBJECTIVES = Registry[Objective](
    "objective",
    "likelihood",
    {
        "likelihood": f"{_ENGINE}.objectives.likelihood:Likelihood",
        "accuracy": f"{_ENGINE}.objectives.counted:Accuracy",
        "f1": f"{_ENGINE}.objectives.counted:F1",
        "exact-match": f"{_ENGINE}.objectives.counted:ExactMatch",
        "preference": f"{_ENGINE}.objectives.preference:Preference",
    },
)
PRIVACY = Registry[Privacy](
    "privacy",
    "none",
    {"none": f"{_ENGINE}.privacy.none:NoPrivacy", "gaussian": f"{_ENGINE}.privacy.gaussian:Gaussian"},
)
SELECTIONS = Registry[Selection](
    "selection",
    "shuffled",
    {"shuffled": f"{_ENGINE}.selection.shuffled:Shuffled", "coreset": f"{_ENGINE}.selection.coreset:CoreSet"},
)


@dataclass(frozen=True)
class Spaces:
    """Spaces of tuned values by name; see `sparsezo_gui.engine.spaces.space`. A mask rule names its own."""

    default: str
    paths: dict[str, str]

    def __iter__(self) -> Iterator[str]:
        return iter(self.paths)

    def __getitem__(self, name: str) -> Space:
        """The space's description."""
        return cast("Space", load(self.paths[name])())


SPACES = Spaces(
    "entries",
    {
        "entries": f"{_ENGINE}.spaces.sparse:SparseSpace",
        "span": f"{_ENGINE}.spaces.span:SpanSpace",
        "dense": f"{_ENGINE}.spaces.dense:DenseSpace",
        "low-rank": f"{_ENGINE}.spaces.low_rank:LowRankSpace",
        "lora": f"{_ENGINE}.spaces.lora:LoraSpace",
    },
)
REGISTRIES: tuple[Registry[Any], ...] = (MASKS, ESTIMATORS, UPDATES, OBJECTIVES, SELECTIONS, PRIVACY)
BY_TABLE: dict[str, Registry[Any]] = {registry.table: registry for registry in REGISTRIES}
