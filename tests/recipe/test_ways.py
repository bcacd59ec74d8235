"""The ways to tune, and what a recipe becomes when [estimator] rule = 'auto' is made concrete."""

from __future__ import annotations

import pytest

from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import build, load, ways, with_settings
from sparsezo_gui.recipe.presets import PRESETS
from sparsezo_gui.recipe.rates import usual

PRESET = {preset.title: preset.settings for preset in PRESETS}
EXACT, HALF = PRESET["Exact gradients"], PRESET["Exact, last half"]
SUBSPACE = PRESET["Gradient subspace"]


def auto(**tables):
    return build({**tables, "estimator": {"rule": "auto", **tables.get("estimator", {})}})


def has(recipe, table, values):
    made = recipe.model_dump(mode="json")[table]
    return {key: made[key] for key in values} == values


@pytest.mark.parametrize(("blocks", "preset"), [("all", EXACT), ("half", HALF), ("quarter", HALF)])
def test_what_is_left_at_its_default_is_the_presets(blocks, preset):
    made = ways.resolved(auto(), blocks)
    assert has(made, "estimator", preset["estimator"]) and has(made, "update", preset["update"])
    own = {"density": 0.001} if blocks == "all" else {}  # that of the recipe stays
    assert has(made, "mask", {**preset["mask"], "blocks": blocks, **own})


def test_all_blocks_keep_the_settings_of_a_sensitive_mask():
    made = ways.resolved(auto(mask={"density": 0.02, "text": "task"}), "all")
    assert (made.mask.rule, made.mask.density, made.mask.text) == ("sensitive", 0.02, "task")


def test_another_mask_stays_and_the_rate_follows_it():
    made = ways.resolved(auto(mask={"rule": "lora", "rank": 16}), "half")
    assert (made.mask.rule, made.mask.rank, made.mask.blocks) == ("lora", 16, "half")
    assert made.update.rule == "adam"
    assert made.update.learning_rate == usual(made) and made.update.find_rate


def test_another_update_stays_with_its_rate():
    made = ways.resolved(auto(update={"rule": "sgd", "learning_rate": 0.25, "schedule": "cosine"}), "quarter")
    assert (made.update.rule, made.update.learning_rate, made.update.schedule) == ("sgd", 0.25, "cosine")
    assert made.mask.blocks == "quarter"


def test_forward_passes_keep_everything_else():
    given = auto(
        mask={"rule": "random"}, estimator={"epsilon": 3e-3, "directions": 2}, update={"learning_rate": 7e-3},
        loop={"steps": 77},
    )  # fmt: skip
    made = ways.resolved(given)
    assert made.estimator.rule == "two-sided"
    assert made == build({**given.model_dump(), "estimator": {**given.estimator.model_dump(), "rule": "two-sided"}})


@pytest.mark.parametrize("tables", [{}, {"objective": {"rule": "accuracy"}}, {"model": {"bits": 8, "compute": "int8"}}])
def test_forward_passes_go_along_a_gradient_subspace(tables):
    made = ways.resolved(auto(**tables, estimator={"epsilon": 3e-3}))
    assert has(made, "mask", SUBSPACE["mask"]) and has(made, "update", SUBSPACE["update"])
    assert (made.estimator.rule, made.estimator.epsilon) == ("two-sided", 3e-3)
    kept = ways.resolved(auto(**tables, update={"rule": "sgd", "learning_rate": 0.25}))
    assert kept.mask == made.mask and (kept.update.rule, kept.update.learning_rate) == ("sgd", 0.25)


def test_private_runs_take_no_directions_from_their_examples():
    private = {"privacy": {"rule": "gaussian"}, "data": {"answers": ["a", "b"]}}
    made = ways.resolved(auto(**private))
    assert made == build({**private, "estimator": {"rule": "two-sided"}})


@pytest.mark.parametrize(
    ("tables", "why"),
    [
        ({"objective": {"rule": "accuracy"}}, "'accuracy' has no gradient."),
        ({"model": {"bits": 8, "compute": "int8"}}, "rounds activations, which has no gradient."),
        ({"privacy": {"rule": "gaussian"}, "data": {"answers": ["a", "b"]}}, "measures something else."),
        ({"update": {"rule": "conservative"}}, "computes part of the step by backpropagation."),
        ({"mask": {"rule": "all"}, "model": {"bits": 16}}, "where every weight is tuned."),
        ({"mask": {"rule": "subspace", "refresh": 100}}, "those that wait."),
    ],
)
def test_what_has_no_gradient_says_why_in_a_sentence(tables, why):
    given = auto(**tables)
    with pytest.raises(UserError) as refused:
        ways.resolved(given, "all")
    reason = ways.reason(refused.value)
    assert reason.endswith(why) and "recipe:" not in reason and ". Set" not in reason
    assert ways.resolved(given).estimator.rule == "two-sided"


@pytest.mark.parametrize(
    ("blocks", "tried"),
    [("all", ["all", "half", "quarter"]), ("half", ["half", "quarter"]), ("quarter", ["quarter"]), ("3", ["3"])],
)
def test_no_more_blocks_are_tried_than_the_recipe_says(blocks, tried):
    assert ways.suffixes(auto(mask={"blocks": blocks})) == tried


@pytest.mark.parametrize(
    "given",
    [load("starter"), build({}), auto(), build({"mask": {"rule": "lora", "rank": 4}, "loop": {"steps": 100}}),
     build({"estimator": {"rule": "elastic"}}), ways.resolved(auto(), "half")],
    ids=["starter", "defaults", "auto", "lora", "elastic", "exact-half"],
)  # fmt: skip
def test_settings_of_the_command_line_make_the_same_recipe(given):
    for way in ways.ways(given):
        made = way.recipe(given)
        assert with_settings(given, ways.as_settings(given, way)) == made and ways.uses(made, way.settings)
        assert made.loop.steps == way.steps == ways.STEPS[way.name]
        assert made.estimator.backwards == (not way.name.startswith("forward"))
        if way.name.endswith("half"):
            assert made.mask.blocks == "half"


def test_the_first_way_is_the_recipes_own_if_it_needs_forward_passes_only():
    own = build({"mask": {"rule": "random", "density": 0.3}, "estimator": {"rule": "fzoo"}, "loop": {"steps": 2000}})
    first, *others = ways.ways(own)
    assert ways.as_settings(own, first) == () and first.recipe(own) == own and ways.uses(own, first.settings)
    for other in others:  # and it leads back from every other one
        assert not ways.uses(own, other.settings) and first.recipe(other.recipe(own)) == own
    exact = ways.resolved(auto(), "half")
    made = ways.ways(exact)[0].recipe(exact)
    assert all(has(made, table, values) for table, values in PRESETS[0].settings.items())


@pytest.mark.parametrize("blocks", ["half", "all"])
def test_a_gradient_subspace_of_ones_own_is_no_second_way(blocks):
    own = build({"mask": {"rule": "gradient-subspace", "blocks": blocks, "directions": 5}})
    used = [way.name for way in ways.ways(own) if ways.uses(own, way.settings)]
    found = {way.name: way for way in ways.ways(own)}
    assert used == ["forward-subspace"] and found["forward-subspace"].recipe(own).mask == own.mask
    assert found["forward"].recipe(own).mask.rule == "sensitive"
    assert ("last half" in found["forward-subspace"].limits) == (blocks == "half")


def test_every_way_is_named_once_and_says_what_it_cannot_do():
    found = ways.ways(build({}))
    assert sorted(way.name for way in found) == sorted(ways.STEPS)
    assert all(way.limits.endswith(".") and way.title for way in found)


def test_a_users_default_only_fills_in_what_a_recipe_does_not_say(tmp_path):
    path = tmp_path / "r.toml"
    for text, rule in (
        ("", "auto"), ("[estimator]\nepsilon = 2e-3\n", "auto"), ('[estimator]\nrule = "fzoo"\n', "fzoo"),
    ):  # fmt: skip
        path.write_text(text)
        assert load(path, automatic=True).estimator.rule == rule
        assert load(path).estimator.rule == (rule if rule == "fzoo" else "two-sided")
    assert load("starter", automatic=True).estimator.rule == "two-sided"
    path.write_text("estimator = 3\n")
    with pytest.raises(UserError, match="must be a table"):
        load(path, automatic=True)
