"""Exact gradients against autograd through plain models in fp64: every family, number format, space and objective."""

from __future__ import annotations

import copy
import dataclasses
import itertools

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaForCausalLM

from sparsezo_gui.engine import device as devices
from sparsezo_gui.engine import forward, frozen, objective
from sparsezo_gui.engine import gradient as exact
from sparsezo_gui.engine.forward import packs
from sparsezo_gui.engine.gradient import gradient
from sparsezo_gui.engine.masks.all import All
from sparsezo_gui.engine.masks.lora import Lora
from sparsezo_gui.engine.masks.random import Random
from sparsezo_gui.engine.masks.subspace import Subspace
from sparsezo_gui.engine.objective import measure, pack_of, packs_of
from sparsezo_gui.engine.pretrained import consent
from sparsezo_gui.engine.spaces.sparse import SparseValues
from sparsezo_gui.engine.spaces.values import last_blocks, tuned_values
from sparsezo_gui.recipe import Recipe, build
from sparsezo_gui.recipe.recipe import ModelTable
from sparsezo_gui.recipe.registry import OBJECTIVES
from tests.engine import plain as reference
from tests.engine.conftest import finish
from tests.engine.spaces.test_low_rank import given
from tests.engine.test_correctness import SEARCH, batch, families, shifted
from tests.models import FAMILIES
from tests.own_code import own_code

CLOSE = 1e-5  # of the gradient's length
BATCH = batch()
TASKS = {
    "choice": [each for each in BATCH if each.choices],
    "completion": [BATCH[3], shifted(BATCH[3], range(40, 50))],
    "text": [BATCH[6], shifted(BATCH[6], range(100, 120))],
    "mixed": BATCH,
    "preference": [BATCH[1], BATCH[2], BATCH[5], BATCH[7]],
}
MASKS = {
    "entries": lambda model: finish(Random(density=0.02).find(model, SEARCH)),
    "subspaces": lambda model: finish(Subspace(rank=5, refresh=2, subspaces=2).find(model, SEARCH)),
    "bases": given,
    "lora": lambda model: finish(Lora(rank=3).find(model, SEARCH)),
}
FORMATS = (4, 8, 16, 32)
PREFERENCE = build({"objective": {"rule": "preference", "beta": 0.3}, "data": {"task": "preference"}}).objective


def values_of(model, space):
    """Tuned values away from their start, which the model is to run with."""
    tuned = tuned_values(model, MASKS[space](model))
    moved = 0.02 * torch.randn(len(tuned.values), generator=torch.Generator().manual_seed(1))
    tuned.values += moved.to(model.device)
    return tuned


def asked(task):
    """The objective of a task, what it compares with, and the same loss of a plain model."""
    if task != "preference":
        return Recipe().objective, None, reference.loss
    base = torch.linspace(-1, 1, len(TASKS[task]), dtype=torch.float64)

    def loss(plain, examples):
        losses = []
        for example, start in zip(examples, base, strict=True):
            sums = [0.0, 0.0]
            for row in example.rows:
                logits = plain(torch.tensor([list(row.tokens)])).logits[0].log_softmax(-1)
                for position, target, choice in zip(row.positions, row.targets, row.choices, strict=True):
                    sums[choice] = sums[choice] + logits[position, target]
            margin = sums[example.label] - sums[1 - example.label]
            losses.append(-torch.nn.functional.logsigmoid(0.3 * (margin - start)))
        return torch.stack(losses).mean()

    return PREFERENCE, base, loss


def found(model, tuned, task, blocks=None):
    """Gradient and loss as a step finds them; nothing of that is left in the model."""
    rule, base, _ = asked(task)
    with tuned.applied():
        told = gradient(model, tuned, rule, TASKS[task], blocks, base)
    assert_as_before(model)
    return told


def assert_as_before(model):
    assert not any(layer.recorder or layer.patch for layer in model.layers.values())
    assert not any("forward" in module.__dict__ for module in model.module.modules())
    assert not any(parameter.requires_grad for parameter in model.module.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.module.modules()
                   if model.streamed is None)  # fmt: skip


def distance(mine, theirs):
    """Relative to the length of ``theirs``."""
    return float(torch.dist(mine.double(), theirs) / theirs.norm())


def compare(model, tuned, tasks, close=CLOSE, plain=None):
    plain = reference.Differentiable(model, tuned, plain)
    for task in tasks:
        expected, loss = plain.gradient(tuned.values, TASKS[task], asked(task)[2])
        mine, told = found(model, tuned, task)
        assert expected.norm() > 1e-3 and distance(mine, expected) < close, task
        assert told == pytest.approx(loss, rel=close), task


# Each family with one of the others, so that all of those are tried too.
ONE_OF_EACH = list(zip(FAMILIES, itertools.cycle(FORMATS), itertools.cycle((*[*MASKS][1:], "entries", "lora")),
                       itertools.cycle(TASKS), strict=False))  # fmt: skip


@pytest.mark.parametrize("cell", ONE_OF_EACH, ids=lambda cell: "-".join(map(str, cell)))
def test_it_is_that_of_the_plain_model(frozen_tiny, cell):
    family, bits, space, task = cell
    model = frozen_tiny(family, bits)
    compare(model, values_of(model, space), [task])


# A Latin square: every two of them meet, each with all tasks.
PAIRS = [(family, bits, [*MASKS][(row + column) % len(MASKS)])
         for row, family in enumerate(FAMILIES) for column, bits in enumerate(FORMATS)]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("family", "bits", "space"), PAIRS)
def test_everything_with_everything(frozen_tiny, family, bits, space):
    model = frozen_tiny(family, bits)
    compare(model, values_of(model, space), TASKS)


def test_every_two_meet():
    sides = (FAMILIES, FORMATS, MASKS)
    for one, other in itertools.combinations(range(3), 2):
        assert {(cell[one], cell[other]) for cell in PAIRS} == set(itertools.product(sides[one], sides[other]))


@pytest.mark.parametrize(("dtype", "most"), [(torch.bfloat16, 0.06), (torch.float16, 0.01)])
@pytest.mark.parametrize(("space", "bits"), [("entries", 4), ("bases", 8), ("lora", 16)])
def test_in_16_bits_it_is_as_close_as_autograd_in_16_bits(frozen_tiny, space, bits, dtype, most, monkeypatch):
    """In bfloat16, 8 bits are left of all numbers on the way, and both gradients are about 3 % off in these models; in
    float16, where the loss is scaled, 0.4 %."""
    folder = str(frozen_tiny("llama", bits).source.folder)
    monkeypatch.setattr(devices, "compute_dtype", lambda device, table: dtype)
    model = finish(frozen.load(ModelTable(id=folder, bits=bits, device="cpu")))
    tuned = values_of(model, space)
    right, rounded = (reference.Differentiable(model, tuned, dtype=each) for each in (torch.float64, dtype))
    for task in ("choice", "text"):
        expected, loss = right.gradient(tuned.values, TASKS[task])
        theirs, _ = rounded.gradient(tuned.values, TASKS[task])
        mine, told = found(model, tuned, task)
        assert model.dtype == dtype and told == pytest.approx(loss, rel=1e-2)
        assert distance(mine, expected) < min(most, 1.5 * distance(theirs, expected))


@pytest.mark.parametrize("task", ["mixed", "preference"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_of_all_weights_it_is_that_of_the_plain_model(frozen_tiny, family, task):
    """As no run takes it, since it has as many numbers as the model: the projection of every space from the same
    gradient of a weight."""
    folder = str(frozen_tiny(family, 32).source.folder)
    model = finish(frozen.load(ModelTable(id=folder, bits=32, device="cpu")))  # of its own, whose weights it moves
    tuned = tuned_values(model, finish(All().find(model, SEARCH)))
    tuned.values += 0.01 * torch.randn(len(tuned.values), generator=torch.Generator().manual_seed(1))
    compare(model, tuned, [task])


@families
@pytest.mark.parametrize("space", MASKS)
def test_a_suffix_is_the_end_of_it(frozen_tiny, family, space):
    model = frozen_tiny(family, 4)
    tuned = values_of(model, space)
    whole, loss = found(model, tuned, "mixed")
    for blocks in range(4):
        part, told = found(model, tuned, "mixed", blocks)
        kept = tuple(last_blocks(model, blocks)) if blocks else ()
        inside = torch.cat([torch.full((place.stop - place.start,), bool(kept) and name.startswith(kept))
                            for name, place in tuned.slices.items()])  # fmt: skip
        assert told == loss and torch.equal(part, whole * inside), "to the bit"


@pytest.mark.parametrize("task", ["mixed", "preference"])
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_packs_of_any_size_give_the_same(frozen_tiny, family, task, monkeypatch):
    """To rounding; and to the bit the same whenever it is repeated. Also from objectives that compare, each example
    with its own number."""
    model = frozen_tiny(family, 4)
    tuned = values_of(model, "entries")
    first, loss = found(model, tuned, task)
    for rows, parts in ((512, 1), (40, None), (1, len(TASKS[task]))):
        monkeypatch.setitem(exact.BACKWARD_ROWS, "cpu", rows)
        count = len(list(packs_of(TASKS[task], rows, 1)))
        assert parts in (count, None) and (parts or 1 < count < len(TASKS[task]))
        mine, told = found(model, tuned, task)
        assert distance(mine, first.double()) < CLOSE and told == pytest.approx(loss, rel=CLOSE)
        again, once_more = found(model, tuned, task)
        assert torch.equal(again, mine) and once_more == told


@pytest.mark.parametrize("rows", [512, 40])
@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2", "opt"])
def test_padded_models_have_the_same(frozen_tiny, family, rows, monkeypatch):
    """Whose attention is not ours, so that nothing is packed and no beginning shared."""
    model = frozen_tiny(family, 4)
    tuned = values_of(model, "entries")
    first, loss = found(model, tuned, "mixed")
    monkeypatch.setattr(model.module.config, "_attn_implementation", "eager")
    monkeypatch.setitem(exact.BACKWARD_ROWS, "cpu", rows)
    assert not packs(model.module)
    mine, told = found(model, tuned, "mixed")
    assert distance(mine, first.double()) < CLOSE and told == pytest.approx(loss, rel=CLOSE)


@pytest.mark.parametrize("space", ["entries", "lora"])
def test_models_with_their_own_code_have_that_of_the_plain_model(tmp_path, space):
    folder = own_code(tmp_path / "model", tmp_path / "ran")
    table = ModelTable(id=str(folder), trust_remote_code=True, device="cpu", bits=32)
    consent.give(consent.find_code(table, folder))
    model = finish(frozen.load(table))
    assert model.body is None and not packs(model.module)
    config = copy.deepcopy(model.source.config)
    config._attn_implementation = "eager"
    with torch.random.fork_rng():
        plain = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for name, layer in model.layers.items():
            plain.get_parameter(name).copy_(layer.frozen.dense(torch.float32))
    compare(model, values_of(model, space), ["mixed"], plain=plain)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_what_examples_begin_with_is_passed_once_and_counts_for_all(frozen_tiny, family, monkeypatch):
    model, seen = frozen_tiny(family, 4), []
    tuned = values_of(model, "entries")
    start = list(range(100, 140))
    monkeypatch.setitem(TASKS, "alike", [shifted(each, start) for each in BATCH])
    made = pack_of
    monkeypatch.setattr(exact, "pack_of", lambda *args: seen.append(made(*args)) or seen[-1])
    monkeypatch.setitem(exact.BACKWARD_ROWS, "cpu", 10_000)
    compare(model, tuned, ["alike"])
    assert [pack.prefix for pack, _ in seen] == [40]
    monkeypatch.setattr(objective, "WORTHWHILE", 2)
    compare(model, tuned, ["alike"])
    assert [pack.prefix for pack, _ in seen] == [40, 0]


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_chunks_of_logits_make_no_difference(frozen_tiny, family, monkeypatch):
    model = frozen_tiny(family, 4)
    tuned = values_of(model, "lora")
    first, loss = found(model, tuned, "mixed")
    for places in (7, 1):
        monkeypatch.setattr(forward, "BACKWARD_LOGITS_BYTES", 4 * 288 * places)
        mine, told = found(model, tuned, "mixed")
        assert distance(mine, first.double()) < CLOSE and told == pytest.approx(loss, rel=CLOSE)


def test_objectives_that_count_have_none(frozen_tiny):
    assert {rule for rule in OBJECTIVES if not OBJECTIVES[rule].counts} == {"likelihood", "preference"}, "as tried here"


def test_where_no_block_is_tuned_there_is_none(frozen_tiny):
    model = frozen_tiny("llama", 4)
    mask = finish(Random(density=0.02).find(model, SEARCH))
    kept = {name: part for name, part in mask.indices.items() if name.startswith("model.layers.1.mlp")}
    tuned = SparseValues(model, dataclasses.replace(mask, indices=kept))
    whole, _ = found(model, values_of(model, "entries"), "mixed")
    mine, _ = found(model, tuned, "mixed")
    assert len(mine) == sum(map(len, kept.values())) < len(whole) and mine.norm() > 0
    none = SparseValues(model, dataclasses.replace(mask, indices={}))
    nothing, told = found(model, none, "mixed")
    with none.applied():
        assert nothing.numel() == 0 and told == pytest.approx(float(measure(model, BATCH).loss), rel=1e-5)


class Failing(TorchDispatchMode):
    """Within: the operation after so many others fails, as where memory runs out."""

    def __init__(self, after=-1):
        super().__init__()
        self.after, self.count = after, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if self.count == self.after:
            self.count += 1
            raise torch.OutOfMemoryError("pretended")
        self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("space", "moments"), [
    ("entries", 10), ("lora", 10), *(pytest.param(space, 200, marks=pytest.mark.slow) for space in MASKS),
])  # fmt: skip
def test_whenever_it_fails_nothing_is_left_behind(frozen_tiny, space, moments):
    """On the way to the first block, in a block, in the head, on the way back: no patch, recorder or hook stays."""
    model = frozen_tiny("llama", 4)
    tuned = values_of(model, space)
    before, _ = found(model, tuned, "mixed")  # what is made once is there
    with Failing() as whole:
        found(model, tuned, "mixed")
    for after in range(0, whole.count, whole.count // moments):
        with pytest.raises(torch.OutOfMemoryError, match="pretended"), Failing(after):
            found(model, tuned, "mixed")
        assert_as_before(model)
    assert torch.equal(found(model, tuned, "mixed")[0], before)
