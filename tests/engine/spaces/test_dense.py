"""Tuning every weight: against plain implementations, and in the memory of inference."""

from __future__ import annotations

import dataclasses
import gc
import json
import math
import re
import weakref
from queue import SimpleQueue

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM

from sparsezo_gui import recipe as recipes
from sparsezo_gui.answers import Cost
from sparsezo_gui.engine import frozen, planning, training
from sparsezo_gui.engine.data.encode import Encoded, Row
from sparsezo_gui.engine.export import export_run
from sparsezo_gui.engine.export.overlay_file import read_overlay
from sparsezo_gui.engine.layers.linear import FrozenLinear
from sparsezo_gui.engine.masks.report import report as report_of
from sparsezo_gui.engine.masks.rule import Search
from sparsezo_gui.engine.masks.saved import Saved
from sparsezo_gui.engine.objective import measure
from sparsezo_gui.engine.runs import checkpoints
from sparsezo_gui.engine.runs.folder import open_run
from sparsezo_gui.engine.session import Session
from sparsezo_gui.engine.session.opening import open_session
from sparsezo_gui.engine.spaces import pieces
from sparsezo_gui.engine.spaces import values as overlays
from sparsezo_gui.engine.spaces.dense import DenseValues
from sparsezo_gui.engine.spaces.values import tuned_values
from sparsezo_gui.engine.zo import generator
from sparsezo_gui.engine.zo.estimators.fzoo import in_spreads
from sparsezo_gui.engine.zo.stochastic_rounding import stochastic_round
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import events as e
from sparsezo_gui.recipe.recipe import DataTable
from tests.engine import plain as reference
from tests.engine.conftest import finish, of
from tests.models import FAMILIES, tiny

RULES = ("all", "small-magnitude-dynamic", "random-layers")
BATCH = [Encoded((Row((5, 9, 20 + i, 7), (3, 3), (30, 40), (0, 1)),), 2, i % 2, (), (), 0) for i in range(6)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """``folder(family, **overrides)``: a tiny model."""
    made = {}

    def folder_of(family, **overrides):
        key = json.dumps([family, overrides])
        if key not in made:
            made[key] = tiny(family, tmp_path_factory.mktemp("m"), **overrides)
        return made[key]

    return folder_of


@pytest.fixture
def begun(folder):
    """``begun(family, rule, bits, **tables)``: a session at its first step, on a model of its own."""

    def begin(family="llama", rule="all", bits=32, overrides=None, mask=None, **tables):
        chosen = recipes.build({
            "model": {"id": str(folder(family, **(overrides or {}))), "bits": bits, "device": "cpu"},
            "mask": {"rule": rule, **(mask or {})}, "update": {"rule": "sgd", "learning_rate": 1e-3}, **tables,
        })  # fmt: skip
        model = finish(frozen.load(chosen.model))
        found = finish(chosen.mask.find(model, Search(chosen.loop.seed, chosen.data)))
        session = Session(chosen, model, tuned_values(model, found))
        session.begin()
        return session

    return begin


def take(session, rate=1e-3):
    z = session.directions()
    found = session.estimate(BATCH, z)
    session.advance(z, found.recorded, rate)
    return found


def whole(session, source):
    """The directions of a step as they are specified, and where each weight's part is, by its name."""
    size = session.tuned.values.numel()
    return torch.stack([
        generator.normal(source.seed, source.step, probe, size) for probe in range(session.recipe.estimator.directions)
    ])  # fmt: skip


def sgd_by_hand(session, steps, rate=1e-3, redacted=lambda name, weight, step: 1.0):
    """MeZO's algorithm 1 on plain weights in fp64: perturbed in place by +ε, −2ε, +ε, then moved. Gives all weights."""
    model, epsilon = session.model, session.recipe.estimator.epsilon
    plain = reference.plain_model(model).double()
    shapes, slices = model.spec.linears, session.tuned.slices

    def add(z, mask, factor):
        for name, part in slices.items():
            direction = z[part].view(shapes[name]).double() * mask[name]
            plain.get_parameter(name).add_(reference.oriented(model, name, direction), alpha=factor)

    recorded = []
    with torch.no_grad():
        for step in range(1, steps + 1):
            directions = whole(session, generator.Source(session.recipe.loop.seed, step, 0))
            mask = {
                name: redacted(name, reference.oriented(model, name, plain.get_parameter(name).data), step)
                for name in slices
            }
            projected_grads = []
            for z in directions:
                add(z, mask, epsilon)
                plus = reference.loss(plain, BATCH)
                add(z, mask, -2 * epsilon)
                minus = reference.loss(plain, BATCH)
                add(z, mask, epsilon)
                projected_grads.append(float(plus - minus) / (2 * epsilon))
            for z, slope in zip(directions, projected_grads, strict=True):
                add(z, mask, -rate * slope / len(projected_grads))
            recorded.append(projected_grads)
        found = [reference.oriented(model, name, plain.get_parameter(name).data).reshape(-1) for name in slices]
    return torch.cat(found), recorded


@pytest.mark.parametrize("directions", [1, 3])
@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_all_is_mezos_algorithm(begun, family, directions):
    session = begun(family, estimator={"directions": directions})
    expected, projected_grads = sgd_by_hand(session, 4)
    found = [take(session).recorded for _ in range(4)]
    for mine, theirs in zip(found, projected_grads, strict=True):
        assert mine == pytest.approx(theirs, rel=2e-3, abs=2e-3)  # fp32 losses, divided by 2ε
    assert torch.allclose(session.tuned.values.double(), expected, rtol=0, atol=3e-5)
    start = session.tuned.start[slice(0, len(expected))]
    assert (session.tuned.values - start).abs().max() > 100 * 3e-5


def test_small_weights_are_told_anew_from_unperturbed_ones(begun):
    """Against a plain implementation over steps so large that weights cross the threshold, both ways."""
    session = begun(rule="small-magnitude-dynamic", mask={"smallest": 0.3}, estimator={"epsilon": 0.02})
    tuned, rate = session.tuned, 3e-3
    thresholds = {}
    for name in tuned.slices:
        sizes = session.model.original(name).abs().flatten().sort().values
        thresholds[name] = float(sizes[round(0.3 * len(sizes)) - 1])
        assert tuned.thresholds[name] == thresholds[name]
    small = lambda name, weight, step: (weight.abs() <= thresholds[name]).double()  # noqa: E731
    expected, projected_grads = sgd_by_hand(session, 5, rate, small)
    before, counts = tuned.values.clone(), []
    for theirs in projected_grads:
        mask = torch.cat([tuned.values[part].abs() <= thresholds[name] for name, part in tuned.slices.items()])
        now, mine = tuned.values.clone(), take(session, rate).recorded
        assert mine == pytest.approx(theirs, rel=5e-3, abs=2e-3)
        assert torch.equal(tuned.values != now, mask & (tuned.values != now)), "only small ones move"
        counts.append(int(mask.sum()))
    # A weight at its threshold may be told otherwise in fp64; all that moved nearly alike is compared.
    different = (tuned.values.double() - expected).abs() > 1e-4
    assert different.float().mean() < 1e-4
    assert counts[0] == pytest.approx(0.3 * len(before), rel=1e-3) and counts[-1] < counts[0], "weights have left"


def test_other_blocks_at_every_step(begun):
    session = begun(rule="random-layers", mask={"dropped": 0.6}, overrides={"num_hidden_layers": 5})
    blocks, seen = session.model.spec.blocks, []
    for step in range(1, 9):
        before = session.tuned.values.clone()
        tuned = session.directions().tuned
        take(session)
        moved = {
            int(name.removeprefix(f"{blocks}.").split(".")[0])
            for name, part in session.tuned.slices.items()
            if not torch.equal(session.tuned.values[part], before[part])
        }  # fmt: skip
        assert sorted(moved) == generator.choice(0, step, 2, 5) and len(moved) == 2
        assert {int(name.removeprefix(f"{blocks}.").split(".")[0]) for name in tuned} == moved
        seen.append(moved)
    assert set.union(*seen) == set(range(5))


def test_random_layers_are_mezo_on_those_layers(begun):
    session = begun(rule="random-layers", mask={"dropped": 0.5})
    blocks = session.model.spec.blocks

    def kept(name, weight, step):
        return float(name.startswith(f"{blocks}.{generator.choice(0, step, 1, 2)[0]}."))

    expected, projected_grads = sgd_by_hand(session, 4, redacted=kept)
    for theirs in projected_grads:
        assert take(session).recorded == pytest.approx(theirs, rel=2e-3, abs=2e-3)
    assert torch.allclose(session.tuned.values.double(), expected, rtol=0, atol=3e-5)


def test_choices_are_even_and_of_one_size():
    counts = torch.zeros(7)
    for step in range(2000):
        chosen = generator.choice(3, step, 3, 7)
        assert len(set(chosen)) == 3 and chosen == sorted(chosen)
        counts[chosen] += 1
    assert (counts / 2000 - 3 / 7).abs().max() < 4 * math.sqrt(3 / 7 * 4 / 7 / 2000)


@pytest.mark.parametrize("family", FAMILIES)
def test_scalars_alone_bring_every_family_back(begun, family):
    first = begun(family)
    for rule in RULES:
        session = first
        if rule != "all":
            chosen = recipes.with_settings(first.recipe, [f"mask.rule={rule}"])
            found = finish(chosen.mask.find(first.model, Search(0, chosen.data)))
            session = Session(chosen, first.model, tuned_values(first.model, found))
        session.begin()
        recorded, hashes = [], [session.tuned.hash()]
        for _ in range(2):
            recorded.append(take(session).recorded)
            hashes.append(session.tuned.hash())
        assert len(set(hashes)) == 3 and math.isfinite(sum(map(sum, recorded)))
        session.begin()
        assert session.tuned.hash() == hashes[0]
        for each in recorded:
            session.advance(session.directions(), each, 1e-3)
        assert session.tuned.hash() == hashes[-1]


CASES = [
    *((family, RULES[number % 3], 32) for number, family in enumerate(FAMILIES)),
    *(("qwen2", rule, 16) for rule in RULES),
]


@pytest.mark.parametrize(("family", "rule", "bits"), CASES)
def test_a_resumed_run_and_its_replay_give_the_same_bits(make, tmp_path, family, rule, bits, monkeypatch):
    monkeypatch.setattr(checkpoints, "spacing", lambda size, again=False: 2)
    chosen = make(
        family, model={"bits": bits}, mask={"rule": rule}, data={"validation": 0, "test": 0}, loop={"steps": 4},
        update={"rule": "scalar-normalised", "learning_rate": 1e-3},
    )  # fmt: skip
    begun = training.train(chosen, folder=tmp_path / "run")
    for event in begun:
        if isinstance(event, e.Step) and event.step == 3:
            break
    begun.close()
    told = list(training.resume(tmp_path / "run"))
    assert [(step.step, math.isfinite(step.loss)) for step in of(e.Step, told)] == [(4, True)]
    run = open_run(tmp_path / "run")
    assert run.facts.tuned == run.facts.eligible and len(checkpoints.listed(run.path)) == 2
    assert finish(open_session(run, from_checkpoints=False)).tuned.hash() == told[-1].hash


def test_past_steps_are_asked_and_exported_without_a_copy_of_the_model(make, tmp_path):
    chosen = make("gpt2", model={"bits": 32}, mask={"rule": "small-magnitude-dynamic"}, loop={"steps": 4},
                  update={"rule": "sgd", "learning_rate": 1e-3})  # fmt: skip
    commands, told = SimpleQueue(), []
    for event in training.train(chosen, commands, folder=tmp_path / "run"):
        told.append(event)
        if isinstance(event, e.Step) and event.step == 2:
            commands.put(e.EvaluateNow("test", 1))
            commands.put(e.Ask("the cat", 3, 0))
    run = open_run(tmp_path / "run")
    assert finish(open_session(run, from_checkpoints=False)).tuned.hash() == told[-1].hash
    assert [(each.step, each.split) for each in of(e.Evaluation, told)].count((1, "test")) == 1
    assert of(e.Answer, told)[-1].last

    session = finish(open_session(run, 3))
    tokens = torch.tensor([[10, 20, 30, 40]])
    with torch.no_grad(), session.tuned.applied():
        expected = session.model.module(tokens).logits
    report = finish(export_run(run.path, "hf", tmp_path / "hf", 3))
    moved = int(re.match(r"([\d,]+) of \1 tuned", report["told"][0])[1].replace(",", ""))
    assert 0.15 < moved / run.facts.eligible < 0.21
    for weights in ("original", "trained"):
        finish(export_run(run.path, "hf", tmp_path / weights, 3, weights=weights))
        with torch.no_grad():
            found = AutoModelForCausalLM.from_pretrained(tmp_path / weights).eval()(tokens).logits
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)
    finish(export_run(run.path, "overlay", tmp_path / "o", 3))
    for name, (indices, values) in read_overlay(tmp_path / "o").changes.items():
        weight = session.model.original(name).flatten()
        weight[indices.long()] = values
        assert torch.equal(weight, session.tuned.values[session.tuned.slices[name]])
    told = report_of(session.tuned.mask, session.model.spec, Cost(0.0, 0))
    assert all(layer.tuned == layer.weights for layer in told.layers)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("bits", [16, 32])
def test_an_error_between_the_sides_leaves_the_weights_alone(begun, rule, bits, monkeypatch):
    session = begun(rule=rule, bits=bits)
    before, calls, multiply = session.tuned.hash(), [], FrozenLinear.multiply

    def fails(self, rows):
        calls.append(1)
        if len(calls) == 9:
            raise KeyboardInterrupt
        return multiply(self, rows)

    monkeypatch.setattr(FrozenLinear, "multiply", fails)
    with pytest.raises(KeyboardInterrupt):
        session.estimate(BATCH, session.directions())
    assert session.tuned.hash() == before
    assert all(layer.patch is None for layer in session.model.layers.values())


class Largest(TorchDispatchMode):
    """The most bytes of tensors made within, alive at once, and the largest single one."""

    def __init__(self):
        super().__init__()
        self.live, self.most, self.largest, self.known = 0, 0, 0, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for tensor in found if isinstance(found, tuple | list) else (found,):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.known and not any(
                    isinstance(given, torch.Tensor) and given.untyped_storage()._cdata == storage._cdata
                    for given in (*args, *(kwargs or {}).values())
                ):
                    self.known.add(storage._cdata)
                    self.live += storage.nbytes()
                    weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
                    self.most, self.largest = max(self.most, self.live), max(self.largest, storage.nbytes())
        return found

    def _gone(self, key, nbytes):
        self.known.discard(key)
        self.live -= nbytes


MANY = {"num_hidden_layers": 20}


@pytest.mark.parametrize("bits", [16, pytest.param(32, marks=pytest.mark.slow)])
@pytest.mark.parametrize("rule", RULES)
def test_nothing_is_as_long_as_the_model_but_the_model(begun, rule, bits, monkeypatch, tmp_path):
    """Two whole steps, a key frame and its reading, the hash and a return to the start."""
    for where, name in ((pieces, "MOVED"), (checkpoints, "PIECE"), (overlays, "HASHED")):
        monkeypatch.setattr(where, name, 2**12)
    session = begun(rule=rule, bits=bits, overrides=MANY)
    tuned, largest = session.tuned, 64 * 128 * 4
    known = tuned.mask.hash, "ef" * 32
    assert tuned.values.nbytes > 80 * largest * bits / 32
    gc.collect()
    with Largest() as seen:
        for _ in range(2):
            take(session)
        checkpoints.write(tmp_path, 2, 2, tuned.start, tuned.values, session.state, *known)
        held = tuned.hash()
        tuned.reset()
        (frame,) = checkpoints.listed(tmp_path)
        assert checkpoints.read(frame, tuned.start, tuned.values, *known) is not None
        assert tuned.hash() == held
    assert seen.largest <= largest
    assert seen.most < 8 * largest


def test_the_model_is_the_values(begun):
    session = begun(bits=16)
    held = [layer.frozen.weight for layer in session.model.layers.values()]
    storage = session.tuned.values.untyped_storage().data_ptr()
    assert all(weight.untyped_storage().data_ptr() == storage for weight in held)
    assert {weight.dtype for weight in held} == {torch.bfloat16}
    before = measure(session.model, BATCH).loss
    session.tuned.values.mul_(1.5)
    assert not torch.equal(measure(session.model, BATCH).loss, before)
    with session.tuned.base():
        assert torch.equal(measure(session.model, BATCH).loss, before)
    assert not torch.equal(measure(session.model, BATCH).loss, before), "and back again"
    gradient = torch.randn(64, 64)
    assert torch.equal(session.tuned.project("x", torch.eye(64), gradient), gradient.flatten())


@pytest.mark.parametrize("rule", RULES)
def test_spans_of_a_weight_are_the_whole(begun, rule):
    session = begun(rule=rule, estimator={"directions": 2})
    z, offsets = session.directions(), torch.tensor([[1e-2, 0.0], [0.0, -1e-2], [1e-2, 1e-2], [0.0, 0.0]])
    with session.tuned.probed(z, offsets):
        for name, layer in session.model.layers.items():
            x = torch.randn(4, 5, layer.frozen.shape[1])
            once = layer.multiply(x)
            layer.spans = [(0, 3), (3, 20), (20, layer.frozen.shape[0])]
            assert torch.allclose(layer.multiply(x), once, rtol=1e-5, atol=1e-6)
            for side in range(4):
                weight = layer.frozen.weight
                if name in z.tuned:
                    moved = z.of(name, 0, weight.numel(), range(2)).view(2, *weight.shape)
                    weight = weight + torch.tensordot(offsets[side], moved, 1)
                assert torch.allclose(once[side], x[side] @ weight.t(), rtol=1e-4, atol=1e-4)
                assert name not in z.tuned or torch.allclose(layer.patch.put(layer.frozen.weight, side, 0), weight)


def test_pieces_are_the_direction(begun):
    """Also where nothing begins at a multiple of eight, and on several threads."""
    session = begun(overrides={"hidden_size": 36, "intermediate_size": 45, "head_dim": 10})
    z = session.directions()
    expected = whole(session, z.source)
    assert any(part.start % 8 for part in session.tuned.slices.values())
    for part, directions in z.parts():
        assert torch.equal(directions, expected[:, part])
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        for first, count in ((0, 3 * 2**18 + 5), (13, 2**18 + 1)):
            direction = torch.empty(count)
            for values in (generator.normal, generator.signs):
                pieces._fill(direction, z.source, 1, first, values)
                assert torch.equal(direction, values(z.source.seed, 1, 1, first + count)[first:])
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_by_chance_is_unbiased_and_leaves_what_is_exact(dtype):
    exact = torch.cat((torch.randn(500), 1e-3 * torch.randn(500), 1e-6 * torch.randn(500), torch.zeros(1))).to(dtype)
    halves = generator.rounding(1, 1, len(exact))
    assert torch.equal(stochastic_round(exact.float(), dtype, halves), exact)
    digits, smallest = (7, -133) if dtype == torch.bfloat16 else (10, -24)
    draws = 4000
    for size in (1.0, 0.02, 1e-3, 3e-6):
        numbers = size * torch.randn(41, generator=torch.Generator().manual_seed(4))
        spacing = 2.0 ** (numbers.abs().double().log2().floor() - digits).clamp(min=smallest)
        below = (numbers.double() / spacing).floor() * spacing
        up = (numbers.double() - below) / spacing
        halves = generator.rounding(5, 2, 41 * draws).view(draws, 41)
        found = torch.stack([stochastic_round(numbers, dtype, row) for row in halves]).double()
        assert ((found == below) | (found == below + spacing)).all()
        error = ((found - below) / spacing).mean(dim=0) - up
        assert (error.abs() < 4.5 * (up * (1 - up) / draws).sqrt() + 1 / draws).all()


def test_small_updates_of_16_bit_values_are_not_lost(begun):
    """Steps of a fiftieth of the spacing, which rounding to the nearest would all lose: their sum is the fp32 one's."""
    session = begun(bits=16, update={"rule": "sgd", "learning_rate": 1.0})
    values, before = session.tuned.values, session.tuned.values.float()
    spacing = 2.0 ** (before.abs().log2().floor() - 7)
    rate, expected = 3e-5, torch.zeros(len(values))
    lost = 0
    for _ in range(60):
        z = session.directions()
        step = rate * torch.cat([directions[0] for _, directions in z.parts()])
        lost += float(((values - step).to(values.dtype) == values).float().mean())
        expected += step
        session.advance(z, (1.0,), rate)
    assert lost / 60 > 0.8
    moved = before - values.float()
    larger = before.abs() > 0.05
    error = (moved - expected)[larger].double()
    assert abs(float(error.mean())) < 5 * float(error.std()) / math.sqrt(len(error))
    slope = float((moved[larger] * expected[larger]).sum() / expected[larger].square().sum())
    assert slope == pytest.approx(1, abs=0.05)
    assert error.abs().max() < 12 * spacing.max()


def test_fzoo_moves_every_weight_along_signs(begun):
    session = begun(estimator={"rule": "fzoo", "losses": 2}, update={"rule": "sgd"})
    z, before = session.directions(), session.tuned.values.clone()
    estimate = session.estimate(BATCH, z)
    assert len(estimate.recorded) == 2 and min(map(abs, estimate.recorded)) > 0
    session.advance(z, estimate.recorded, 1e-2)
    signs = z.source.signs(2).double()
    projected_grads = torch.tensor(in_spreads(estimate.recorded), dtype=torch.float64)
    expected = before.double() - 1e-2 * (projected_grads @ signs) / 2
    assert torch.allclose(session.tuned.values.double(), expected, atol=1e-6)


def test_all_zeros_move_nothing(begun):
    for bits in (16, 32):
        session = begun(bits=bits, update={"rule": "scalar-normalised"})
        before = session.tuned.hash()
        session.advance(session.directions(), (0.0,), 1e-3)
        assert session.tuned.hash() == before


@pytest.mark.parametrize(("tables", "sentence"), [
    ({"model": {"bits": 4}}, r"4-bit weights cannot be updated in place. Set \[model\] bits = 32 or 16"),
    ({"update": {"decay": 0.1}}, r"\[update\] decay needs a copy"),
])  # fmt: skip
def test_what_does_not_go_together_is_refused(tables, sentence):
    for rule in RULES:
        with pytest.raises(UserError, match=sentence):
            recipes.build({"model": {"bits": 32}, "mask": {"rule": rule}, **tables})


def test_other_files_and_models_get_a_sentence(begun, tmp_path):
    session = begun()
    session.tuned.mask.save(tmp_path / "m.safetensors")
    with pytest.raises(UserError, match="does not list entries"):
        finish(Saved(file=str(tmp_path / "m.safetensors")).find(session.model, Search(0, DataTable())))
    quantised = finish(frozen.load(session.recipe.model.model_copy(update={"bits": 4})))
    with pytest.raises(UserError, match="are quantised"):
        DenseValues(quantised, session.tuned.mask)
    elsewhere = dataclasses.replace(session.model, device=torch.device("meta"))
    with pytest.raises(UserError, match="is too large for"):
        DenseValues(elsewhere, session.tuned.mask)


def test_no_room_for_a_key_frame_is_told(make, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "PACKED", 1e6)
    chosen = make(model={"bits": 32}, mask={"rule": "all"}, loop={"steps": 2})
    told = list(training.train(chosen, folder=tmp_path / "run"))
    (notice,) = [event.text for event in of(e.Notice, told) if "checkpoints" in event.text]
    assert notice.startswith("[run] checkpoints = 2000 leaves no space") and " GiB or more each" in notice
    needed = float(re.search(r"take ([\d.]+) GiB", notice)[1])
    assert int(re.search(r"Set it to (\d+) or more", notice)[1]) == pytest.approx(4 * needed * 1024, rel=0.01)
    assert checkpoints.listed(tmp_path / "run") == []


@pytest.mark.parametrize("bits", [16, 32])
def test_memory_is_that_of_inference(make, bits):
    """By formula: weights, and a span of one; and not more than a frozen base with a few tuned values but for that."""
    chosen = make(model={"bits": bits}, mask={"rule": "all"})
    sparse = make(model={"bits": bits}, mask={"rule": "random", "density": 0.001})
    dense_parts, sparse_parts = (
        {part.name: part.bytes for part in planning.estimate(each).parts} for each in (chosen, sparse)
    )
    assert "Tuned values" not in dense_parts
    assert dense_parts["Tuned weights"] == sparse_parts["Frozen weights"]
    measured = finish(planning.measure(chosen))
    assert measured.parts[0].name == "Model and program" and measured.total > 0
