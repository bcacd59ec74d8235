"""The ways to tune side by side: their figures, the recommendation, and what [estimator] rule = 'auto' chooses."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from sparsezo_gui.answers import TIGHT, MemoryEstimate, Pace, Part, WayFigures
from sparsezo_gui.engine import device as devices
from sparsezo_gui.engine import plan as plans
from sparsezo_gui.engine import planning, training
from sparsezo_gui.engine.bench import shapes
from sparsezo_gui.engine.hub.library import spec_of
from sparsezo_gui.engine.masks.report import find_mask
from sparsezo_gui.engine.objective import count_tokens
from sparsezo_gui.engine.plan import TIMED, plan, recommend
from sparsezo_gui.engine.rate_search import find_rate
from sparsezo_gui.engine.runs.branch import branch
from sparsezo_gui.engine.runs.folder import open_run
from sparsezo_gui.engine.session.loading import load_data, load_model
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import build, ways
from sparsezo_gui.recipe import events as e
from tests.engine.conftest import finish, of

GIB = 2**30
AUTO = {"rule": "auto"}


def memory(need, available=100, measured=False):
    return MemoryEstimate((Part("All", need, "."),), available, 200, 1, 0, {}, measured)


def way(name, need=10, seconds=None, refused="", **more):
    pace = None if seconds is None else Pace(seconds)
    found = None if refused else memory(need, **more)
    return WayFigures(name, name.capitalize(), "It has limits.", ways.STEPS[name], {}, (), refused, found, pace)


# What is recommended


def test_exact_gradients_are_recommended_where_they_fit_and_the_fastest_is_named():
    found = [way("forward", 5, 0.1), way("exact", 85, 0.3), way("exact-half", 60, 0.125)]
    made = recommend(found, build({}))
    assert made.recommended == "exact" and made.best is found[1]
    assert made.why == (
        "Exact: usually 100 steps instead of 2,000, and it fits (85 B of 100 B free). Faster: Exact-half, 12 s instead "
        "of 30 s."
    )


def test_without_times_nothing_is_called_fast():
    made = recommend([way("forward", 5), way("exact", 20), way("exact-half", 10)], build({}))
    assert made.why == "Exact: usually 100 steps instead of 2,000, and it fits (20 B of 100 B free)."


@pytest.mark.parametrize(
    ("needs", "chosen"),
    [
        ({"exact": 86, "lora": 87, "exact-half": 85, "forward": 10}, "exact-half"),
        ({"exact": 86, "lora": 85, "exact-half": 20, "forward": 10}, "lora"),
        ({"exact": 86, "lora": 87, "exact-half": 86, "forward": 85}, "forward"),
        ({"exact": 99, "lora": 99, "exact-half": 86, "forward": 88}, "exact-half"),  # tight: the least of them
        ({"exact": 101, "lora": 101, "exact-half": 101, "forward": 100}, "forward"),
        ({"exact": 101, "lora": 101, "exact-half": 101, "forward": 101}, ""),
    ],
)
def test_what_fits_in_85_percent_comes_first_and_what_cannot_be_started_never(needs, chosen):
    made = recommend([way(name, need) for name, need in needs.items()], build({}))
    assert made.recommended == chosen
    assert ("tight" in made.why) == (chosen != "" and needs[chosen] > 85)
    assert (made.best is None) == (chosen == "")


def test_what_the_recipe_refuses_is_not_recommended_and_says_why():
    made = recommend([way("forward"), way("exact", refused="There is no gradient."), way("lora", 101)], build({}))
    assert made.recommended == "forward"
    assert made.why == "Forward: exact gradients are not possible here. There is no gradient."
    rows = made.as_json()
    assert [row["problem"] for row in rows[:3]] == ["", "There is no gradient.", "It needs 101 B, and 100 B are free."]
    assert rows[1]["memory_bytes"] is None and [row["recommended"] for row in rows[:3]] == [True, False, False]
    assert rows[3]["event"] == "recommendation" and rows[3]["way"] == "forward"


def test_the_time_of_a_run_is_that_of_its_parts():
    found = replace(way("exact"), pace=Pace(0.25, search=3, prefix=4, rates=5))
    assert found.seconds == 3 + 4 + 5 + 100 * 0.25 and way("exact").seconds is None


# Measured


@pytest.fixture
def clock(monkeypatch):
    """Every look at the clock is a second later."""
    ticks = itertools.count()
    monkeypatch.setattr(plans.time, "perf_counter", lambda: float(next(ticks)))


def test_every_way_is_measured_with_the_model_loaded_once(make, clock, monkeypatch):
    mask = {"rule": "weight-activation", "sequences": 4, "tokens": 32}
    chosen = make(mask=mask, loop={"steps": 2000}, update={"find_rate": False})
    loads, work = [], plans.load_model
    monkeypatch.setattr(plans, "load_model", lambda recipe: loads.append(recipe) or work(recipe))
    found = finish(plan(chosen))
    assert len(loads) == 1 and found.recommended == "exact"
    figures = {each.name: each for each in found.ways}
    assert figures.keys() == ways.STEPS.keys()
    assert all(each.memory.measured and not each.problem for each in found.ways)
    assert len({each.memory.available for each in found.ways}) == 1, "all are compared with the same"
    # Choosing a batch takes one tick, and the step itself one.
    seconds = {each.name: each.pace.seconds for each in found.ways}
    assert seconds.pop("forward-subspace") == 6.0, "512 examples in batches of 4 every 100 steps: four passes a step"
    assert set(seconds.values()) == {2.0}
    model = finish(load_model(chosen))
    train = finish(load_data(chosen, model)).train.encoded
    tokens = list(map(count_tokens, train))
    prefix = sum(tokens) / sum(tokens[: plans.PREFIXES])  # all examples are used, and some took a tick
    assert {name for name, each in figures.items() if each.pace.prefix} == {"forward-subspace", "exact-half"}
    assert figures["exact-half"].pace.prefix == pytest.approx(prefix)
    # A step of the first way took two ticks for two forward passes of a batch; its mask one pass of its text.
    text = chosen.mask.passages(model, plans.Search(0, chosen.data))
    read = sum(len(each.tokens) for part in text for each in part)
    batches = [sum(tokens) * 4 // 24] * TIMED
    assert figures["forward"].pace.search == pytest.approx(read / batches[0], rel=0.1)
    # With gradients (the default mask of the way with exact ones), it takes four passes of another text.
    assert figures["exact"].pace.search > 0 and figures["lora"].pace.search == 0
    # Presets search for a rate, with a tenth of a run's 100 steps.
    assert (figures["forward"].pace.rates, figures["exact"].pace.rates) == (0, 10 * 2.0)


def test_what_is_measured_is_what_the_memory_measurement_measures(make):
    chosen = make()
    alone = finish(planning.measure(chosen))
    found = {each.name: each for each in finish(plan(chosen)).ways}
    assert found["forward"].memory.total == pytest.approx(alone.total, rel=0.1)
    assert [part.name for part in found["forward"].memory.parts] == [part.name for part in alone.parts]


def test_progress_names_the_way_and_closing_cancels(make, tmp_path):
    stages = []
    work = plan(make())
    for event in work:
        if isinstance(event, e.Progress) and event.stage.startswith("Measuring"):
            stages.append(event.stage)
        if len(set(stages)) == 3:
            break
    work.close()
    assert list(work) == [], "nothing goes on behind"
    assert stages[0] == "Measuring: Forward passes only"


def test_what_does_not_fit_by_formula_is_not_loaded(make, monkeypatch):
    monkeypatch.setattr(devices, "memory_free", lambda device: 1)
    monkeypatch.setattr(devices, "memory_used", lambda device: 0)
    monkeypatch.setattr(plans, "load_model", None)
    found = finish(plan(make()))
    assert found.recommended == "" and all(each.problem and not each.memory.measured for each in found.ways)
    assert found.why == "None of them can be started here. Choose a smaller model."


@pytest.mark.parametrize("how", ["asked", "elsewhere"])
def test_by_formula_nothing_is_loaded_and_the_numbers_are_those_of_estimate(make, monkeypatch, how):
    chosen = make()
    monkeypatch.setattr(plans, "load_model", None)
    if how == "elsewhere":  # the model is on the Hub only
        monkeypatch.setattr(plans.known, "folder", lambda table: None)
    found = finish(plan(chosen, False if how == "asked" else None))
    for each, own in zip(found.ways, ways.ways(chosen), strict=True):
        expected = planning.estimate(own.recipe(chosen))
        assert each.pace is None and not each.memory.measured
        assert [part.name for part in each.memory.parts] == [part.name for part in expected.parts]
        assert each.memory.part("Activations") == expected.part("Activations")
    assert found.recommended == "exact" and all("Times" not in note for note in found.notes)


@pytest.mark.parametrize(
    ("tables", "why"),
    [
        ({"objective": {"rule": "accuracy"}}, "has no gradient"),
        ({"privacy": {"rule": "gaussian"}, "data": {"answers": ["yes", "no"]}}, "measures something else"),
    ],
)
def test_what_needs_forward_passes_gets_them(make, tables, why):
    chosen = make(**tables)
    found = {each.name: each for each in finish(plan(chosen)).ways}
    made = recommend(list(found.values()), chosen)
    assert made.recommended == ("forward" if chosen.privacy.private else "forward-subspace") and why in made.why
    assert {name for name, each in found.items() if why in each.problem} == {"exact", "exact-half", "lora"}
    assert found["forward"].pace
    assert bool(found["forward-subspace"].problem) == chosen.privacy.private
    assert any("[privacy] does not cover" in note for note in made.notes) == chosen.privacy.private


def test_weights_that_are_tuned_in_place_are_measured_last_and_as_ever(make, monkeypatch):
    chosen = make(model={"bits": 32}, mask={"rule": "all"})
    order, work = [], plans.stand_in
    monkeypatch.setattr(plans, "stand_in", lambda recipe, model: order.append(recipe.mask.rule) or work(recipe, model))
    found = {each.name: each for each in finish(plan(chosen)).ways}
    assert order[-1:] == ["all"] and "all" not in order[:-1] and not found["forward"].problem


def test_two_ways_that_come_to_the_same_are_one(make):
    found = finish(plan(make(mask={"blocks": "half"}, loop={"steps": 2000}), False))
    assert [each.name for each in found.ways] == ["forward", "exact", "forward-subspace", "exact-half", "lora"]


# [estimator] rule = "auto"


@pytest.fixture
def need(monkeypatch):
    """``need(all, half, quarter, forward)``: the formula gives these bytes of 100 that are free."""

    def given(*needs):
        by_way = dict(zip(("all", "half", "quarter", "forward"), needs, strict=True))

        def formula(recipe, spec, data):
            return memory(by_way[recipe.mask.blocks if recipe.estimator.backwards else "forward"])

        monkeypatch.setattr(planning, "formula", formula)

    return given


FREE = "of the 100 B that are free"
LESS = "exact gradients in the last"


@pytest.mark.parametrize(
    ("needs", "blocks", "said"),
    [
        ((85, 1, 1, 1), "all", f"exact gradients in all blocks, which need 85 B {FREE}."),
        ((86, 85, 1, 1), "half", f"{LESS} half of the blocks, which need 85 B {FREE}; exact gradients in more blocks "
         "do not fit in 85 % of that."),
        ((90, 86, 85, 1), "quarter", f"{LESS} quarter of the blocks, which need 85 B {FREE}; exact gradients in more "
         "blocks do not fit in 85 % of that."),
        ((90, 88, 86, 85), "", f"forward passes in a gradient subspace, which need 85 B {FREE}; exact gradients do not "
         "fit in 85 % of that."),
        ((99, 98, 97, 96), "", f"forward passes in a gradient subspace, which need the least: 96 B {FREE}."),
        ((99, 98, 97, 98), "quarter", f"{LESS} quarter of the blocks, which need the least: 97 B {FREE}."),
    ],
)  # fmt: skip
def test_the_largest_part_that_fits_is_chosen(need, needs, blocks, said):
    need(*needs)
    chosen = build({"estimator": AUTO})
    made, told = planning.choose(chosen, None, None)
    assert told == f"Chosen automatically: {said}"
    assert made == ways.resolved(chosen, blocks)


def test_no_more_than_the_recipes_own_blocks(need):
    need(1, 86, 80, 1)
    made, _ = planning.choose(build({"estimator": AUTO, "mask": {"blocks": "half"}}), None, None)
    assert made.mask.blocks == "quarter"


def test_where_forward_passes_are_needed_memory_does_not_matter(need):
    need(1, 1, 1, 1000)
    chosen = build({"estimator": AUTO, "objective": {"rule": "accuracy"}})
    made, told = planning.choose(chosen, None, None)
    assert made.estimator.rule == "two-sided"
    assert told.startswith("Chosen automatically: forward passes in a gradient subspace. [est")
    assert told.endswith("has no gradient.")


def test_on_a_real_shape_less_memory_means_fewer_blocks(tmp_path, monkeypatch):
    """Llama 3 8B on 2 048 tokens, by the real formula: each part of the blocks is chosen somewhere."""
    folder = finish(shapes.make("llama-3-8b", tmp_path / "shape", weights=False))
    chosen = build({"model": {"id": str(folder), "device": "cpu"}, "data": {"max_tokens": 2048}, "estimator": AUTO})
    spec, parts = spec_of(chosen.model), []
    monkeypatch.setattr(devices, "memory_used", lambda device: 0)
    monkeypatch.setattr(devices, "program_bytes", lambda: 400 * 2**20)
    for free in (16, 10.4, 9.9, 4):
        monkeypatch.setattr(devices, "memory_free", lambda device, free=free: int(free * GIB))
        made, _ = planning.choose(chosen, spec, None)
        found = planning.formula(made, spec, None)
        assert (found.most <= TIGHT * free * GIB) == (free > 4)
        parts.append(made.mask.blocks)
    assert parts == ["all", "half", "quarter", "quarter"]


def test_a_run_says_what_was_chosen_and_has_concrete_rules(make, tmp_path):
    chosen = make(estimator=AUTO)
    events = list(training.train(chosen, folder=tmp_path / "run"))
    told = [each.text for each in of(e.Notice, events) if each.text.startswith("Chosen automatically")]
    run = open_run(tmp_path / "run")
    assert len(told) == 1 and run.facts.chosen == told[0]
    assert run.recipe.estimator.rule == "first-order" and run.recipe.update.rule == "adam"
    assert run.recipe.mask == chosen.mask, "it has its own rule"
    assert (
        "auto" not in (tmp_path / "run" / "recipe.toml").read_text().replace('= "auto"\ntrust', "").split("[mask]")[1]
    )
    same = run.recipe.model_copy(update={"run": chosen.run})
    assert list(training.train(same, folder=tmp_path / "same"))[-1].hash == events[-1].hash
    assert open_run(tmp_path / "same").facts.chosen == ""
    with pytest.raises(UserError, match="In a branch, set one of the others"):
        branch(run, 3, ["estimator.rule=auto"])


def test_a_run_without_memory_for_exact_gradients_uses_forward_passes(make, tmp_path, need):
    chosen = make(estimator={**AUTO, "epsilon": 2e-3})
    need(99, 98, 97, 20)
    list(training.train(chosen, folder=tmp_path / "run"))
    made = open_run(tmp_path / "run").recipe
    assert (made.estimator.rule, made.estimator.epsilon, made.update.rule) == ("two-sided", 2e-3, "scalar-normalised")


def test_what_comes_before_a_run_uses_what_it_would_choose(make):
    chosen = make(estimator=AUTO)
    made = ways.resolved(chosen, "all")
    estimated, expected = planning.estimate(chosen), planning.estimate(made)
    assert estimated.chosen.startswith("Chosen automatically: exact gradients in all blocks") and not expected.chosen
    assert estimated.part("Backpropagation") == expected.part("Backpropagation") > 0
    assert finish(planning.measure(chosen)).chosen.startswith("Chosen automatically: exact")
    assert finish(find_rate(chosen, 2)).rungs[0].rate == finish(find_rate(made, 2)).rungs[0].rate
    assert finish(find_mask(chosen)).tuned == finish(find_mask(made)).tuned


def test_what_is_kept_of_the_first_blocks_leaves_the_rest_its_memory(make, monkeypatch):
    """States below the tuned blocks are a convenience: they never make a run tight."""
    chosen = make(mask={"blocks": "half"}, data={"max_tokens": 512})
    roomy = planning.estimate(chosen)
    kept = roomy.part("Kept activations")
    bare = roomy.most - kept
    assert kept > 0
    monkeypatch.setattr(devices, "memory_used", lambda device: 0)
    for spare in (kept // 2, 0):
        monkeypatch.setattr(devices, "memory_free", lambda device, spare=spare: int((bare + spare) / TIGHT) + 1)
        found = planning.estimate(chosen)
        assert found.part("Kept activations") == pytest.approx(spare, abs=2) and found.verdict == "fits"
