"""The advisor: what it says of memory, of dense and of tiny masks, and when it is silent."""

from __future__ import annotations

import pytest
from standin import GB, memory

from sparsezo_gui.answers import MemoryEstimate
from sparsezo_gui.gui.advice import MAX_SENTENCES, advice
from sparsezo_gui.recipe import Recipe

SENSITIVE = Recipe()
LARGE = 7_000_000_000


def told(estimate: MemoryEstimate, recipe: Recipe = SENSITIVE, parameters: int = LARGE) -> str:
    return "\n".join(advice(estimate, recipe, parameters))


def test_nothing_is_said_without_an_estimate():
    assert advice(None, SENSITIVE, 1000) == []


def test_what_else_fits_is_told_with_what_is_gained():
    text = told(memory())
    assert "QLoRA would also fit in memory (2.00 GiB of 8.00 GiB) and usually needs far fewer steps" in text
    assert "SparseZO uses 154 MiB less memory, and you can export" in text
    assert "Full fine-tuning would also fit in memory (11.0 GiB of 24.0 GiB)" in told(memory(24 * GB))
    assert "saves no memory here, but" in told(memory(others={"qlora": GB}))


def test_the_only_method_that_fits_says_so():
    text = told(memory(available=int(1.9 * GB)))
    assert text == (
        "Only this method fits: it needs 1.85 GiB of 1.90 GiB. Of the others, QLoRA needs the least: 2.00 GiB."
    )


def test_what_does_not_fit_is_not_praised():
    assert told(memory(available=GB)) == ""
    assert "this method does not" in told(memory(scale=8))
    assert told(memory(others={})) == ""


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
    assert len(advice(memory(), recipe, 1000)) == 1


def test_there_are_at_most_three():
    recipe = Recipe(mask={"rule": "random", "density": 1e-4}, update={"rule": "sgd"})
    assert len(advice(memory(), recipe, 1_000_000)) == MAX_SENTENCES
