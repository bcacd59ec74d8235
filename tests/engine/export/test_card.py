"""The model card."""

from __future__ import annotations

import dataclasses
import tomllib

import pytest

from sparsezo_gui.engine.export.card import model_card
from sparsezo_gui.engine.models.source import inspect
from sparsezo_gui.recipe import loads
from sparsezo_gui.recipe.recipe import ModelTable, Recipe
from tests.models import tiny


@pytest.fixture
def source(tmp_path):
    return inspect(tiny("llama", tmp_path), ModelTable(id=str(tmp_path)))


METRICS = {"base": {"accuracy": 0.5, "examples": 200}, "tuned": {"accuracy": 0.875, "loss": 0.25, "examples": 200}}


def test_it_tells_what_was_done_and_how_to_do_it_again(source):
    source = dataclasses.replace(source, id="some/model", revision="abc")
    recipe = loads("[run]\nname = 'mine'\n[loop]\nsteps = 123")
    text = model_card(source, recipe, 123, 45, METRICS, "mit")
    for phrase in ("# mine", 'base_model: "some/model"', 'license: "mit"', "| accuracy | 0.5 | 0.875 |",
                   "| loss | – | 0.25 |", "On 200 examples.", "sparsezo train recipe.toml", "45 of its"):  # fmt: skip
        assert phrase in text, phrase
    assert loads(text.split("```toml\n")[1].split("```")[0]) == recipe
    assert tomllib.loads(text.split("```toml\n")[1].split("```")[0])["loop"]["steps"] == 123


def test_a_folder_on_this_computer_is_no_base_model_on_the_hub(source):
    text = model_card(source, Recipe(), 1, 1, {})
    assert "base_model" not in text and "license:" not in text and "Results" not in text
