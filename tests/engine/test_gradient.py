"""Exact gradients against autograd through plain models, and the methods that use them."""

from __future__ import annotations

import pytest
import torch

from sparsezo_gui.engine import training
from sparsezo_gui.engine.gradient import gradient
from sparsezo_gui.engine.masks.random import Random
from sparsezo_gui.engine.runs.branch import branch
from sparsezo_gui.engine.runs.folder import open_run
from sparsezo_gui.engine.session import Session
from sparsezo_gui.engine.session.opening import open_session
from sparsezo_gui.engine.spaces.sparse import SparseValues
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import Recipe, with_settings
from sparsezo_gui.recipe import events as e
from tests.engine import plain as reference
from tests.engine.conftest import finish, of
from tests.engine.test_correctness import SEARCH, batch, families


def plain_gradient(model, tuned, values, examples):
    """∇L at ``values`` by autograd of the plain model."""
    plain = reference.plain_model(model)
    reference.put(plain, model, tuned, values)
    loss = reference.loss(plain, examples)
    loss.backward()
    parts = [
        reference.oriented(model, name, plain.get_parameter(name).grad).reshape(-1)[tuned.indices[name].long()]
        for name in tuned.slices
    ]
    return torch.cat(parts), loss.item()


@families
@pytest.mark.parametrize("bits", [4, 32])
def test_gradients_are_those_of_the_plain_model(frozen_tiny, family, bits):
    model = frozen_tiny(family, bits)
    tuned = SparseValues(model, finish(Random(density=0.02).find(model, SEARCH)))
    tuned.values += 0.02 * torch.randn(len(tuned.values), generator=torch.Generator().manual_seed(0))
    expected, loss = plain_gradient(model, tuned, tuned.values, batch())
    with tuned.applied():
        found, told = gradient(model, tuned, Recipe().objective, batch())
        suffix, _ = gradient(model, tuned, Recipe().objective, batch(), blocks=1)
    assert told == pytest.approx(loss, rel=1e-5)
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))
    path, blocks = model.spec.blocks, model.spec.layers
    for name, part in tuned.slices.items():
        last = name.startswith(f"{path}.{blocks - 1}.")
        assert torch.allclose(suffix[part], found[part] * last, rtol=1e-4, atol=1e-6), name


def made(model, *settings):
    recipe = with_settings(Recipe(), ["mask.rule=random", "mask.density=0.02", *settings])
    session = Session(recipe, model, SparseValues(model, finish(recipe.mask.find(model, SEARCH))))
    session.begin()
    return session


@pytest.mark.parametrize("balanced", [True, False])
@families
def test_elastic_is_exact_in_the_last_block_and_two_sided_before(frozen_tiny, family, balanced):
    model = frozen_tiny(family, 32)
    session = made(model, "estimator.rule=elastic", "estimator.epsilon=1e-3", f"estimator.balanced={balanced}".lower(),
                   "estimator.weight=3", "update.rule=sgd", "update.learning_rate=1e-3")  # fmt: skip
    tuned, z = session.tuned, session.directions()
    found = session.estimate(batch(), z)
    last = [part for name, part in tuned.slices.items()
            if name.startswith(f"{model.spec.blocks}.{model.spec.layers - 1}.")]  # fmt: skip
    assert last and all((z[:, part] == 0).all() for part in last) and z.count_nonzero() > 0
    points = [plain_gradient(model, tuned, tuned.values + sign * 1e-3 * z[0], batch()) for sign in (1, -1)]
    slope, mean = (points[0][1] - points[1][1]) / 2e-3, (points[0][0] + points[1][0]) / 2
    assert found.recorded[0] == pytest.approx(slope, rel=1e-2, abs=5e-3)
    assert found.exact.count_nonzero() <= sum(part.stop - part.start for part in last)
    session.advance(z, found.recorded, 1e-3, found.exact)
    moved, long = tuned.start - tuned.values, 3 * (z.count_nonzero().sqrt() if balanced else 1.0)
    for part in last:
        assert torch.allclose(moved[part], 1e-3 * long * mean[part], rtol=2e-3, atol=1e-8 * float(long))
    rest = z[0] != 0
    assert torch.allclose(moved[rest], 1e-3 * found.recorded[0] * z[0][rest], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("rule", ["sgd", "momentum", "sign", "adam", "scalar-normalised"])
def test_elastic_steps_are_as_long_in_the_last_block_as_before_it(frozen_tiny, rule):
    """If their gradients are; ``weight`` makes them longer."""
    session = made(frozen_tiny("llama", 32), "estimator.rule=elastic", "estimator.weight=1", f"update.rule={rule}",
                   "update.learning_rate=1e-5")  # fmt: skip
    tuned, z = session.tuned, session.directions()
    exact = torch.where(z[0] == 0, torch.randn(z.shape[1], generator=torch.Generator().manual_seed(1)), 0.0)
    exact *= int((z == 0).sum()) ** 0.5 / exact.norm()  # a gradient of length 1, as `Elastic.estimate` gives it
    session.advance(z, (1.0, 1.0), 1e-5, exact)
    moved = tuned.start - tuned.values
    assert moved[z[0] == 0].norm() == pytest.approx(float(moved[z[0] != 0].norm()), rel=0.1)


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("longest", [10, 11, 60])
def test_addax_mixes_both_orders_by_length(frozen_tiny, longest, balanced):
    """With α the share of long examples. The exact part is as long as the other one is for the same slope; before that
    could be chosen, the two parts made up the gradient of the batch."""
    model = frozen_tiny("llama", 32)
    examples = [each for each in batch() if each.choices]
    session = made(model, "estimator.rule=addax", f"estimator.short={longest}", "estimator.epsilon=1e-3",
                   f"estimator.balanced={balanced}".lower())  # fmt: skip
    tuned, z = session.tuned, session.directions()
    found = session.estimate(examples, z)
    long = [each for each in examples if each.length > longest]
    short = [each for each in examples if each.length <= longest]
    grad = 0.0
    if long:
        up, down = (plain_gradient(model, tuned, tuned.values + s * 1e-3 * z[0], long)[1] for s in (1, -1))
        grad = len(long) / len(examples) * (up - down) / 2e-3
    assert found.recorded == pytest.approx((grad, len(short) / len(examples)), rel=1e-2, abs=5e-3)
    assert (found.exact is None) == (not short)
    if short:
        length = len(tuned.values) ** 0.5 if balanced else 1.0
        expected = plain_gradient(model, tuned, tuned.values, short)[0] * length * len(short) / len(examples)
        assert torch.allclose(found.exact, expected, rtol=1e-3, atol=1e-6 * length)
    assert found.loss == pytest.approx(plain_gradient(model, tuned, tuned.values, examples)[1], rel=1e-4)


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("rule", ["elastic", "addax"])
def test_such_runs_come_back_bit_for_bit(make, tmp_path, rule, balanced):
    """From what they recorded, and by taking their steps again where that is gone."""
    chosen = make(estimator={"rule": rule, "balanced": balanced, **({"short": 12} if rule == "addax" else {})},
                  loop={"steps": 6})  # fmt: skip
    told = list(training.train(chosen, folder=tmp_path / "run"))
    run = open_run(tmp_path / "run")
    assert finish(open_session(run, from_checkpoints=False)).tuned.hash() == told[-1].hash
    assert finish(open_session(run)).tuned.hash() == told[-1].hash
    first = finish(open_session(run, 3)).tuned.hash()
    branched = list(training.resume(branch(run, 3).path))
    assert branched[-1].hash == told[-1].hash and [step.step for step in of(e.Step, branched)] == [4, 5, 6]
    run.gradients.unlink()
    assert finish(open_session(run, 3, from_checkpoints=False)).tuned.hash() == first


@pytest.mark.parametrize("estimator", ["elastic", "two-sided"])
def test_a_branch_with_other_data_begins_where_its_parent_was(make, tmp_path, estimator):
    list(training.train(make(estimator={"rule": "elastic"}, loop={"steps": 6}), folder=tmp_path / "run"))
    run = open_run(tmp_path / "run")
    there = finish(open_session(run, 3, from_checkpoints=False)).tuned.hash()
    made = branch(run, 3, ["data.train=12", f"estimator.rule={estimator}"])
    assert finish(open_session(made, from_checkpoints=False)).tuned.hash() == there
    told = list(training.resume(made.path))
    assert open_run(made.path).facts.examples == 12
    for gone in ((), (run, made)):  # each step is then taken again with the data of its run
        for each in gone:
            each.gradients.unlink(missing_ok=True)
        assert finish(open_session(open_run(made.path), from_checkpoints=False)).tuned.hash() == told[-1].hash
    list(training.resume(made.path))  # its own examples are those it began with


def test_steps_that_nothing_is_perturbed_in_are_replayed_too(make, tmp_path):
    told = list(training.train(make(estimator={"rule": "elastic", "blocks": 99}), folder=tmp_path / "run"))
    assert {step.projected_gradient for step in of(e.Step, told)} == {0.0}, "all of it is found exactly"
    start = finish(open_session(open_run(tmp_path / "run"), 0)).tuned.hash()
    rebuilt = finish(open_session(open_run(tmp_path / "run"), from_checkpoints=False))
    assert rebuilt.tuned.hash() == told[-1].hash != start


def test_changed_examples_are_told_before_such_steps_are_taken_again(make, tmp_path):
    list(training.train(make(estimator={"rule": "elastic"}), folder=tmp_path / "run"))
    rows = (tmp_path / "train.jsonl").read_text().splitlines()
    (tmp_path / "train.jsonl").write_text("\n".join(rows[1:]))
    finish(open_session(open_run(tmp_path / "run"), 2, from_checkpoints=False))
    open_run(tmp_path / "run").gradients.unlink()
    with pytest.raises(UserError, match="Run 'tiny': the training examples changed"):
        finish(open_session(open_run(tmp_path / "run"), 2, from_checkpoints=False))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["estimator.rule=first-order", "objective.rule=accuracy"], "'accuracy' has no gradient"),
        (["estimator.rule=forward-gradient", "objective.rule=f1", "data.task=squad"], "'f1' has no gradient"),
        (["estimator.rule=elastic", "model.bits=8", "model.compute=int8"], "rounds activations, which has no"),
        (["estimator.rule=first-order", "model.bits=8", "model.compute=int8"], "rounds activations, which has no"),
        (["estimator.rule=first-order", "mask.rule=subspace"], r"Set \[mask\] refresh = 0"),
        (["update.rule=adam", "mask.rule=subspace"], r"\[update\] rule = 'adam' would also change those that wait"),
        (["update.decay=0.1", "mask.rule=subspace"], r"\[update\] decay = 0\.1 would also change those that wait"),
    ],
)
def test_what_cannot_be_passed_backwards_is_refused(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        with_settings(Recipe(), settings)
