"""The rate that suits when the rule of the mask or of the update changes."""

from __future__ import annotations

import pytest

from sparsezo_gui.recipe import Recipe, with_settings
from sparsezo_gui.recipe.rates import in_weights, suited, times
from sparsezo_gui.recipe.registry import MASKS, UPDATES
from sparsezo_gui.recipe.tables import build, changed

WEIGHTS = [rule for rule in UPDATES if in_weights(UPDATES[rule])]  # updates whose rate is in units of weights


def rate_of(mask, update, rate, table, rule):
    made = build({"mask": {"rule": mask}, "update": {"rule": update, "learning_rate": rate}})
    return changed(made, {table: {"rule": rule}}).update.learning_rate


@pytest.mark.parametrize(
    ("mask", "update", "rate", "table", "rule", "expected"),
    [
        ("sensitive", "scalar-normalised", 5e-3, "mask", "random", 2.5e-2),
        ("random", "scalar-normalised", 2.5e-2, "mask", "sensitive", 5e-3),
        ("random", "scalar-normalised", 2.5e-2, "mask", "large-magnitude", 2.5e-2),
        ("sensitive", "sgd", 1e-6, "mask", "small-magnitude", 2.5e-5),
        ("sensitive", "scalar-normalised", 0.5, "mask", "random", 1.0),  # as high as it goes
        ("sensitive", "scalar-normalised", 5e-3, "update", "adam", 5e-3),
        ("random", "scalar-normalised", 5e-3, "update", "sign", 5e-3),
        ("sensitive", "scalar-normalised", 5e-3, "update", "sgd", 1e-6),
        ("random", "adam", 5e-3, "update", "sgd", 2.5e-5),
        ("sensitive", "sgd", 1e-5, "update", "momentum", 1e-7),
        ("sensitive", "sgd", 1e-5, "update", "scalar-normalised", 5e-3),
        ("sensitive", "sgd", 1e-5, "update", "sgd", 1e-5),
        ("sensitive", "scalar-normalised", 5e-3, "estimator", "grzo", 2e-2),  # sixteen directions
        ("sensitive", "scalar-normalised", 5e-3, "estimator", "hizoo", 5e-3),
        ("sensitive", "adam", 5e-3, "estimator", "grzo", 5e-3),  # which makes steps equally long
        ("sensitive", "sgd", 1e-6, "estimator", "grzo", 1e-6),
    ],
)
def test_a_rate_goes_with_mask_and_update(mask, update, rate, table, rule, expected):
    assert rate_of(mask, update, rate, table, rule) == pytest.approx(expected)


@pytest.mark.parametrize(("update", "rate", "expected"), [("scalar-normalised", 4e-3, 1e-3), ("sgd", 1e-6, 1e-6)])
def test_steps_of_all_weights_are_shorter_in_each_but_mezos_rate_is_the_usual_one(update, rate, expected):
    made = build({"model": {"bits": 32}, "update": {"rule": update, "learning_rate": rate}})
    assert changed(made, {"mask": {"rule": "all"}}).update.learning_rate == pytest.approx(expected)


@pytest.mark.parametrize("update", list(UPDATES))
@pytest.mark.parametrize("mask", list(MASKS))
def test_every_rate_can_be_set(mask, update):
    before = build({"mask": {"rule": "random"}, "update": {"rule": "conservative", "learning_rate": 9.9}})
    for rule in (update, "conservative"):  # in parts that need not go together
        parts = {"mask": MASKS[mask](), "update": UPDATES[rule]()}
        UPDATES[rule](learning_rate=suited(before, before.model_copy(update=parts)))
    assert times(MASKS[mask], UPDATES[update]) >= (0.125 if MASKS[mask].rate_factor < 1 and update in WEIGHTS else 1)


def test_directions_count_where_the_unit_changes_too():
    made = build({"estimator": {"rule": "grzo"}, "update": {"rule": "sgd"}})
    found = changed(made, {"update": {"rule": "scalar-normalised"}})
    assert found.update.learning_rate == pytest.approx(2e-2), "sixteen directions"
    made = build({"update": {"rule": "scalar-normalised", "learning_rate": 1e-3}})
    found = changed(made, {"estimator": {"rule": "curvzo"}})
    assert found.update.learning_rate == 1e-3, "its second direction is the first, weighted"


def test_a_rate_that_is_set_stays():
    found = with_settings(Recipe(), ["mask.rule=random", "update.learning_rate=2e-4", "estimator.rule=grzo"])
    assert found.update.learning_rate == 2e-4
    assert with_settings(Recipe(), ["mask.rule=random", "estimator.rule=grzo"]).update.learning_rate == 0.1
    assert with_settings(Recipe(), ["loop.steps=5", "mask.density=0.1"]).update.learning_rate == 5e-3
