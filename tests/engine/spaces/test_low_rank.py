"""Low-rank overlays: against dense weights, autograd and torch.linalg, and through the whole life of a run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from sparsezo_gui import cli, recipe
from sparsezo_gui.answers import Cost
from sparsezo_gui.engine import device as devices
from sparsezo_gui.engine import planning, training
from sparsezo_gui.engine.data import text_blocks
from sparsezo_gui.engine.export import export_run
from sparsezo_gui.engine.frozen import FrozenModel
from sparsezo_gui.engine.masks.activation_guided import ActivationSubspace
from sparsezo_gui.engine.masks.report import report
from sparsezo_gui.engine.masks.rule import Search
from sparsezo_gui.engine.masks.subspace import Subspace
from sparsezo_gui.engine.memory import estimate
from sparsezo_gui.engine.objective import measure
from sparsezo_gui.engine.session import Session
from sparsezo_gui.engine.spaces import mask as masks
from sparsezo_gui.engine.spaces.low_rank import SUBSPACES, LowRankValues, Subspaces, orthonormal, start_basis
from sparsezo_gui.engine.spaces.mask import Mask
from sparsezo_gui.engine.spaces.values import tuned_values
from sparsezo_gui.engine.zo.generator import FIRST, GENERATOR, Source
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.recipe import DataTable
from tests.engine import plain as reference
from tests.engine.conftest import finish
from tests.engine.spaces.replayed import replayed
from tests.engine.test_correctness import batch, families

GOLDEN = Path(__file__).parents[2] / "golden"
SEARCH = Search(7, DataTable())
EXAMPLES = batch()[1:6]


def given(model, rank=2):
    """A mask with bases at hand, without a search for them."""
    linears = model.spec.linears
    parts = {name: start_basis(1, n, columns, rank).t() for n, (name, (_, columns)) in enumerate(linears.items())}
    tuned = sum(rank * rows for rows, _ in linears.values())
    return Mask({}, {}, model.fingerprint, model.spec.eligible, "low-rank", parts, tuned)


def overlays(model):
    """One of each kind."""
    subspace = finish(Subspace(rank=5, refresh=2, subspaces=3).find(model, SEARCH))
    return [tuned_values(model, subspace), tuned_values(model, given(model))]


def some_values(tuned, points, scale=0.02):
    return scale * torch.randn(points, tuned.mask.size, generator=torch.Generator().manual_seed(1))


def beside(tuned, values):
    """Σ left·core·rightᵀ of each weight, in fp64 and written down plainly."""
    found = {}
    for name, part in tuned.slices.items():
        count, rows, rank = tuned.bases.cores[name]
        cores, total = values[part].double().view(count, rows, rank), 0.0
        for number, core in enumerate(cores):
            left, right = tuned.bases.factors(number)[name]
            left = torch.eye(rows) if left is None else left
            total = total + left.double() @ core @ right.double().t()
        found[name] = total.float()
    return found


def dense_loss(plain, model, tuned, values):
    """Loss of a plain model with what is tuned added to its dense weights, which it then has again."""
    kept = {name: plain.get_parameter(name).clone() for name in tuned.slices}
    with torch.no_grad():
        for name, weight in beside(tuned, values).items():
            plain.get_parameter(name).add_(reference.oriented(model, name, weight))
        found = reference.loss(plain, EXAMPLES).double()
        for name, weight in kept.items():
            plain.get_parameter(name).copy_(weight)
    return found


@families
@pytest.mark.parametrize("bits", [4, 8, 32])
def test_the_forward_equals_that_of_dense_weights(frozen_tiny, family, bits):
    model = frozen_tiny(family, bits)
    plain = reference.plain_model(model)
    for tuned in overlays(model):
        points = some_values(tuned, 2)
        with tuned.applied(points):
            found = measure(model, EXAMPLES, 2).loss
        expected = [dense_loss(plain, model, tuned, values) for values in points]
        assert torch.allclose(found, torch.stack(expected), rtol=2e-5, atol=0)


@pytest.mark.skipif(not devices.has_int8(), reason="this processor has no VNNI instructions")
def test_beside_products_in_integers_it_stays_in_fp32(frozen_tiny):
    model = frozen_tiny("llama", 8, "int8")
    for tuned in overlays(model):
        points = some_values(tuned, 2, 1e-4)
        name, layer = next(iter(model.layers.items()))
        rows = torch.randn(1, 9, layer.frozen.shape[1]).repeat(2, 1, 1)
        with torch.no_grad():
            before = layer(rows)
            with tuned.applied(points):
                moved = layer(rows) - before
        for x, y, values in zip(rows, moved, points, strict=True):
            assert torch.allclose(y, x @ beside(tuned, values)[name].t(), rtol=1e-3, atol=1e-6)


def test_the_whole_weight_is_that_of_the_backward_pass(frozen_tiny):
    model = frozen_tiny("llama", 4)
    for tuned in overlays(model):
        points = some_values(tuned, 1)
        name, layer = next(iter(model.layers.items()))
        rows = torch.randn(5, layer.frozen.shape[1], requires_grad=True)
        whole = layer.frozen.dense(torch.float32) + beside(tuned, points[0])[name]
        with tuned.applied(points):
            layer(rows).sum().backward()
            assert torch.allclose(layer(rows.detach()), rows.detach() @ whole.t(), atol=1e-4)
        assert torch.allclose(rows.grad, whole.sum(0).expand(5, -1), atol=1e-4)


def test_bases_are_orthonormal_and_drawn_by_the_seed():
    shapes = {"a": (40, 30), "b": (6, 70)}
    bases = Subspaces(shapes, 8, 10, 2, 2**63 - 5)
    assert bases.cores == {"a": (2, 8, 8), "b": (2, 6, 6)}, "no rank is above those of the weight"
    first, second = bases.factors(0), bases.factors(1)
    for name, sizes in shapes.items():
        rank = bases.cores[name][1]
        for number, size in enumerate(sizes):
            columns = first[name][number]
            assert torch.allclose(columns.t() @ columns, size / rank * torch.eye(rank), atol=1e-4)
            if rank < size:
                assert not torch.allclose(columns, second[name][number])
            assert torch.equal(columns, Subspaces.read(bases.part, shapes).factors(0)[name][number])
    assert not torch.allclose(first["a"][0], Subspaces(shapes, 8, 10, 2, 4).factors(0)["a"][0])
    # A core of normal values moves the weight by as much as normal values for all of its entries.
    core = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    assert (first["a"][0] @ core @ first["a"][1].t()).norm().item() == pytest.approx(core.norm().item() * 1200**0.5 / 8)


def test_an_orthonormal_basis_has_one_answer():
    columns = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    found = orthonormal(columns)
    upper = found.t() @ columns
    assert torch.allclose(upper.tril(-1), torch.zeros(4, 4), atol=1e-5) and (upper.diagonal() > 0).all()
    assert torch.isfinite(orthonormal(torch.zeros(5, 3))).all()


def test_steps_go_through_the_subspaces_in_turn():
    bases = Subspaces({"a": (9, 9)}, 2, 3, 2, 0)
    assert [bases.present(step) for step in range(10)] == [0, 0, 0, 0, 1, 1, 1, 0, 0, 0]
    assert Subspaces({"a": (9, 9)}, 2, 0, 1, 0).present(10**6) == 0


def test_directions_are_zero_outside_the_present_subspace(frozen_tiny):
    model = frozen_tiny("llama", 4)
    tuned, other = overlays(model)
    estimator = recipe.Recipe().estimator
    for step in range(1, 8):
        drawn = tuned.draw(estimator, Source(0, step, tuned.mask.size), 4)
        (direction,) = tuned.shape(estimator, drawn, step, None)
        for name, part in tuned.slices.items():
            moved = direction[part].view(tuned.bases.cores[name]).flatten(1).any(1)
            assert moved.tolist() == [number == (step - 1) // 2 % 3 for number in range(3)]
    assert other.shape(estimator, other.draw(estimator, Source(0, 1, other.mask.size), 4), 1, None).all()
    # Only what was moved in is multiplied with.
    for values, used in ((tuned.start, 0), (tuned.start + direction, 1)):
        with tuned.applied(values[None]):
            held = {len(getattr(layer.patch, "factors", ())) for layer in model.layers.values()}
        assert held == {used}


@pytest.mark.parametrize("kind", ["subspace", "given"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_estimates_mean_is_the_gradient_of_the_cores(frozen_tiny, family, kind):
    """And a weight's gradient is felt as autograd says."""
    model, examples, samples = frozen_tiny(family, 32), EXAMPLES[2:], []
    mask = finish(Subspace(rank=2, refresh=0).find(model, SEARCH))
    if kind == "given":  # of one weight, since the noise grows with the number of values
        name, (rows, _) = min(model.spec.linears.items(), key=lambda item: item[1])
        mask = Mask({}, {}, mask.fingerprint, mask.eligible, mask.space, {name: given(model, 1).parts[name]}, rows)
    tuned = tuned_values(model, mask)
    tuned.values += some_values(tuned, 1)[0]
    session = Session(recipe.with_settings(recipe.Recipe(), ["estimator.directions=32"]), model, tuned)
    for session.step in range(12):
        z = session.directions()
        samples.append(torch.tensor(session.estimate(examples, z).recorded)[:, None] * z)
    samples = torch.cat(samples).double()
    plain, leaves = reference.plain_model(model), tuned.values.clone().requires_grad_()
    moved = {name: plain.get_parameter(name).detach() + reference.oriented(model, name, part)
             for name, part in _differentiable(tuned, leaves).items()}  # fmt: skip
    loss = reference.loss(lambda ids: torch.func.functional_call(plain, moved, (ids,)), examples)
    gradient, *wholes = torch.autograd.grad(loss, [leaves, *moved.values()])
    error = samples.std(dim=0) / len(samples) ** 0.5
    assert ((samples.mean(dim=0) - gradient).abs() < 4.5 * error + 1e-4).all()
    assert torch.nn.functional.cosine_similarity(samples.mean(dim=0), gradient.double(), dim=0) > 0.85
    for (name, part), whole in zip(tuned.slices.items(), wholes, strict=True):
        found = reference.projected(tuned, name, reference.oriented(model, name, whole))
        assert torch.allclose(found, gradient[part].double(), rtol=1e-3, atol=1e-5)


def _differentiable(tuned, leaves):
    found = {}
    for name, part in tuned.slices.items():
        left, right = tuned.bases.factors(0)[name]
        core = leaves[part].view(tuned.bases.cores[name][1:])
        found[name] = (core if left is None else left @ core) @ right.t()
    return found


@pytest.fixture
def text(tmp_path):
    (tmp_path / "text.txt").write_text("the cat sat on the mat and looked at the dog, who was warm.\n\n" * 40)
    return str(tmp_path / "text.txt")


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_activation_bases_are_the_main_directions_of_plain_activations(frozen_tiny, text, family):
    model = frozen_tiny(family, 4)
    options = {"rank": 2, "text": text, "sequences": 3, "tokens": 24}
    found = finish(ActivationSubspace(**options, iterations=40).find(model, SEARCH))
    once = finish(ActivationSubspace(**options, iterations=1).find(model, SEARCH))
    plain, inputs = reference.plain_model(model), {}
    for name in model.layers:
        module = plain.get_submodule(name.removesuffix(".weight"))
        module.register_forward_pre_hook(
            lambda _, given, name=name: inputs.setdefault(name, []).append(given[0].flatten(0, -2))
        )
    for tokens in text_blocks(text, model.tokenizer, 3, 24):
        with torch.no_grad():
            plain(torch.tensor([list(tokens)]))
    assert list(found.parts) == list(model.layers)
    for name, rows in inputs.items():
        basis, x = found.parts[name].double(), torch.cat(rows).double()
        assert torch.allclose(basis @ basis.t(), torch.eye(2, dtype=torch.float64), atol=1e-5)
        squares = torch.linalg.svdvals(x).square()
        assert (x @ basis.t()).square().sum() / squares[:2].sum() > 0.99  # in random weights gaps are small
        # One iteration is one product with XᵀX, whatever the gaps between its values are.
        place = list(model.spec.linears).index(name)
        start = start_basis(SEARCH.seed, place, x.shape[1], 2).double()
        expected = orthonormal(x.t() @ (x @ start))
        assert torch.allclose(once.parts[name].t(), expected, atol=1e-4)


RULES = [{"rule": "subspace", "rank": 3, "refresh": 2, "subspaces": 2},
         {"rule": "activation-subspace", "rank": 2, "sequences": 4, "tokens": 32}]  # fmt: skip
rules = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["rule"])


@rules
def test_a_run_is_replayed_resumed_and_exported(make, tmp_path, rule, capsys):
    chosen = make("gpt2", model={"bits": 4}, mask=rule, update={"rule": "scalar-normalised", "learning_rate": 1e-2},
                  data={"validation": 2, "test": 2})  # fmt: skip
    session, at = replayed(chosen, tmp_path)
    assert not at[0].any()
    if rule["rule"] == "subspace":  # what was learnt in a subspace stays where it is while the next one is tuned
        first, second = session.tuned.numbers == 1, session.tuned.numbers == 2
        assert at[2][first].all() and not at[2][second].any()
        assert torch.equal(at[4][first], at[2][first]) and at[4][second].all()
        assert torch.equal(at[6][second], at[4][second]) and not torch.equal(at[6][first], at[2][first])
        (tmp_path / "whole" / "mask.safetensors").unlink()  # it is found again, and has the hash it had
    assert cli.main(["verify", str(tmp_path / "whole")]) == 0
    assert cli.main(["evaluate", str(tmp_path / "whole"), "--step", "3"]) == 0
    capsys.readouterr()
    tokens = torch.tensor([[10, 20, 30, 40]])
    weights = "original" if rule["rule"] == "subspace" else "trained"
    told = finish(export_run(tmp_path / "whole", "hf", tmp_path / "out", 4, weights=weights))["told"]
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    if weights == "trained":
        assert told[-1] == "In plain transformers, 2 of 2 prompts give the same tokens as in the run."
        with torch.no_grad(), session.tuned.applied():
            assert torch.allclose(exported(tokens).logits, session.model.module(tokens).logits, atol=1e-3)
    else:
        for name, weight in beside(session.tuned, session.tuned.values).items():
            expected = session.model.original(name) + weight
            assert torch.allclose(exported.get_parameter(name).t(), expected, atol=1e-5)
    assert "values that change all its" in (tmp_path / "out" / "README.md").read_text()
    with pytest.raises(UserError, match="stores single weights"):
        finish(export_run(tmp_path / "whole", "overlay", tmp_path / "small"))


def test_the_base_stays_as_it_is(frozen_tiny):
    model = frozen_tiny("llama", 4)
    before = [layer.frozen.packed.clone() for layer in model.layers.values()]
    for tuned in overlays(model):
        assert not tuned.changes()
        losses = measure(model, EXAMPLES, 1).loss
        with tuned.base():
            assert torch.equal(measure(model, EXAMPLES, 1).loss, losses)
        tuned.values += 0.1
        with tuned.applied():
            assert not torch.equal(measure(model, EXAMPLES, 1).loss, losses)
        assert list(tuned.changes()) == list(tuned.slices) and "no such" not in tuned.changes()
        for held in (True, False):
            for name, weight in beside(tuned, tuned.values).items():
                base = model.layers[name].frozen.dense(torch.float32) if held else model.original(name)
                indices, values = tuned.changes(held)[name]
                assert torch.equal(indices, torch.arange(base.numel(), dtype=torch.int32))
                assert torch.allclose(values.view_as(base), base + weight, atol=1e-5)
    assert all(torch.equal(a, layer.frozen.packed) for a, layer in zip(before, model.layers.values(), strict=True))


def test_the_file_keeps_what_the_bases_are_made_of(frozen_tiny, tmp_path):
    model = frozen_tiny("llama", 4)
    linears, path = model.spec.linears, tmp_path / "m.safetensors"
    rule = Subspace(rank=3, refresh=5, subspaces=2)
    for mask in (finish(rule.find(model, SEARCH)), given(model)):
        mask.save(path)
        found = masks.load(path, linears, model.fingerprint)
        assert (found.hash, found.size, found.space) == (mask.hash, mask.size, "low-rank")
        assert masks.share(path) == mask.size / model.spec.eligible
        assert tuned_values(model, found).bases.cores == tuned_values(model, mask).bases.cores
    assert finish(rule.find(model, Search(8, DataTable()))).hash != finish(rule.find(model, SEARCH)).hash


@pytest.mark.parametrize(
    ("parts", "tuned"),
    [
        ({SUBSPACES: torch.tensor([3.0, 5, 2, 0, 0, 0])}, 252),
        ({SUBSPACES: torch.tensor([3.0, 5, 0, 0, 0, 0, 0])}, 0),
        ({SUBSPACES: torch.tensor([3.0, 5, 2, 0, 0, 0, 70_000])}, 252),
        ({SUBSPACES: torch.tensor([float("nan"), 5, 2, 0, 0, 0, 0])}, 252),
        ({SUBSPACES: torch.tensor([float("inf"), 5, 2, 0, 0, 0, 0])}, 252),
        ({SUBSPACES: torch.tensor([3.0, 5, 2, 7, 0, 0, 0])}, 253),
        ({SUBSPACES: torch.tensor(3.0)}, 252),
        ({"nowhere": torch.ones(1, 64)}, 64),
        ({"model.layers.0.self_attn.q_proj.weight": torch.ones(1, 63)}, 64),
        ({"model.layers.0.self_attn.q_proj.weight": torch.ones(64)}, 64),
    ],
)
def test_a_damaged_mask_gets_a_sentence(frozen_tiny, parts, tuned):
    model = frozen_tiny("llama", 4)
    mask = Mask({}, {}, model.fingerprint, model.spec.eligible, "low-rank", parts, tuned)
    with pytest.raises(UserError, match="does not fit the model"):
        tuned_values(model, mask)


def test_what_does_not_go_together(frozen_tiny):
    with pytest.raises(UserError, match="draws a separate direction for each example"):
        recipe.loads('[mask]\nrule = "subspace"\n[estimator]\nrule = "grzo"')
    for tuned in overlays(frozen_tiny("llama", 4)):
        with pytest.raises(UserError, match="not support directions per example"):
            tuned.per_example(torch.zeros(1, 1), torch.zeros(1), None)


@rules
def test_report_and_memory_count_the_same_values(make, frozen_tiny, rule):
    chosen = make(mask={**rule, "rank": 100})  # above the ranks of the smaller weights
    model = frozen_tiny("llama", 4)
    mask = finish(chosen.mask.find(model, Search(0, chosen.data)))
    tuned, spec = tuned_values(model, mask), model.spec
    assert isinstance(tuned, LowRankValues)
    told = report(mask, spec, Cost(0.0, 0))
    assert sum(layer.tuned for layer in told.layers) == sum(kind.tuned for kind in told.kinds) == mask.size
    assert mask.size == tuned.values.numel() == chosen.mask.tuned(spec) == told.tuned
    tuned.values += 1
    with tuned.applied():
        held = [basis for factors in tuned._held_factors.values() for pair in factors.values() for basis in pair]
    numbers = sum(basis.numel() for basis in held if basis is not None)
    assert chosen.mask.bases(spec) == numbers
    parts = {part.name: part for part in estimate(chosen, spec, "cpu", 64, 512).parts}
    assert parts["Bases"].bytes == 4 * numbers and str(mask.size) in parts["Tuned values"].why


def test_measuring_memory_takes_the_mask_itself(make):
    assert finish(planning.measure(make(mask=RULES[0]))).total > 0


def test_rounding_is_looked_for_in_the_present_subspace(make, monkeypatch, tmp_path):
    outside, probed = [], LowRankValues.probed

    def seen(tuned, directions, offsets):
        outside.append(bool(directions[:, tuned.numbers > 1].any()))
        return probed(tuned, directions, offsets)

    monkeypatch.setattr(FrozenModel, "rounds", True)
    monkeypatch.setattr(LowRankValues, "probed", seen)
    list(training.train(make(mask=RULES[0], loop={"steps": 1}), folder=tmp_path / "run"))
    assert len(outside) > 1 and not any(outside)


@pytest.mark.parametrize(("rule", "generator"), [*((rule, GENERATOR) for rule in RULES), (RULES[1], FIRST)],
                         ids=lambda item: item["rule"] if isinstance(item, dict) else item[-1])  # fmt: skip
def test_golden(frozen_tiny, rule, generator, tmp_path):
    """As in `tests.engine.test_golden`, with every second step in another subspace."""
    model = frozen_tiny("llama", 32)
    (tmp_path / "text.txt").write_text("the cat sat on the mat and looked at the dog.\n\n" * 40)
    text = {"text": str(tmp_path / "text.txt")} if rule["rule"] == "activation-subspace" else {}
    chosen = recipe.build({"mask": {**rule, **text}, "loop": {"seed": 5},
                                "update": {"rule": "scalar-normalised", "learning_rate": 3e-3}})  # fmt: skip
    tuned = tuned_values(model, finish(chosen.mask.find(model, Search(5, chosen.data, generator))))
    session = Session(chosen, model, tuned, generator=generator)
    session.begin()
    found = {"loss": [], "recorded": []}
    for _ in range(8):
        z = session.directions()
        estimate = session.estimate(EXAMPLES, z)
        session.advance(z, estimate.recorded, 3e-3)
        found["loss"].append(estimate.loss)
        found["recorded"].append(estimate.recorded[0])
    found["values"] = tuned.values[:12].tolist()
    older = "" if generator == GENERATOR else "-generator-1"
    path = GOLDEN / f"{rule['rule']}{older}.json"
    if not path.exists():
        path.write_text(json.dumps(found, indent=1) + "\n")
        pytest.fail(f"recorded {path.name}: look at it, then commit it")
    golden = json.loads(path.read_text())
    assert np.isfinite(found["loss"]).all()
    assert found["loss"] == pytest.approx(golden["loss"], rel=1e-4)
    assert found["values"] == pytest.approx(golden["values"], rel=1e-3, abs=1e-5)
    assert found["recorded"] == pytest.approx(golden["recorded"], rel=1e-2, abs=5e-3)
