"""Masks in numbers, against counts made another way; and what every rule says of itself."""

from __future__ import annotations

import pytest

from sparsezo_gui.answers import Cost
from sparsezo_gui.engine.masks.all import All
from sparsezo_gui.engine.masks.multi_task import MultiTask
from sparsezo_gui.engine.masks.outliers import OutlierChannels
from sparsezo_gui.engine.masks.random import Random
from sparsezo_gui.engine.masks.report import find_mask, report
from sparsezo_gui.engine.masks.rows import Rows
from sparsezo_gui.engine.masks.rule import Search
from sparsezo_gui.engine.masks.saved import Saved
from sparsezo_gui.engine.masks.sensitive import Sensitive
from sparsezo_gui.engine.spaces.mask import Mask
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe.recipe import DataTable
from sparsezo_gui.recipe.registry import MASKS
from tests.engine.conftest import finish
from tests.models import FAMILIES, tiny


@pytest.mark.parametrize("family", FAMILIES)
def test_every_weight_is_counted_once_by_block_and_once_by_kind(frozen_tiny, family):
    model = frozen_tiny(family, 4)
    mask = finish(Random(density=0.01).find(model, Search(0, DataTable())))
    told = report(mask, model.spec, Cost(1.5, 0))
    assert (told.tuned, told.eligible, told.cost.seconds) == (mask.size, model.spec.eligible, 1.5)
    assert [layer.label for layer in told.layers] == [str(i) for i in range(model.spec.layers)]
    for tallies in (told.layers, told.kinds):
        assert sum(tally.tuned for tally in tallies) == told.tuned
        assert sum(tally.weights for tally in tallies) == told.eligible
    first = {name: found for name, found in mask.indices.items() if name.startswith(f"{model.spec.blocks}.0.")}
    assert told.layers[0].tuned == sum(map(len, first.values()))


def test_what_is_not_tuned_is_told_too(frozen_tiny):
    model = frozen_tiny("llama", 4)
    told = report(Mask({}, {}, model.fingerprint, model.spec.eligible), model.spec, Cost(0.0, 0))
    assert [kind.label for kind in told.kinds] == [
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    ]  # fmt: skip
    assert {kind.tuned for kind in told.kinds} == {0}
    whole = report(finish(All().find(model, Search(0, DataTable()))), model.spec, Cost(0.0, 0))
    assert all(layer.tuned == layer.weights for layer in whole.layers)


def test_the_reports_mask_is_the_runs(tmp_path, frozen_tiny):
    model = frozen_tiny("llama", 4)
    folder = tiny("llama", tmp_path / "llama")
    rule = {"rule": "random", "density": 0.05}
    recipe = Recipe(model={"id": str(folder), "device": "cpu"}, mask=rule, loop={"seed": 3})
    mask = finish(recipe.mask.find(model, Search(3, recipe.data)))
    told = finish(find_mask(recipe))
    assert told.layers == report(mask, model.spec, Cost(0.0, 0)).layers
    assert told.cost.seconds > 0 and told.cost.bytes > 1e8
    begun = find_mask(recipe)
    assert next(begun).stage
    begun.close()


@pytest.mark.parametrize("rule", list(MASKS))
def test_every_rule_tells_its_source_and_cost(rule):
    made = MASKS[rule]()
    assert made.source().endswith(".")
    assert made.cost().endswith(".") or (rule in ("all", "random-layers") and not made.cost())


def test_the_source_names_the_text_or_the_file():
    assert Sensitive().source() == "Found on the bundled general text: at most 32 sequences of up to 512 tokens."
    assert "your training examples" in Sensitive(text="task").source()
    assert "the answers of your training" in Sensitive(text="answers").source()
    assert "the bundled general text and notes.txt" in MultiTask(texts=("general", "notes.txt")).source()
    assert "without data" in Rows().source()
    assert "activation on the bundled general" in Rows(score="weight-activation").source()
    assert "All linear weights of the first block" in OutlierChannels(what="block").source()
    assert "Found on notes.txt" in Sensitive(text="notes.txt").source()
    assert "About 64 forward and backward passes" in Sensitive(sequences=64).cost()
    assert Saved(file="m.safetensors").source() == "Read from m.safetensors."
