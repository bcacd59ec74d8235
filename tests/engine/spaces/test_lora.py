"""LoRA adapters: against dense weights and autograd in fp64, and through the whole life of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from sparsezo_gui import cli, recipe
from sparsezo_gui.engine import device as devices
from sparsezo_gui.engine import planning, training
from sparsezo_gui.engine.export import export_run
from sparsezo_gui.engine.gradient import gradient
from sparsezo_gui.engine.masks.lora import Lora
from sparsezo_gui.engine.masks.report import report
from sparsezo_gui.engine.masks.rule import Cost, Search
from sparsezo_gui.engine.memory import estimate
from sparsezo_gui.engine.objective import measure
from sparsezo_gui.engine.runs.branch import branch
from sparsezo_gui.engine.runs.folder import open_run
from sparsezo_gui.engine.session import Session
from sparsezo_gui.engine.session.opening import open_session
from sparsezo_gui.engine.spaces import mask as masks
from sparsezo_gui.engine.spaces.lora import SEED
from sparsezo_gui.engine.spaces.mask import Mask
from sparsezo_gui.engine.spaces.values import tuned_values, words_of
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.recipe import DataTable
from sparsezo_gui.recipe.toml import build
from tests.engine import plain as reference
from tests.engine.conftest import finish
from tests.engine.spaces.replayed import replayed
from tests.engine.test_correctness import batch, families

GOLDEN = Path(__file__).parents[2] / "golden"
SEARCH = Search(7, DataTable())
EXAMPLES = batch()[1:6]
RULE = {"rule": "lora", "rank": 2}


def adapted(model, **settings):
    """Values at their start."""
    return tuned_values(model, finish(Lora(**{"rank": 3, **settings}).find(model, SEARCH)))


def some_values(tuned, points, scale=0.05):
    return tuned.start + scale * torch.randn(points, tuned.mask.size, generator=torch.Generator().manual_seed(1))


class Dense:
    """The loss of a plain model in fp64 whose weights are W + 2·B·A, with autograd."""

    def __init__(self, model, tuned):
        self.model, self.tuned, self.plain = model, tuned, reference.plain_model(model).double()

    def weights(self, values):
        """W + 2·B·A of each weight, from the flat values: A and then B, row by row."""
        found = {}
        for name, part in self.tuned.slices.items():
            rows, columns = self.model.spec.linears[name]
            rank = (part.stop - part.start) // (rows + columns)
            a, b = values[part].split([rank * columns, rows * rank])
            change = 2 * b.view(rows, rank) @ a.view(rank, columns)
            found[name] = self.plain.get_parameter(name).detach() + reference.oriented(self.model, name, change)
        return found

    def loss(self, values, examples=EXAMPLES):
        weights = self.weights(values)
        return reference.loss(lambda ids: torch.func.functional_call(self.plain, weights, (ids,)), examples)

    def gradient(self, values, examples=EXAMPLES):
        leaves = values.double().clone().requires_grad_()
        loss = self.loss(leaves, examples)
        return torch.autograd.grad(loss, leaves)[0], loss.item()


@families
@pytest.mark.parametrize("bits", [4, 8, 32])
def test_losses_and_gradients_are_those_of_dense_weights(frozen_tiny, family, bits):
    """Two points at once, each with its own A and B; the gradient, of both."""
    model = frozen_tiny(family, bits)
    tuned = adapted(model)
    dense, points = Dense(model, tuned), some_values(tuned, 2)
    with tuned.applied(points), torch.no_grad():
        found = measure(model, EXAMPLES, 2).loss
    expected = torch.stack([dense.loss(values.double()) for values in points]).detach()
    assert torch.allclose(found, expected, rtol=1e-5, atol=0)
    exact, loss = dense.gradient(points[1])
    with tuned.applied(points[1:]):  # which are not the current values
        found, told = gradient(model, tuned, recipe.Recipe().objective, EXAMPLES)
    assert told == pytest.approx(loss, rel=1e-5)
    assert torch.dist(found.double(), exact) < 1e-5 * exact.norm()


def test_a_central_difference_is_that_of_dense_weights(frozen_tiny):
    model = frozen_tiny("llama", 32)
    session = begun(model, estimator={"rule": "two-sided", "epsilon": 1e-2})
    z = session.directions()
    found = session.estimate(EXAMPLES, z)
    dense, start = Dense(model, session.tuned), session.tuned.start.double()
    above, below = (dense.loss(start + sign * 1e-2 * z[0].double()).item() for sign in (1, -1))
    assert found.recorded[0] == pytest.approx((above - below) / 2e-2, rel=1e-3, abs=1e-3)


def test_the_start_leaves_the_model_as_it_is(frozen_tiny):
    model = frozen_tiny("llama", 4)
    before = [layer.frozen.packed.clone() for layer in model.layers.values()]
    tokens = torch.tensor([[10, 20, 30, 40]])
    tuned = adapted(model, rank=4)
    with torch.no_grad():
        logits = model.module(tokens).logits
        for held in (tuned.base(), tuned.applied()):
            with held:
                assert torch.equal(model.module(tokens).logits, logits)
        assert not tuned.changes()
        tuned.values.copy_(some_values(tuned, 1)[0])
        with tuned.applied():
            assert not torch.equal(model.module(tokens).logits, logits)
        with tuned.base():
            assert torch.equal(model.module(tokens).logits, logits)
    assert list(tuned.changes()) == list(tuned.slices)
    assert all(torch.equal(a, layer.frozen.packed) for a, layer in zip(before, model.layers.values(), strict=True))
    tuned.reset()
    assert torch.equal(tuned.values, tuned.start)


def test_adapters_are_drawn_by_the_seed(frozen_tiny):
    model = frozen_tiny("llama", 4)
    tuned, few = adapted(model, rank=8), adapted(model, rank=8, targets=["v_proj"])
    other = tuned_values(model, finish(Lora(rank=8).find(model, Search(8, DataTable()))))
    firsts = []
    for name, part in tuned.slices.items():
        columns = model.spec.linears[name][1]
        a, b = tuned.start[part].split([8 * columns, part.stop - part.start - 8 * columns])
        assert not b.any() and not torch.equal(a, other.start[part][: len(a)])
        firsts.append(a)
        if name in few.slices:
            assert torch.equal(few.start[few.slices[name]], tuned.start[part]), "whatever else has adapters"
    drawn = torch.cat(firsts)
    assert float(drawn.var()) == pytest.approx(1 / 8, rel=0.05) and abs(float(drawn.mean())) < 0.02
    assert len({float(a[0]) for a in firsts}) == len(firsts)
    assert list(few.slices) == [name for name in model.spec.linears if "v_proj" in name]


@pytest.mark.skipif(not devices.has_int8(), reason="this processor has no VNNI instructions")
def test_beside_products_in_integers_it_stays_in_fp32(frozen_tiny):
    model = frozen_tiny("llama", 8, "int8")
    tuned = adapted(model)
    points = some_values(tuned, 2, 1e-3)
    name, layer = next(iter(model.layers.items()))
    rows = torch.randn(1, 9, layer.frozen.shape[1]).repeat(2, 1, 1)
    with torch.no_grad():
        before = layer(rows)
        with tuned.applied(points):
            moved = layer(rows) - before
    a, b = tuned.adapters.split(name, points[:, tuned.slices[name]])
    assert torch.allclose(moved, 2 * rows @ a.mT @ b.mT, rtol=1e-3, atol=1e-6)


def test_targets_are_kinds_of_the_models_layers(frozen_tiny):
    spec = frozen_tiny("llama", 4).spec
    assert Lora(targets="q_proj, v_proj") == Lora(targets=("q_proj", "v_proj"))
    assert Lora().targets == Lora(targets="all").targets == ("all",)
    chosen = recipe.with_settings(recipe.Recipe(), ["mask.rule=lora", "mask.targets=q_proj,v_proj"])
    assert recipe.loads(recipe.dump(chosen)) == chosen and chosen.mask.targets == ("q_proj", "v_proj")
    assert len(chosen.mask.ranks(spec)) == 2 * spec.layers
    with pytest.raises(UserError, match=r"targets: this model has no linear layer 'k_prj'. Did you mean 'k_proj'"):
        Lora(targets=["k_prj"]).tuned(spec)
    for wrong in ("", [], ["all", "q_proj"], ["q_proj", "q_proj"]):
        with pytest.raises(UserError, match="must be 'all', or different names"):
            build({"mask": {"rule": "lora", "targets": wrong}})


def test_the_file_keeps_ranks_and_seed(frozen_tiny, tmp_path):
    model = frozen_tiny("llama", 4)
    linears, path = model.spec.linears, tmp_path / "m.safetensors"
    rule = Lora(rank=100, targets=["q_proj", "k_proj"])  # above the ranks of the weights
    mask = finish(rule.find(model, Search(2**63 - 5, DataTable())))
    mask.save(path)
    found = masks.load(path, linears, model.fingerprint)
    assert (found.hash, found.size, found.space) == (mask.hash, mask.size, "lora")
    assert masks.share(path) == mask.size / model.spec.eligible
    first, second = tuned_values(model, found), tuned_values(model, mask)
    assert first.adapters == second.adapters and torch.equal(first.start, second.start)
    assert finish(rule.find(model, SEARCH)).hash != mask.hash


NAME = "model.layers.0.self_attn.q_proj.weight"  # (64, 64)
WORDS = torch.tensor(words_of(5), dtype=torch.float32)


@pytest.mark.parametrize(
    ("parts", "tuned"),
    [
        ({NAME: torch.tensor([2.0])}, 256),
        ({NAME: torch.tensor([2.0]), SEED: WORDS[:3]}, 256),
        ({NAME: torch.tensor([2.0]), SEED: WORDS + 70_000}, 256),
        ({NAME: torch.tensor([0.0]), SEED: WORDS}, 0),
        ({NAME: torch.tensor([65.0]), SEED: WORDS}, 65 * 128),
        ({NAME: torch.tensor([float("nan")]), SEED: WORDS}, 256),
        ({NAME: torch.tensor([float("inf")]), SEED: WORDS}, 256),
        ({NAME: torch.tensor([2.0, 2.0]), SEED: WORDS}, 256),
        ({NAME: torch.tensor([2.0]), SEED: WORDS}, 257),
        ({"nowhere": torch.tensor([2.0]), SEED: WORDS}, 256),
    ],
)
def test_a_damaged_mask_gets_a_sentence(frozen_tiny, parts, tuned):
    model = frozen_tiny("llama", 4)
    mask = Mask({}, {}, model.fingerprint, model.spec.eligible, "lora", parts, tuned)
    with pytest.raises(UserError, match="does not fit the model"):
        tuned_values(model, mask)


def test_what_does_not_go_together(frozen_tiny):
    with pytest.raises(UserError, match="draws a separate direction for each example"):
        recipe.loads('[mask]\nrule = "lora"\n[estimator]\nrule = "grzo"')
    with pytest.raises(UserError, match="not support directions per example"):
        adapted(frozen_tiny("llama", 4)).per_example(torch.zeros(1, 1), torch.zeros(1), None)


@pytest.mark.parametrize("targets", [["all"], ["o_proj", "up_proj"]])
def test_report_and_memory_count_the_same_values(make, frozen_tiny, targets):
    chosen = make(mask={"rule": "lora", "rank": 100, "targets": targets})  # above the ranks of the smaller weights
    model = frozen_tiny("llama", 4)
    mask = finish(chosen.mask.find(model, Search(0, chosen.data)))
    told = report(mask, model.spec, Cost(0.0, 0))
    assert sum(layer.tuned for layer in told.layers) == sum(kind.tuned for kind in told.kinds) == mask.size
    assert mask.size == tuned_values(model, mask).values.numel() == chosen.mask.tuned(model.spec) == told.tuned
    assert {kind.label for kind in told.kinds if kind.tuned} == {*targets} or targets == ["all"]
    # Two sides and what a step draws, as for any values; and what adapters give beside a layer, in fp32.
    parts = {part.name: part for part in estimate(chosen, model.spec, "cpu", 64, 512).parts}
    assert parts["Tuned values"].bytes == (12 + 4 * (2 + 2 * 2)) * mask.size and "Bases" not in parts
    plain = {part.name: part for part in estimate(make(), model.spec, "cpu", 64, 512).parts}
    rows = parts["Workspace"].bytes - plain["Workspace"].bytes
    assert 0 < rows <= 4 * 1024 * model.spec.widest
    assert finish(planning.measure(chosen)).total > 0


@pytest.mark.parametrize(("family", "estimator", "update"), [
    ("gpt2", "two-sided", {"rule": "scalar-normalised", "learning_rate": 1e-2}),
    pytest.param("llama", "first-order", {"rule": "adam", "learning_rate": 1e-2, "decay": 0.01},
                 marks=pytest.mark.slow),
])  # fmt: skip
def test_a_run_is_replayed_resumed_branched_and_exported(make, tmp_path, family, estimator, update):
    chosen = make(family, model={"bits": 4}, mask=RULE, update=update, estimator={"rule": estimator},
                  data={"validation": 2, "test": 2})  # fmt: skip
    (session, at), run = replayed(chosen, tmp_path), open_run(tmp_path / "whole")
    assert torch.equal(at[0], session.tuned.start) and not torch.equal(at[2], at[4])
    (tmp_path / "whole" / "mask.safetensors").unlink()  # it is found again, and has the hash it had
    assert cli.main(["verify", str(tmp_path / "whole")]) == 0
    made = branch(run, 4, ["loop.steps=8", "update.learning_rate=2e-2"])
    assert list(training.resume(made.path))[-1].step == 8
    assert torch.equal(finish(open_session(open_run(made.path), 4)).tuned.values, at[4])
    tokens = torch.tensor([[10, 20, 30, 40]])
    for weights in ("original", "trained"):
        out = tmp_path / weights
        told = finish(export_run(tmp_path / "whole", "hf", out, 4, weights=weights))["told"]
        exported = AutoModelForCausalLM.from_pretrained(out).eval()
        dense = Dense(session.model, session.tuned)
        for name, weight in dense.weights(at[4].double()).items():
            if weights == "original":
                held = reference.oriented(session.model, name, session.model.layers[name].frozen.dense(torch.float32))
                original = reference.oriented(session.model, name, session.model.original(name))
                assert torch.allclose(exported.get_parameter(name).double(), weight - held + original, atol=1e-5)
        assert "values of LoRA adapters beside its" in (out / "README.md").read_text()
    assert told[-1] == "In plain transformers, 2 of 2 prompts give the same tokens as in the run."
    with torch.no_grad(), session.tuned.applied():
        assert torch.allclose(exported(tokens).logits, session.model.module(tokens).logits, atol=1e-3)
    with pytest.raises(UserError, match="this run trained LoRA adapters"):
        finish(export_run(tmp_path / "whole", "overlay", tmp_path / "small"))


def begun(model, **tables):
    chosen = build({"mask": RULE, "loop": {"seed": 5, "batch_size": len(EXAMPLES)},
                    "update": {"rule": "scalar-normalised", "learning_rate": 3e-3}, **tables})  # fmt: skip
    session = Session(chosen, model, tuned_values(model, finish(chosen.mask.find(model, Search(5, chosen.data)))))
    session.begin()
    return session


def steps(session, count, rate):
    """Losses and recorded scalars of so many steps."""
    found = {"loss": [], "recorded": []}
    for _ in range(count):
        z = session.directions()
        estimated = session.estimate(EXAMPLES, z, rate)
        session.advance(z, estimated.recorded, rate, estimated.exact)
        found["loss"].append(estimated.loss)
        found["recorded"].append(estimated.recorded[0])
    return found


def test_golden(frozen_tiny):
    """As in `tests.engine.test_golden`."""
    session = begun(frozen_tiny("llama", 32))
    found = {**steps(session, 8, 3e-3), "values": session.tuned.values[:12].tolist()}
    path = GOLDEN / "lora.json"
    if not path.exists():
        path.write_text(json.dumps(found, indent=1) + "\n")
        pytest.fail(f"recorded {path.name}: look at it, then commit it")
    golden = json.loads(path.read_text())
    assert found["loss"] == pytest.approx(golden["loss"], rel=1e-4)
    assert found["values"] == pytest.approx(golden["values"], rel=1e-3, abs=1e-5)
    assert found["recorded"] == pytest.approx(golden["recorded"], rel=1e-2, abs=5e-3)


def test_a_trajectory_is_that_of_autograd_in_fp64(frozen_tiny):
    model = frozen_tiny("llama", 32)
    session = begun(model, estimator={"rule": "first-order"}, update={"rule": "sgd", "learning_rate": 0.05})
    values, dense, losses = session.tuned.start.double(), Dense(model, session.tuned), []
    for _ in range(6):
        exact, loss = dense.gradient(values)
        values, losses = values - 0.05 * exact, [*losses, loss]
    found = steps(session, 6, 0.05)["loss"]
    assert found == pytest.approx(losses, rel=1e-4) and losses[-1] < losses[0]
    assert torch.allclose(session.tuned.values.double(), values, rtol=1e-4, atol=1e-5)
