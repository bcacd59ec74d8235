"""Mask rules against full sorts, and the mask file against damage."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from sparsezo_gui.engine.masks.all import All
from sparsezo_gui.engine.masks.magnitude import LargeMagnitude, SmallMagnitude
from sparsezo_gui.engine.masks.random import Random
from sparsezo_gui.engine.masks.rule import Search
from sparsezo_gui.engine.masks.select import TopK
from sparsezo_gui.engine.masks.sensitive import Sensitive
from sparsezo_gui.engine.masks.weight_activation import WeightActivation
from sparsezo_gui.engine.spaces import mask as masks
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.recipe import DataTable
from tests.engine.conftest import finish
from tests.models import FAMILIES

SEARCH = Search(0, DataTable())
SCORED = [Random, LargeMagnitude, SmallMagnitude, Sensitive, WeightActivation]


def rule_of(kind, tmp_path, **fields):
    if kind in (Sensitive, WeightActivation):
        (tmp_path / "text.txt").write_text("the cat sat on the mat and looked at the dog.\n\n" * 40)
        fields |= {"text": str(tmp_path / "text.txt"), "sequences": 2, "tokens": 32}
    return kind(**fields)


@settings(max_examples=60)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=5),
    count=st.integers(1, 60),
    seed=st.integers(0, 1000),
)
def test_the_streamed_choice_is_the_full_sorts(sizes, count, seed):
    generator = torch.Generator().manual_seed(seed)
    layers = {str(i): torch.randn(size, generator=generator) for i, size in enumerate(sizes)}
    chosen = TopK(count)
    for name, scores in layers.items():
        chosen.offer(name, scores)
    found = torch.cat([layers[name].flatten()[indices.long()] for name, indices in chosen.result().items()])
    everything = torch.cat([scores.flatten() for scores in layers.values()])
    assert torch.equal(found.sort().values, everything.topk(min(count, len(everything))).values.sort().values)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", SCORED)
def test_every_rule_finds_its_share_on_every_family(frozen_tiny, tmp_path, family, kind):
    model = frozen_tiny(family, 4)
    found = finish(rule_of(kind, tmp_path, density=0.01).find(model, SEARCH))
    eligible = sum(rows * columns for rows, columns in model.spec.linears.values())
    assert (found.size, found.eligible) == (round(0.01 * eligible), eligible)
    again = finish(rule_of(kind, tmp_path, density=0.01).find(model, SEARCH))
    assert found.hash == again.hash


@pytest.mark.parametrize("kind", SCORED)
def test_scope_tensor_takes_the_same_share_of_every_weight(frozen_tiny, tmp_path, kind):
    model = frozen_tiny("llama", 4)
    found = finish(rule_of(kind, tmp_path, density=0.01, scope="tensor").find(model, SEARCH))
    for name, (rows, columns) in model.spec.linears.items():
        assert len(found.indices[name]) == round(0.01 * rows * columns)


@pytest.mark.parametrize("kind", SCORED)
def test_scope_row_takes_as_many_of_every_row(frozen_tiny, tmp_path, kind):
    model = frozen_tiny("phi3", 4)
    rule = rule_of(kind, tmp_path, density=0.03, scope="row")
    found = finish(rule.find(model, SEARCH))
    assert found.size == rule.tuned(model.spec)
    for name, (rows, columns) in model.spec.linears.items():
        counts = (found.indices[name] // columns).bincount(minlength=rows)
        assert counts.tolist() == [round(0.03 * columns)] * rows


@pytest.mark.parametrize(("kind", "largest"), [(LargeMagnitude, True), (SmallMagnitude, False)])
def test_magnitude_masks_are_the_extremes_of_the_checkpoint(frozen_tiny, kind, largest):
    model = frozen_tiny("gpt2", 4)
    found = finish(kind(density=0.02).find(model, SEARCH))
    weights = {name: model.original(name).abs().flatten() for name in model.layers}
    chosen = torch.cat([weights[name][indices.long()] for name, indices in found.indices.items()])
    expected = torch.cat(list(weights.values())).topk(found.size, largest=largest).values
    assert torch.equal(chosen.sort().values, expected.sort().values)


def test_random_masks_follow_the_seed_and_all_takes_all(frozen_tiny):
    model = frozen_tiny("llama", 4)
    one, two = (finish(Random(density=0.01).find(model, Search(seed, DataTable()))) for seed in (1, 2))
    assert one.hash != two.hash
    whole = finish(All().find(model, SEARCH))
    assert whole.size == whole.eligible == model.spec.eligible


@pytest.fixture
def saved(frozen_tiny, tmp_path):
    model = frozen_tiny("llama", 4)
    found = finish(Random(density=0.01).find(model, SEARCH))
    found.save(tmp_path / "m.safetensors")
    return model, found, tmp_path / "m.safetensors"


def load(model, path):
    return masks.load(path, model.spec.linears, model.fingerprint)


def test_the_file_gives_back_the_mask(saved):
    model, found, path = saved
    again = load(model, path)
    assert (again.hash, again.eligible, dict(again.rule)) == (found.hash, found.eligible, dict(found.rule))
    assert list(again.indices) == list(found.indices)
    assert masks.share(path) == pytest.approx(0.01, rel=1e-3)


def test_other_models_and_other_files_are_refused(saved, frozen_tiny, tmp_path):
    model, _, path = saved
    with pytest.raises(UserError, match="found for another model"):
        load(frozen_tiny("opt", 4), path)
    with pytest.raises(UserError, match="There is no mask file"):
        load(model, tmp_path / "no")
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="not a mask file"):
        load(model, tmp_path / "x.safetensors")


@pytest.mark.parametrize("fault", ["unsorted", "negative", "beyond", "float", "unknown", "changed", "doubled"])
def test_a_damaged_mask_gets_a_sentence(saved, fault):
    model, _, path = saved
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    name = next(iter(tensors))
    first = tensors[name].clone()
    match fault:
        case "unsorted":
            tensors[name] = first.flip(0)
        case "negative":
            first[0] = -1
        case "beyond":
            first[-1] = 2**30
        case "float":
            tensors[name] = first.float()
        case "unknown":
            tensors["model.nothing.weight"] = tensors.pop(name)
        case "changed":
            first[-1] += 1 if int(first[-1]) + 1 < 4096 else -1
        case "doubled":
            first[1] = first[0]
    if fault in ("negative", "beyond", "changed", "doubled"):
        tensors[name] = first
    save_file(tensors, path, metadata)
    with pytest.raises(UserError, match=r"damaged mask file|does not have"):
        load(model, path)


@pytest.mark.parametrize(
    "facts",
    [{"eligible": "0"}, {"eligible": "-1"}, {"eligible": "9" * 5000}, {"eligible": "many"}, {"rule": "[]"},
     {"rule": "7"}, {"rule": "[" * 5000}, {"rule": "{"}],
)  # fmt: skip
def test_a_header_that_does_not_fit(saved, facts):
    model, found, path = saved
    metadata = {"format": "sparsezo-mask", "version": "1", "rule": "{}", "fingerprint": found.fingerprint,
                "eligible": str(found.eligible), "hash": found.hash}  # fmt: skip
    save_file(dict(found.indices), path, {**metadata, **facts})
    for read in (masks.share, lambda path: load(model, path)):
        with pytest.raises(UserError, match="damaged mask file"):
            read(path)


def test_a_number_alone_is_no_mask(saved):
    model, found, path = saved
    save_file({"x": torch.tensor(1, dtype=torch.int32)}, path, {"format": "sparsezo-mask", "version": "1",
              "rule": "{}", "eligible": "7", "fingerprint": found.fingerprint})  # fmt: skip
    assert masks.share(path) == 1 / 7
    with pytest.raises(UserError, match="does not have"):
        load(model, path)


@settings(max_examples=100)
@given(st.data())
def test_any_cut_or_flipped_byte_gets_a_sentence(saved_bytes, tmp_path_factory, data):
    model, content = saved_bytes
    path = tmp_path_factory.mktemp("m") / "m.safetensors"
    changed = bytearray(content)
    if data.draw(st.booleans()):
        changed = changed[: data.draw(st.integers(0, len(content) - 1))]
    else:
        changed[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(changed)
    try:
        found = load(model, path)
    except UserError as error:
        assert str(path) in str(error)
    else:
        assert found.size > 0  # only what the hash does not cover: the words of the rule


@pytest.fixture(scope="session")
def saved_bytes(frozen_tiny, tmp_path_factory):
    model = frozen_tiny("llama", 4)
    path = tmp_path_factory.mktemp("mask") / "m.safetensors"
    finish(Random(density=0.001).find(model, SEARCH)).save(path)
    return model, path.read_bytes()


@st.composite
def random_masks(draw):
    """A mask and the shapes of the model that it is for."""
    shapes = draw(st.dictionaries(st.text(max_size=8).filter(lambda name: name != "__metadata__"),
                                  st.tuples(st.integers(1, 6), st.integers(1, 6)), max_size=4))  # fmt: skip
    sizes = {name: rows * columns for name, (rows, columns) in shapes.items()}
    places = {name: sorted(draw(st.sets(st.integers(0, size - 1)))) for name, size in sizes.items()}
    rule = draw(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=3))
    tuned = {name: torch.tensor(indices, dtype=torch.int32) for name, indices in places.items()}
    return masks.Mask(tuned, rule, draw(st.text(max_size=8)), sum(sizes.values())), shapes


@settings(max_examples=200)
@given(random_masks())
def test_any_mask_is_the_same_after_it_was_saved(tmp_path_factory, made):
    mask, shapes = made
    path = tmp_path_factory.mktemp("mask") / "m.safetensors"
    mask.save(path)
    found = masks.load(path, shapes, mask.fingerprint)
    assert (found.hash, found.rule, found.eligible, list(found.indices)) == (
        mask.hash, mask.rule, mask.eligible, list(shapes)
    )  # fmt: skip
    assert all(torch.equal(found.indices[name], indices) for name, indices in mask.indices.items())
    assert masks.share(path) == mask.size / max(mask.eligible, 1)


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=30), min_size=1, max_size=4), st.integers(1, 40))
def test_of_equal_scores_the_first_are_taken(layers, count):
    chosen = TopK(count)
    for number, scores in enumerate(layers):
        chosen.offer(str(number), torch.tensor([scores], dtype=torch.float32))
    places = [(-score, number, index) for number, scores in enumerate(layers) for index, score in enumerate(scores)]
    expected = sorted((number, index) for _, number, index in sorted(places)[:count])
    found = [(int(name), index) for name, indices in chosen.result().items() for index in indices.tolist()]
    assert sorted(found) == expected
