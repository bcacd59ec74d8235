"""Objectives against their formulas, against evaluations, and against back-propagation on a plain model."""

from __future__ import annotations

import json
import math

import pytest
import torch

from sparsezo_gui.engine import training
from sparsezo_gui.engine.data.encode import encode
from sparsezo_gui.engine.evaluate import evaluate
from sparsezo_gui.engine.masks.random import Random
from sparsezo_gui.engine.masks.rule import Search
from sparsezo_gui.engine.objective import measure
from sparsezo_gui.engine.objectives.counted import F1, ExactMatch
from sparsezo_gui.engine.rate_search import find_rate
from sparsezo_gui.engine.runs.folder import open_run
from sparsezo_gui.engine.session import Session
from sparsezo_gui.engine.session.opening import open_session
from sparsezo_gui.engine.spaces.values import tuned_values
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import Recipe, with_settings
from sparsezo_gui.recipe import events as e
from tests.engine import plain as reference
from tests.engine.conftest import finish, of
from tests.engine.data.test_tasks import made
from tests.engine.test_correctness import example

FAR = torch.tensor([[0.0], [0.3], [-0.3]])  # so far that choices and answers change


def session_of(model, *settings, density=0.05):
    tuned = tuned_values(model, finish(Random(density=density).find(model, Search(0, Recipe().data))))
    session = Session(with_settings(Recipe(), settings), model, tuned)
    session.begin()
    return session


@pytest.fixture(scope="module")
def choices():
    return [example([5, 9, 7 + i], [2, 2, 2], [8, 11, 30 + i], [0, 1, 2], 3, i % 3) for i in range(24)]


@pytest.fixture(scope="module")
def completions(frozen_tiny):
    """The references are what the model writes, or the beginning of it, so that scores are neither all 0 nor all 1."""
    from sparsezo_gui.engine.generate import answers

    tokenizer = frozen_tiny("llama", 32).tokenizer
    rows = [{"prompt": f"the {word} sat on", "answer": "x y"} for word in ("cat", "dog", "mat", "log", "film", "sun")]
    first = [encode(one, tokenizer, 64) for one in made("pairs", *rows)]
    found = dict(answers(frozen_tiny("llama", 32), first))
    for place, row in enumerate(rows):
        row["answer"] = (found[place][0].strip() or "x") if place % 2 else f"{found[place][0]} and more"
    return [encode(one, tokenizer, 64) for one in made("pairs", *rows)]


@pytest.mark.parametrize("mix", [0.0, 0.3, 1.0])
def test_accuracy_counts_wrong_choices(frozen_tiny, choices, mix):
    session = session_of(frozen_tiny("llama", 32), "objective.rule=accuracy", f"objective.mix={mix}")
    probe = session.probe(choices, session.directions())
    found = probe.examples(FAR)
    with session.tuned.probed(probe.directions, FAR):
        plain = measure(session.model, choices, 3)
    for side in range(3):
        for place, one in enumerate(choices):
            wrong = float(plain.scores[place][side].argmax() != one.label)
            expected = (1 - mix) * wrong + mix * plain.sums[side, place].item()
            assert found[side, place].item() == pytest.approx(expected)
    assert found.mean(dim=1).tolist() == pytest.approx(probe.losses(FAR).tolist())


def test_the_pure_count_is_what_an_evaluation_tells(frozen_tiny, choices):
    session = session_of(frozen_tiny("llama", 32), "objective.rule=accuracy", "objective.mix=0")
    probe = session.probe(choices, session.directions())
    told = []
    for side in FAR:
        with session.tuned.probed(probe.directions, side[None]):
            told.append(finish(evaluate(session.model, choices, "test")).metrics["accuracy"])
    assert (1 - probe.losses(FAR)).tolist() == pytest.approx(told)
    assert len(set(told)) > 1


@pytest.mark.parametrize(("kind", "metric"), [(F1, "f1"), (ExactMatch, "exact_match")])
@pytest.mark.parametrize("bits", [4, 32])
def test_written_answers_score_as_in_an_evaluation(frozen_tiny, completions, kind, metric, bits):
    settings = ("data.task=pairs", f"objective.rule={kind.model_fields['rule'].default}", "objective.mix=0")
    session = session_of(frozen_tiny("llama", bits), *settings)
    probe = session.probe(completions, session.directions())
    told = []
    for side in FAR:
        with session.tuned.probed(probe.directions, side[None]):
            told.append(finish(evaluate(session.model, completions, "test")).metrics[metric])
    assert (1 - probe.losses(FAR)).tolist() == pytest.approx(told)
    if bits == 32:
        assert 0 < told[0] < 1
        mixed = kind(mix=0.25)
        with session.tuned.applied():
            likely = measure(session.model, completions)
            expected = 0.75 * (1 - told[0]) + 0.25 * (likely.sums / likely.weights).mean().item()
            assert mixed.measure(session.model, completions).loss.item() == pytest.approx(expected)


PAIRS = [
    {"prompt": "the cat sat on", "chosen": "the mat and the log", "rejected": "a dog"},
    {"prompt": "a film that is", "chosen": "great", "rejected": "bad or dull today"},
    {"prompt": "question: is it warm?", "chosen": "yes", "rejected": "no, not today"},
    {"prompt": "and the dog", "chosen": "sat on the log", "rejected": "sat on the mat"},
]


def pairs(model, count=4):
    return [encode(one, model.tokenizer, 64) for one in made("preference", *PAIRS[:count])]


def test_pairs_become_two_whole_answers(frozen_tiny):
    tokenizer = frozen_tiny("llama", 32).tokenizer
    (one,) = made("preference", PAIRS[0])
    assert (one.segments, one.choices) == ((("the cat sat on", False),), (" the mat and the log", " a dog"))
    encoded = encode(one, tokenizer, 64)
    assert (encoded.choices, encoded.label) == (2, 0)
    for row, answer in zip(encoded.rows, one.choices, strict=True):
        assert tokenizer.decode(row.targets, skip_special_tokens=True) == answer
        assert row.targets[-1] == tokenizer.eos_token_id
    turns = [{"role": "user", "content": "the cat sat on"}, {"role": "assistant", "content": "a dog"}]
    (same,) = made("preference", {**PAIRS[0], "rejected": turns})
    assert same == one
    with pytest.raises(UserError, match="row 1: the chosen and the rejected answer are the same"):
        made("preference", {**PAIRS[0], "chosen": "a dog"})


@pytest.mark.parametrize("bits", [4, 32])
def test_margins_begin_at_nothing(frozen_tiny, bits):
    session = session_of(frozen_tiny("llama", bits), "data.task=preference", "objective.rule=preference")
    examples = pairs(session.model)
    together = session.probe(examples, session.directions()).examples(torch.zeros(2, 1))
    assert (together - math.log(2)).abs().max() < 1e-6
    alone = [session.probe([one], session.directions()).losses(torch.zeros(1, 1)).item() for one in examples]
    assert alone == pytest.approx([math.log(2)] * 4, abs=1e-6)
    base = session.base(examples)
    with session.tuned.applied():
        found = finish(evaluate(session.model, examples, "test", session.recipe.objective, base)).metrics
    assert (found["accuracy"], found["margin"]) == (0.5, 0.0)
    assert found["loss"] == pytest.approx(math.log(2))
    assert found["preferred"] in (0, 0.25, 0.5, 0.75, 1)


def plain_margin(plain, one):
    sums = [0.0, 0.0]
    for row in one.rows:
        logits = plain(torch.tensor([list(row.tokens)])).logits[0].log_softmax(-1)
        for position, target, choice in zip(row.positions, row.targets, row.choices, strict=True):
            sums[choice] = sums[choice] + logits[position, target]
    return sums[0] - sums[1]


def test_preference_is_the_loss_of_dpo_by_back_propagation(frozen_tiny):
    """Away from the start, so that the margins differ: the slope along z is ∇L·z, with L written down plainly."""
    session = session_of(frozen_tiny("llama", 32), "data.task=preference", "objective.rule=preference",
                         "objective.beta=0.5")  # fmt: skip
    model, tuned, examples = session.model, session.tuned, pairs(session.model)
    session.base(examples)
    z = session.directions()
    tuned.values += 0.05 * z[0].flip(0)
    plain = reference.plain_model(model).double()
    with torch.no_grad():
        before = [plain_margin(plain, one).item() for one in examples]
    assert session.base(examples).tolist() == pytest.approx(before, abs=1e-4)
    reference.put(plain, model, tuned, tuned.values.double())
    loss = torch.stack([
        -torch.nn.functional.logsigmoid(0.5 * (plain_margin(plain, one) - known))
        for one, known in zip(examples, before, strict=True)
    ]).mean()  # fmt: skip
    loss.backward()
    gradient = torch.cat([
        reference.projected(tuned, name, reference.oriented(model, name, plain.get_parameter(name).grad))
        for name in tuned.slices
    ])  # fmt: skip
    found = session.estimate(examples, z)
    assert session.probe(examples, z).losses(torch.zeros(1, 1)).item() == pytest.approx(loss.item(), abs=1e-5)
    assert found.recorded[0] == pytest.approx((gradient @ z[0].double()).item(), rel=2e-3)


def test_a_run_learns_its_preferences(make, tmp_path):
    def rows(first, count):
        return "\n".join(
            json.dumps({"prompt": f"film {i} is", "chosen": "good", "rejected": "bad"})
            for i in range(first, first + count)
        )

    tables = {
        "data": {"source": str(tmp_path / "pairs"), "task": "preference", "template": "", "columns": {}},
        "objective": {"rule": "preference"},
        "update": {"learning_rate": 3e-3},
        "loop": {"steps": 20, "evaluate_every": 0},  # the examples come more than three times
    }
    chosen = make(**tables)
    (tmp_path / "pairs").mkdir()
    for split, first, count in (("train", 0, 24), ("validation", 24, 8)):
        (tmp_path / "pairs" / f"{split}.jsonl").write_text(rows(first, count))
    events = list(training.train(chosen, folder=tmp_path / "run"))
    first, last = (each.metrics for each in of(e.Evaluation, events) if each.split == "validation")
    assert (first["accuracy"], first["margin"]) == (0.5, 0.0)
    assert last["accuracy"] > 0.9 and last["margin"] > 0 and last["loss"] < math.log(2)
    assert finish(open_session(open_run(tmp_path / "run"))).tuned.hash() == events[-1].hash
    part = training.train(chosen, folder=tmp_path / "part")
    while getattr(next(part), "step", 0) != 13:
        pass
    part.close()
    assert list(training.resume(tmp_path / "part"))[-1].hash == events[-1].hash, "whatever came together before"
    report = finish(find_rate(chosen, steps=3))
    assert any(rung.loss != pytest.approx(math.log(2), abs=1e-9) for rung in report.rungs)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["data.task=squad", "objective.rule=accuracy"], r"needs answers to choose from, .* \[objective\] rule = 'f1'"),
        (["objective.rule=f1"], r"needs answers to compare with, and \[data\] task = 'choice' .* rule = 'accuracy'"),
        (["data.task=text", "objective.rule=exact-match"], "rule = 'likelihood'"),
        (["objective.rule=preference"], "needs pairs of a chosen and a rejected answer"),
        (["data.task=preference", "objective.rule=accuracy"], "rule = 'preference'"),
    ],
)
def test_objectives_ask_for_a_task_that_they_can_measure(settings, sentence):
    settings = sorted(settings)  # the task first
    with pytest.raises(UserError, match=sentence):
        with_settings(Recipe(), settings)
