"""What a run measures of its base model: little before the first step, the rest soon, and after any stop."""

from __future__ import annotations

from contextlib import closing
from queue import SimpleQueue

import pytest
import torch

from sparsezo_gui import cli
from sparsezo_gui.engine import guard as guards
from sparsezo_gui.engine import training
from sparsezo_gui.engine.evaluate import evaluate
from sparsezo_gui.engine.loop import evaluation
from sparsezo_gui.engine.objective import measure
from sparsezo_gui.engine.runs.folder import open_run
from sparsezo_gui.engine.session.loading import load_data, load_model
from sparsezo_gui.engine.zo.batches import shuffled_batch
from sparsezo_gui.recipe import events as e
from tests.engine.conftest import finish, of

PART, BATCHES = 5, 3


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Five of the eight validation examples at first, and a guard that needs three batches."""
    monkeypatch.setattr(evaluation, "FIRST", PART)
    monkeypatch.setattr(guards, "BATCHES", BATCHES)


@pytest.fixture
def recipe(make):
    return make(model={"bits": 32})  # where the base model is the model itself


def measured(events):
    """What was evaluated, in order: step, split and whether in part."""
    return [(each.step, each.split, each.partial) for each in of(e.Evaluation, events)]


WHOLE = [(0, "validation", True), (0, "validation", False), (4, "validation", False), (6, "validation", False),
         (0, "test", False), (6, "test", False)]  # fmt: skip


def test_before_the_first_step_only_a_part_is_measured_and_the_rest_where_it_is_compared(recipe, tmp_path):
    told = list(training.train(recipe, folder=tmp_path / "run"))
    assert measured(told) == WHOLE
    first, fourth = (next(told.index(each) for each in of(e.Step, told) if each.step == step) for step in (1, 4))
    assert measured(told[:first]) == WHOLE[:1] and measured(told[:fourth]) == WHOLE[:1]
    assert not of(e.Base, told[:first])
    # The base model's numbers, from the model before it is tuned.
    model = finish(load_model(recipe))
    data = finish(load_data(recipe, model))
    for event in of(e.Evaluation, told):
        if event.step == 0:
            examples = getattr(data, event.split).encoded[: PART if event.partial else None]
            plain = finish(evaluate(model, examples, event.split)).metrics
            assert event.metrics == plain and plain["examples"] == (PART if event.partial else 8)
    batches = [shuffled_batch(recipe.loop, number, data.train.encoded) for number in range(1, BATCHES + 1)]
    with torch.no_grad():
        losses = [measure(model, batch) for batch in batches]
    expected = [(found.sums[0].sum() / found.weights.sum()).item() for found in losses]
    (base,) = of(e.Base, told)
    assert base.losses == pytest.approx(expected, rel=1e-6)
    assert told.index(base) == told.index(of(e.Step, told)[BATCHES - 1]) + 1


def test_the_guard_measures_one_batch_after_each_step_and_changes_nothing(recipe, make, tmp_path, monkeypatch):
    numbers = []
    monkeypatch.setattr(
        "sparsezo_gui.engine.loop.rescue.shuffled_batch",
        lambda loop, number, examples: (numbers.append(number), shuffled_batch(loop, number, examples))[1],
    )
    seen = []
    for event in training.train(recipe, folder=tmp_path / "run"):
        if isinstance(event, e.Step):
            seen.append([*numbers])
    assert seen == [[], [1], [1, 2], [1, 2, 3], [1, 2, 3], [1, 2, 3]]
    without = list(training.train(make(model={"bits": 32}, loop={"guard": False}), folder=tmp_path / "without"))
    assert event.hash == without[-1].hash and not of(e.Base, without)


PHASES = {
    "loaded": lambda event: isinstance(event, e.Started),
    "in the first evaluation": lambda event: isinstance(event, e.Progress) and event.stage.startswith("Evaluating"),
    "first evaluation": lambda event: isinstance(event, e.Evaluation) and event.partial,
    "some batches of the base model": lambda event: isinstance(event, e.Step) and event.step == 2,
    "all batches of the base model": lambda event: isinstance(event, e.Base),
    "base model evaluated": lambda event: isinstance(event, e.Evaluation) and not event.step and not event.partial,
    "step evaluated": lambda event: isinstance(event, e.Evaluation) and event.step == 4,
    "base model tested": lambda event: isinstance(event, e.Evaluation) and (event.step, event.split) == (0, "test"),
}


@pytest.mark.parametrize("by", ["kill", "stop"])
@pytest.mark.parametrize("phase", PHASES)
def test_an_interruption_in_any_phase_loses_and_repeats_nothing(recipe, tmp_path, phase, by):
    commands = SimpleQueue()
    with closing(training.train(recipe, commands, folder=tmp_path / "stopped")) as events:
        for event in events:
            if PHASES[phase](event):
                if by == "kill":
                    break
                commands.put(e.Stop())
    assert cli.main(["resume", str(tmp_path / "stopped")]) == 0
    whole = list(training.train(recipe, folder=tmp_path / "whole"))
    recorded = open_run(tmp_path / "stopped").events()
    assert of(e.Evaluation, recorded) == of(e.Evaluation, whole)
    assert of(e.Base, recorded) == of(e.Base, whole)
    assert of(e.Finished, recorded)[-1].hash == whole[-1].hash


def test_whoever_asks_for_an_evaluation_gets_the_base_model_to_compare_with(recipe, tmp_path):
    commands = SimpleQueue()
    told = []
    for event in training.train(recipe, commands, folder=tmp_path / "run"):
        told.append(event)
        if isinstance(event, e.Step) and event.step == 2:
            commands.put(e.EvaluateNow("test"))
            commands.put(e.EvaluateNow("test", 1))
            commands.put(e.Stop())
    assert measured(told)[1:] == [(0, "test", False), (2, "test", False), (1, "test", False)]


def changed_answers(events):
    """Of each evaluation after the first step: its step, its split and the answers that changed."""
    return [(each.step, each.split, each.changed) for each in of(e.Examples, events) if each.step]


def test_a_resumed_run_says_which_answers_changed_like_one_that_was_never_stopped(recipe, tmp_path):
    fast = recipe.model_copy(update={"update": recipe.update.model_copy(update={"learning_rate": 0.3})})
    whole = changed_answers(training.train(fast, folder=tmp_path / "whole"))
    assert any(changed for step, _, changed in whole if step == 6), "else there is nothing to say"
    run = training.train(fast, folder=tmp_path / "run")
    assert any(isinstance(event, e.Evaluation) and event.step == 4 for event in run)
    run.close()
    assert changed_answers(training.resume(tmp_path / "run")) == whole[1:]


@pytest.mark.parametrize("damage", ['{"validation": "no list"}', '{"validation": ["too few"]}', "{"])
def test_answers_that_cannot_be_used_are_not_compared_with(recipe, tmp_path, damage):
    run = training.train(recipe, folder=tmp_path / "run")
    assert any(isinstance(event, e.Evaluation) and event.step == 4 for event in run)
    run.close()
    (tmp_path / "run" / "answers.json").write_text(damage, encoding="utf-8")
    assert changed_answers(training.resume(tmp_path / "run"))[0] == (6, "validation", [])
