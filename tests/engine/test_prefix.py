"""What enters the first tuned block is computed once, and losses and gradients are those of whole passes."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from sparsezo_gui.engine import forward, prefix, route, training
from sparsezo_gui.engine import objective as objectives
from sparsezo_gui.engine.gradient import gradient
from sparsezo_gui.engine.layers.blocks import Blocks
from sparsezo_gui.engine.layers.patch import Owners
from sparsezo_gui.engine.masks.random import Random
from sparsezo_gui.engine.objective import measure
from sparsezo_gui.engine.prefix import Prefix, _read, _written
from sparsezo_gui.engine.runs.folder import open_run
from sparsezo_gui.engine.session.opening import open_session
from sparsezo_gui.engine.spaces.sparse import SparseValues
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import Recipe, with_settings
from sparsezo_gui.recipe import events as e
from sparsezo_gui.recipe.registry import MASKS
from tests.engine.conftest import finish
from tests.engine.test_correctness import SEARCH, batch, families


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARSEZO_HOME", str(tmp_path / "home"))


@pytest.fixture
def runs(monkeypatch):
    """Numbers of the blocks that ran."""
    found, original = [], Blocks.run
    monkeypatch.setattr(
        Blocks, "run", lambda self, number, *rest: found.append(number) or original(self, number, *rest)
    )
    return found


def last(model, count=1):
    """A copy of ``model`` of whose blocks the last may be tuned, and values there."""
    other = dataclasses.replace(model)
    other.spec = model.source.spec.last(count)
    tuned = SparseValues(other, finish(Random(density=0.05).find(other, SEARCH)))
    tuned.values += 0.02 * torch.randn(len(tuned.values), generator=torch.Generator().manual_seed(0))
    return other, tuned


@families
@pytest.mark.parametrize("how", ["whole", "scored", "padded"])
def test_losses_and_gradients_are_those_of_whole_passes(frozen_tiny, family, how, monkeypatch, runs):
    """In the last block also where all tokens go through it, or the scored ones alone."""
    monkeypatch.setattr(route, "FEW", {"whole": 1000, "scored": 0, "padded": 0}[how])
    if how == "padded":
        for module in (forward, objectives, prefix, route):
            monkeypatch.setattr(module, "packs", lambda module: False)
    model, tuned = last(frozen_tiny(family, 4))
    points, objective = tuned.values + torch.tensor([[0.01], [-0.01]]), Recipe().objective
    with tuned.applied(points):
        losses = measure(model, batch(), 2).loss
    with tuned.applied():
        exact, loss = gradient(model, tuned, objective, batch())
    model.prefix = Prefix(model)
    first = model.prefix.first
    with tuned.applied(points):
        assert torch.allclose(measure(model, batch(), 2).loss, losses, rtol=1e-4)
    assert any(number < first for number in runs)
    runs.clear()
    with tuned.applied():
        found, told = gradient(model, tuned, objective, batch())
    assert told == pytest.approx(loss, rel=1e-4)
    assert (found - exact).norm() < 2e-3 * exact.norm()
    assert runs and all(number >= first for number in runs), "nothing below is computed again"


def test_losses_depend_neither_on_what_is_kept_nor_on_the_batch(frozen_tiny, runs):
    model, _ = last(frozen_tiny("llama", 4))

    def states(examples):
        rows = [row for each in examples for row in each.joined]
        return torch.cat([model.prefix._states(row) for row in rows])

    model.prefix = Prefix(model)
    together = states(batch())
    assert torch.equal(states(batch()), together), "from memory"
    model.prefix = Prefix(model)
    runs.clear()
    assert torch.equal(states(batch()), together) and not runs, "from the file"
    model.prefix = Prefix(model)
    model.prefix.room = 0
    model.prefix._store.get = lambda *_: None
    assert torch.equal(torch.cat([states([each]) for each in batch()]), together) and runs, "computed one by one"


def test_states_keep_eleven_bits_of_each_tokens_largest_number():
    draw = torch.Generator().manual_seed(1)
    states = torch.randn(50, 64, generator=draw) * 10 ** torch.linspace(-20, 20, 50)[:, None]
    states[3] = 0
    states[7, 5] *= 3000  # one massive activation
    found = _read(_written(states), 50)
    assert ((found - states).abs() <= states.abs() * 2**-11 + states.abs().amax(1, keepdim=True) * 2**-29).all()


@pytest.mark.parametrize("rule", list(MASKS))
def test_every_rule_tunes_the_last_blocks_only(make, tmp_path, rule):
    more = {"outlier-channels": {"threshold": 1.01}, "saved": {"file": str(tmp_path / "saved.safetensors")}}.get(
        rule, {}
    )
    dense = MASKS[rule].space == "dense"
    settings = {"mask": {"rule": rule, "blocks": "half", **more}, "loop": {"steps": 4, "evaluate_every": 2}}
    if dense:
        settings["model"] = {"bits": 32}
    chosen = make(**settings)
    if rule == "saved":
        _, tuned = last(finish(training.load_model(chosen)))
        tuned.mask.save(tmp_path / "saved.safetensors")
    told = list(training.train(chosen, folder=tmp_path / "run"))
    session = finish(open_session(open_run(tmp_path / "run"), from_checkpoints=False))
    assert session.tuned.hash() == told[-1].hash
    spec = session.model.source.spec
    changed = {spec.block(name) for name, (indices, _) in session.tuned.changes().items() if len(indices)}
    assert changed and min(changed) >= spec.layers // 2
    assert session.model.prefix.first == spec.layers // 2


@pytest.mark.parametrize("rule", ["grzo", "first-order", "elastic", "addax"])
def test_a_run_of_the_last_blocks_is_stopped_resumed_and_replayed(make, tmp_path, rule):
    chosen = make(mask={"blocks": "half"}, estimator={"rule": rule}, loop={"steps": 6})
    told = list(training.train(chosen, folder=tmp_path / "whole"))
    halves = make(mask={"blocks": "half"}, estimator={"rule": rule}, loop={"steps": 6})
    events = training.train(halves, folder=tmp_path / "halves")
    for event in events:
        if isinstance(event, e.Step) and event.step == 3:
            break
    events.close()
    resumed = list(training.resume(tmp_path / "halves"))
    assert resumed[-1].hash == told[-1].hash
    again = finish(open_session(open_run(tmp_path / "halves"), from_checkpoints=False))
    assert again.tuned.hash() == told[-1].hash


def test_directions_of_examples_need_all_rows_of_the_last_block(frozen_tiny, monkeypatch):
    monkeypatch.setattr(route, "FEW", 0)
    model, tuned = last(frozen_tiny("llama", 4))
    model.prefix = Prefix(model)
    examples = batch()
    z = torch.randn(len(examples), len(tuned.values), generator=torch.Generator().manual_seed(4))
    owners = Owners()
    with tuned.per_example(z, torch.tensor([0.02]), owners):
        together = measure(model, examples, 1, owners).sums[0]
    for number, example in enumerate(examples):
        with tuned.applied((tuned.values + 0.02 * z[number])[None]):
            assert torch.allclose(measure(model, [example]).sums[0], together[number], rtol=1e-4)


@pytest.mark.parametrize(
    ("value", "first"), [("all", 0), ("half", 2), ("quarter", 3), ("1", 3), (2, 2), (4, 0), ("9999", 0)]
)
def test_what_blocks_means(frozen_tiny, value, first):
    spec = dataclasses.replace(frozen_tiny("llama", 4).spec, layers=4)
    names = {f"{spec.blocks}.{number}.x.weight": (3, 5) for number in range(4)}
    spec = dataclasses.replace(spec, linears=names, eligible=60)
    found = Random(blocks=value).tunable(spec)
    assert found.tunable_blocks[0] == first and found.eligible == 15 * (4 - first)
    assert found.eligible + found.other == spec.eligible + spec.other


@pytest.mark.parametrize("value", ["none", "0", "-1", "1.5", ""])
def test_other_words_are_refused(value):
    with pytest.raises(UserError, match=r"\[mask\] blocks"):
        with_settings(Recipe(), [f"mask.blocks={value!r}"])
