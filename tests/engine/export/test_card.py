"""The model card."""

from __future__ import annotations

import dataclasses
import tomllib

import pytest
from huggingface_hub import ModelCard

from sparsezo_gui.engine.export.card import model_card
from sparsezo_gui.engine.pretrained.source import inspect
from sparsezo_gui.recipe import loads
from sparsezo_gui.recipe.events import GeneralText
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
    for phrase in ("# mine", "base_model: some/model", "license: mit", "| accuracy | 0.5 | 0.875 |",
                   "| loss | – | 0.25 |", "On 200 examples.", "sparsezo train recipe.toml", "45 of its"):  # fmt: skip
        assert phrase in text, phrase
    assert loads(text.split("```toml\n")[1].split("```")[0]) == recipe
    assert tomllib.loads(text.split("```toml\n")[1].split("```")[0])["loop"]["steps"] == 123


@pytest.mark.parametrize(
    ("tables", "told"),
    [
        ("[mask]\nrule = 'random'", "zeroth-order optimisation (forward passes only)."),
        ("[mask]\nrule = 'sensitive'", "(forward passes only; before them, the mask was found by gradients)."),
        (
            "[mask]\nrule = 'gradient-subspace'",
            "; before them and every 100 steps, gradients of training examples were computed).",
        ),
        (
            "[mask]\nrule = 'gradient-subspace'\nrefresh = 0",
            "; before them, gradients of training examples",
        ),
        ("[estimator]\nrule = 'first-order'", "steps of Exact gradients"),
    ],
)
def test_it_says_where_gradients_were_computed(source, tables, told):
    text = model_card(source, loads(tables), 5, 1, METRICS)
    assert told in text and ("forward passes only" in text) == ("first-order" not in tables)


def test_what_tuning_cost_on_general_text_is_told(source):
    text = model_card(source, Recipe(), 2, 1, METRICS, general=GeneralText(2, 1461, 52.5, 63.0))
    assert "Perplexity on 1,461 tokens of general text: 52.5 before, 63 after (+20.0 %).\n" in text
    assert "general text" not in model_card(source, Recipe(), 2, 1, METRICS)


def test_a_folder_on_this_computer_is_no_base_model_on_the_hub(source):
    text = model_card(source, Recipe(), 1, 1, {})
    assert "base_model" not in text and "license:" not in text and "Results" not in text


def test_what_a_stranger_wrote_is_no_mark_up_in_it(source):
    """Neither a picture that is fetched when the card is read, nor a block that ends before its end."""
    name = "![a](http://x/y)<b>\n# b"
    recipe = Recipe(run={"name": name}, data={"source": "`` ![a](b)", "template": "```\n# c\n````"})
    text = model_card(dataclasses.replace(source, id="a `b` c"), recipe, 1, 1, {}, "<i>mit_2")
    assert r"# \!\[a\]\(http://x/y\)\<b\>\\n\# b" in text
    assert "- Source: ``` `` ![a](b) ```," in text and "- Model: `` a `b` c ``" in text
    assert r"- Licence: \<i\>mit\_2." in text
    block = text.split("`````toml\n")[1].split("\n`````")
    assert loads(block[0]) == recipe and len(block) == 2


def test_the_hub_reads_base_licence_data_and_metrics(source):
    """What the official client reads from the card."""
    source = dataclasses.replace(source, id="some/model", revision="abc")
    recipe = Recipe(run={"name": 'mine: "1"'}, data={"source": "nyu-mll/glue:sst2", "task": "sst2"})
    data = ModelCard(model_card(source, recipe, 1, 1, METRICS, "mit")).data
    assert (data.base_model, data.license, data.datasets, data.pipeline_tag) == (
        "some/model", "mit", ["nyu-mll/glue"], "text-generation",
    )  # fmt: skip
    [result] = data.eval_results
    assert (data.model_name, result.dataset_type, result.dataset_config) == ('mine: "1"', "nyu-mll/glue", "sst2")
    assert (result.metric_type, result.metric_value, result.task_type) == ("accuracy", 0.875, "text-generation")


@pytest.mark.parametrize(
    ("licence", "told", "name"),
    [("gemma", "gemma", None), ("My Own: Licence\nx", "other", "my-own-licence-x"), ("", None, None)],
)
def test_a_licence_that_the_hub_does_not_know_has_a_name_of_its_own(source, licence, told, name):
    data = ModelCard(model_card(source, Recipe(data={"source": "reviews.csv"}), 1, 1, METRICS, licence)).data
    assert (data.license, data.license_name, data.datasets, data.base_model) == (told, name, None, None)
