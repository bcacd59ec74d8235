"""A mask is found once: what the window's Method page or an earlier run found, the next run uses."""

from __future__ import annotations

import json

import pytest

from sparsezo_gui.engine import caches, training
from sparsezo_gui.engine.data import load_rows
from sparsezo_gui.engine.data.keys import name_of
from sparsezo_gui.engine.layers.blocks import Blocks
from sparsezo_gui.engine.masks import kept
from sparsezo_gui.engine.masks.report import find_mask
from sparsezo_gui.engine.spaces import mask as masks
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import events as e
from tests.engine.conftest import finish, of
from tests.models import tiny

SENSITIVE = {"rule": "sensitive", "sequences": 2, "tokens": 32, "text": "general"}


@pytest.fixture
def chosen(make):
    return make(mask=SENSITIVE, data={"validation": 0, "test": 0}, loop={"steps": 2, "evaluate_every": 0})


@pytest.fixture
def searched(monkeypatch):
    """A number for each block that a search ran."""
    runs, original = [], Blocks.run
    monkeypatch.setattr(Blocks, "run", lambda self, number, *rest: runs.append(number) or original(self, number, *rest))
    return runs


def taken(events):
    """What was told of the mask, and the hash at the end."""
    events = list(events)
    (said,) = [each.text for each in of(e.Notice, events) if "mask" in each.text]
    return said.split(" took")[0], events[-1].hash


def test_a_run_uses_the_mask_that_was_found_before_it(chosen, tmp_path, home, searched):
    found = finish(find_mask(chosen))
    assert searched and not found.cost.kept
    searched.clear()
    said, end = taken(training.train(chosen, folder=tmp_path / "run"))
    assert said == "The mask was found before, which" and searched == []
    again = finish(find_mask(chosen))
    assert again.cost.kept and (again.cost.seconds, again.layers) == (found.cost.seconds, found.layers)
    assert [each.kind for each in caches.caches()] == ["mask"] and len(caches.remove("all")) == 1
    assert list((home / "masks").iterdir()) == []
    assert taken(training.train(chosen, folder=tmp_path / "anew")) == ("Finding the mask", end) and searched


def test_a_damaged_mask_and_another_text_are_found_anew(chosen, tmp_path, home, searched):
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat. " * 20)
    own = chosen.model_copy(update={"mask": chosen.mask.model_copy(update={"text": str(text)})})
    first = finish(find_mask(own))
    (file,) = (home / "masks").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-9])
    assert not finish(find_mask(own)).cost.kept and finish(find_mask(own)).cost.kept
    text.write_text("a good film, a dull film. " * 20)
    assert not finish(find_mask(own)).cost.kept
    assert len(list((home / "masks").glob("*.json"))) == 2 and first.tuned > 0


def test_few_are_kept_and_a_full_disk_stops_no_search(chosen, home, monkeypatch):
    monkeypatch.setattr(kept, "MOST", 2)
    for density in (0.01, 0.02, 0.03):
        finish(find_mask(chosen.model_copy(update={"mask": chosen.mask.model_copy(update={"density": density})})))
    assert len(list((home / "masks").iterdir())) == 4, "two, with what they took"

    monkeypatch.setattr(kept, "LARGEST", 100)
    large = chosen.model_copy(update={"mask": chosen.mask.model_copy(update={"density": 0.04})})
    assert [finish(find_mask(large)).cost.kept for _ in range(2)] == [False, False], "a run folder has it anyway"
    monkeypatch.setattr(kept, "LARGEST", 2**28)

    def full(*_):
        raise UserError("the disk is full")

    monkeypatch.setattr(kept.Mask, "save", full)
    assert not finish(find_mask(chosen)).cost.kept


@pytest.mark.parametrize("choice", [{"duplicates": "remove"}, {"leave_out": ()}, {"split_seed": 1}], ids=str)
def test_a_mask_on_the_examples_is_found_anew_for_other_rows(chosen, tmp_path, choice):
    rows = [{"text": f"a good film {index % 8}", "label": "yes" if index % 2 else "no"} for index in range(24)]
    (tmp_path / "all.jsonl").write_text("\n".join(map(json.dumps, rows)))
    table = chosen.data.model_copy(update={"source": str(tmp_path / "all.jsonl"), "validation": 4, "test": 4})
    mask = chosen.mask.model_copy(update={"text": "answers", "sequences": 30})
    own = chosen.model_copy(update={"data": table, "mask": mask})
    if "leave_out" in choice:
        choice = {"leave_out": (name_of(load_rows(table)["train"][0]),)}
    other = own.model_copy(update={"data": table.model_copy(update=choice)})
    assert [finish(find_mask(each)).cost.kept for each in (own, other, own, other)] == [False, False, True, True]


def test_the_overlap_with_other_kept_masks_is_counted(chosen, home):
    def found(**changes):
        return finish(find_mask(chosen.model_copy(update={"mask": chosen.mask.model_copy(update=changes)})))

    assert found(density=0.01).overlaps == ()
    (kept,) = (home / "masks").glob("*.safetensors")
    first = masks.listed(kept)
    report = found(density=0.05)
    (overlap,) = report.overlaps
    assert (overlap.rule, overlap.settings) == ("Sensitive", {"density": 0.01})
    assert overlap.tuned == found(density=0.01).tuned
    assert overlap.shared == overlap.tuned, "the most sensitive weights are among the more"
    assert overlap.share == overlap.shared / report.tuned
    assert overlap.chance == pytest.approx(0.01, rel=0.05)
    (other,) = [masks.listed(each) for each in (home / "masks").glob("*.safetensors") if each != kept]
    for name, indices in first.indices.items():
        assert set(indices.tolist()) <= set(other.indices[name].tolist())
    third = found(rule="sensitive", density=0.02, scope="row")
    assert len(third.overlaps) == 2 and all(0 < each.shared < third.tuned for each in third.overlaps)
    kept.write_bytes(kept.read_bytes()[:40])
    assert len(found(density=0.05).overlaps) == 1, "a damaged one is left out"
    assert found(density=0.01).overlaps[0].settings == {"density": 0.05}


def test_masks_of_another_model_are_not_compared(chosen, home, tmp_path):
    finish(find_mask(chosen))
    other = chosen.model_copy(update={"model": chosen.model.model_copy(update={"id": str(tiny("qwen3", tmp_path))})})
    assert finish(find_mask(other)).overlaps == () and len(list((home / "masks").glob("*.safetensors"))) == 2
