"""The advisor: what it says of memory, of dense and of tiny masks, and when it is silent."""

from __future__ import annotations

from dataclasses import replace

import pytest
from standin import GB, memory, plan

from sparsezo_gui.answers import MemoryEstimate, Plan
from sparsezo_gui.gui.advice import MAX_SENTENCES, advice
from sparsezo_gui.recipe import Recipe, changed

SENSITIVE = Recipe()
LARGE = 7_000_000_000


def told(
    estimate: MemoryEstimate, recipe: Recipe = SENSITIVE, parameters: int = LARGE, plan: Plan | None = None
) -> str:
    return "\n".join(advice(estimate, recipe, parameters, plan))


def test_nothing_is_said_without_an_estimate():
    assert advice(None, SENSITIVE, 1000) == []


def test_what_is_recommended_can_be_started_here():
    found = plan(SENSITIVE, memory())
    assert told(memory(), plan=found) == "", "the ways' own card says it"
    assert told(memory(scale=8), plan=found) == f"This does not fit in memory. Recommended: {found.why}"
    assert told(memory()) == "", "nothing is known yet"
    for name in ("QLoRA", "ull fine-tuning"):  # which this program cannot do
        assert name not in told(memory(24 * GB), plan=found)


def test_what_is_chosen_already_is_not_recommended():
    found = plan(SENSITIVE, memory())
    chosen = changed(SENSITIVE, found.best.tables)
    assert told(memory(), chosen, plan=found) == ""
    slower = changed(chosen, {"update": {"learning_rate": 1e-4}, "loop": {"steps": 7}})
    assert told(memory(), slower, plan=found) == "", "with another rate it is still this way"


def test_auto_says_what_it_chose():
    auto = Recipe(estimator={"rule": "auto"})
    estimate = replace(memory(), chosen="Chosen automatically: exact gradients.")
    assert told(estimate, auto, plan=plan(auto, memory())) == "Chosen automatically: exact gradients."


def test_dense_tuning_suits_small_models():
    text = told(memory(), Recipe(mask={"rule": "all"}, model={"bits": 16}))
    assert "Tuning every weight only suits small models: all are stored in 16 bits" in text
    text = told(memory(), Recipe(mask={"rule": "random", "density": 1.0}))
    assert "Tuning 100 % of the weights only suits small models: tuned values are stored in 32 bits and take" in text
    assert "in 4 bits does not change that" in text
    text = told(memory(), Recipe(mask={"rule": "small-magnitude", "density": 0.5}, model={"bits": 16}))
    assert "Tuning 50 % of the weights" in text and "bits does not change" not in text


def test_few_tuned_values_are_told_where_the_model_is_known():
    few = Recipe(mask={"density": 1e-4})
    assert "At most 340 weights are tuned" in told(memory(), few, parameters=3_400_000)
    assert "At most" not in told(memory(), parameters=3_400_000)
    assert "At most" not in told(memory(), few, parameters=0)
    assert "At most" not in told(memory(), Recipe(mask={"density": 0.01}), 3_400_000)


@pytest.mark.parametrize("rule", ["random", "large-magnitude", "small-magnitude"])
def test_blind_masks_need_another_rate_with_sgd(rule):
    sgd = {"rule": "sgd"}
    assert "25 to 1\u2009000 times" in told(memory(), Recipe(mask={"rule": rule}, update=sgd))
    text = told(memory(), Recipe(mask={"rule": rule}))
    assert "only the sensitive one stays accurate" in text and "times" not in text
    assert "only the sensitive" not in told(memory(), Recipe(mask={"rule": rule, "density": 0.1}, update=sgd))
    assert "only the sensitive" not in told(memory(), Recipe(update=sgd))


def test_a_saved_mask_is_not_guessed_about(tmp_path):
    recipe = Recipe(mask={"rule": "saved", "file": str(tmp_path / "none")})
    assert advice(memory(), recipe, 1000) == []


def test_there_are_at_most_three():
    recipe = Recipe(mask={"rule": "random", "density": 1e-4}, update={"rule": "sgd"})
    assert len(advice(memory(scale=8), recipe, 1_000_000, plan(recipe, memory()))) == MAX_SENTENCES
