"""Directions from the gradients of groups of examples: slopes by finite differences, and what their span promises."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sparsezo_gui.engine import data
from sparsezo_gui.engine.data import answered
from sparsezo_gui.engine.masks.gradient_subspace import GradientSubspace, answer, dual
from sparsezo_gui.engine.masks.kept import find_once
from sparsezo_gui.engine.masks.rule import Search
from sparsezo_gui.engine.masks.saved import Saved
from sparsezo_gui.engine.spaces.mask import load
from sparsezo_gui.engine.spaces.values import tuned_values
from sparsezo_gui.engine.zo.generator import Source
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import Recipe, build
from sparsezo_gui.recipe.recipe import DataTable, ModelTable
from sparsezo_gui.recipe.registry import ESTIMATORS
from sparsezo_gui.work import finish
from tests.models import FAMILIES

RULE = GradientSubspace(density=0.01, sequences=2, tokens=24, directions=3, examples=12)
SPACE = {"rule": "gradient-subspace"}


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(f'{{"text": "{word} {number}", "label": "{word}"}}'
                              for number in range(8) for word in ("no", "maybe", "yes")))  # fmt: skip
    return DataTable(source=str(path), template="{{ text }} is", columns={"answer": "label"}, validation=0, test=0)


def test_without_a_density_small_models_tune_more_of_their_weights(frozen_tiny):
    spec = frozen_tiny("llama", 32).spec

    def share(eligible, **density):
        return GradientSubspace(**density).share(replace(spec, eligible=eligible))

    assert share(1_000_000) == 0.01, "a small part, even if 32 768 weights are more"
    assert share(8_192_000) == 0.004, "as many as 32 768 weights"
    assert share(7_000_000_000) == share(32_768_000) == 0.001
    assert share(1_000_000, density=0.0001) == 0.0001
    tuned = GradientSubspace().tuned(spec)
    assert tuned == round(0.01 * spec.eligible)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_direction_changes_the_loss_of_its_own_group_alone(frozen_tiny, table, family):
    model = frozen_tiny(family, 32)
    tuned = tuned_values(model, finish(RULE.find(model, Search(0, table))))
    examples, likelihood = sorted(answered(table, model.tokenizer, 12), key=answer), Recipe().objective
    groups = [examples[:4], examples[4:8], examples[8:]]
    assert len(tuned.basis) == 3 and len({each.label for each in groups[0]}) < 3, "the same answers are together"

    def losses(direction):
        with tuned.applied((tuned.start + direction)[None]), torch.no_grad():
            return torch.stack([likelihood.measure(model, group).loss.double().squeeze() for group in groups])

    slopes = torch.stack([(losses(1e-3 * row) - losses(-1e-3 * row)) / 2e-3 for row in tuned.basis])
    own = slopes.diag()
    assert (own > 0).all(), "a step against the slope lowers the loss"
    assert (slopes - own.diag()).abs().max() < 0.03 * own.min()


def test_the_dual_basis_in_closed_form():
    gradients = torch.tensor([[3.0, 0.0, 0.0], [4.0, 4.0, 0.0]])  # of lengths one: (1, 0, 0) and (√½, √½, 0)
    expected = torch.tensor([[1.0, -1.0, 0.0], [0.0, 2**0.5, 0.0]]) * (3 / 4) ** 0.5
    assert torch.allclose(dual(gradients), expected, atol=1e-6)
    same = dual(torch.ones(3, 5))  # of groups with the same gradient, one direction is left
    assert torch.allclose(same, same[0].expand(3, 5), atol=1e-6) and torch.allclose(same.norm(), torch.tensor(5**0.5))
    assert not dual(torch.zeros(2, 4)).any()


@pytest.mark.parametrize("rule", ["two-sided", "fzoo", "grzo"])
def test_steps_stay_in_the_span_and_are_as_long_as_others(frozen_tiny, table, rule):
    model = frozen_tiny("llama", 32)
    tuned = tuned_values(model, finish(RULE.find(model, Search(0, table))))
    estimator, count = ESTIMATORS[rule](), tuned.values.numel()
    source = Source(3, 1, count)
    drawn = tuned.shape(estimator, tuned.draw(estimator, source, 4), 1, None)
    numbers = estimator.draw(replace(source, size=3), 4)
    assert drawn.shape == (len(numbers), count)
    assert torch.allclose(drawn, numbers @ tuned.basis, atol=1e-5)
    assert tuned.basis.double().square().sum() == pytest.approx(count, rel=1e-5)
    assert tuned.freedom == 3


def test_its_file_holds_entries_and_basis(frozen_tiny, table, tmp_path):
    model = frozen_tiny("llama", 32)
    mask = finish(RULE.find(model, Search(0, table)))
    mask.save(tmp_path / "mask.safetensors")
    found = load(tmp_path / "mask.safetensors", model.spec.linears, model.fingerprint)
    assert found.hash == mask.hash != replace(mask, parts={"basis": mask.parts["basis"] * 2}).hash
    assert torch.equal(found.parts["basis"], mask.parts["basis"]) and found.size == mask.size == RULE.tuned(model.spec)
    with pytest.raises(UserError, match="does not list entries"):
        finish(Saved(file=str(tmp_path / "mask.safetensors")).find(model, Search(0, table)))
    for wrong in ({}, {"basis": torch.zeros(2, mask.size + 1)}, {"basis": torch.zeros(mask.size)},
                  {"basis": torch.zeros(0, mask.size)}):  # fmt: skip
        with pytest.raises(UserError, match="no basis for its directions"):
            tuned_values(model, replace(mask, parts=wrong))


def test_what_it_does_not_go_with():
    with pytest.raises(UserError, match=r"'curvzo' chooses single weights.*Set \[estimator\] rule = 'two-sided'"):
        build({"mask": SPACE, "estimator": {"rule": "curvzo"}})
    with pytest.raises(UserError, match=r"chooses weights from them. Set \[mask\] rule = 'sensitive'"):
        build({"mask": SPACE, "privacy": {"rule": "gaussian"}, "update": {"learning_rate": 1e-3},
               "data": {"answers": ["yes", "no"]}})  # fmt: skip


def test_counted_objectives_are_tuned_along_gradients_of_the_likelihood():
    recipe = build({"mask": SPACE, "objective": {"rule": "accuracy"}})
    assert recipe.mask.reads_task and not recipe.estimator.backwards


def test_a_kept_mask_is_for_its_examples_alone(frozen_tiny, table, home):
    model, rows = frozen_tiny("llama", 32), Path(table.source)

    def kept():
        return finish(find_once(RULE, model, Search(0, table), ModelTable(id="tiny")))[1].kept

    assert not kept() and kept()
    rows.write_text(rows.read_text().replace("yes", "perhaps"))
    assert not kept()


def test_text_and_examples_are_read_once(frozen_tiny, table, home, monkeypatch):
    read = []

    def counted(name, original):
        monkeypatch.setattr(data, name, lambda *given: read.append(name) or original(*given))

    counted("answered", data.answered)
    counted("passages", data.passages)
    finish(find_once(RULE, frozen_tiny("llama", 32), Search(0, table), ModelTable(id="tiny")))
    assert sorted(read) == ["answered", "passages"]
