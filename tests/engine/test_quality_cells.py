"""The cells of the comparison of methods: runs, kept masks, the linear probe, LoRA, and tasks without choices."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sparsezo_gui.engine import training
from sparsezo_gui.engine.bench import linear_probe, quality, trials
from sparsezo_gui.engine.bench.contestants import LORA, PRESET, PROBE, STEPS, named, searched, settings
from sparsezo_gui.engine.bench.quality import Quality
from sparsezo_gui.engine.data.encode import Encoded, Row
from sparsezo_gui.engine.masks import kept as kept_masks
from sparsezo_gui.engine.masks.kept import KeptMasks, draws
from sparsezo_gui.engine.masks.rule import Search
from sparsezo_gui.engine.runs import journal
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import Recipe, with_settings
from sparsezo_gui.recipe import events as e
from sparsezo_gui.recipe.presets import PRESETS
from sparsezo_gui.recipe.registry import MASKS
from tests.engine.conftest import finish, of

SMALL = {"data": {"validation": 4}, "mask": {"sequences": 2, "tokens": 32, "rule": "sensitive", "density": 0.01}}


@pytest.fixture
def make(make):
    """As elsewhere, with the usual schedule, which belongs to the compared methods."""
    return lambda **tables: make(**{"update": {"schedule": "linear"}, **tables})


def compared(make, folder, *methods, seeds=1, **tables):
    base = make(**(SMALL | tables))
    return Quality(base, {"tiny": ()}, methods, seeds, 12, folder, search=False)


def cells_of(found):
    """The cells of a comparison by method, once it is measured."""
    finish(found.run())
    return {cell["method"]: cell for cell in found.cells if "method" in cell}


def test_presets_are_compared_as_they_are():
    assert named(["default", "exact:60", "exact-half", "lora"], []) == [
        "default:1500", "exact:60", "exact-half:100", "lora",
    ]  # fmt: skip
    assert named(["exact", "exact@0.5:7", "exact-half"], ["0.1", "0.2"]) == [
        "exact@0.1:100", "exact@0.2:100", "exact@0.5:7", "exact-half:100",
    ]  # fmt: skip
    assert with_settings(Recipe(), settings("default:300")) == Recipe()
    for name, title in PRESET.items():
        (preset,) = (each for each in PRESETS if each.title == title)
        tables = with_settings(Recipe(), settings(name)).model_dump(mode="json")
        assert all(tables[table].items() >= values.items() for table, values in preset.settings.items())
    assert not any(map(searched, (*STEPS, PROBE, "untuned"))) and searched("random@0.1:5") and searched(LORA)


@pytest.mark.parametrize("wrong", ["default:0", "default:x", "lora:", "untuned:3", "linear-probe:9"])
def test_wrong_steps_are_told(wrong):
    with pytest.raises(UserError, match="write steps as a whole number above 0"):
        settings(wrong)


def test_a_name_may_choose_the_tuned_blocks(make, tmp_path):
    names = ["exact/half:100", "gradient-subspace/quarter", "exact-half/3", "random/all@0.2:5", "sensitive/half"]
    full = ["exact/half:100", "gradient-subspace/quarter:250", "exact-half/3:100", "random/all@0.2:5", "sensitive/half"]
    assert named(names, []) == full
    assert named(["exact/half", "lora"], ["0.1"]) == ["exact/half@0.1:100", "lora"]
    masks = [with_settings(Recipe(), settings(name)).mask for name in full]
    assert [mask.blocks for mask in masks] == ["half", "quarter", "3", "all", "half"]
    assert masks[3].density == 0.2 and masks[2].rule == "lora"
    plain, *others = (
        compared(make, tmp_path, name)._key("tiny", name)["base"]
        for name in ("gradient-subspace:250", "gradient-subspace/half:250", "gradient-subspace/quarter:250")
    )
    assert len({plain, *others}) == 3


def test_the_keys_of_kept_cells_do_not_change(tmp_path):
    base = with_settings(Recipe(), ["model.id=m", "data.validation=4", "data.test=4"])
    found = Quality(base, {"t": ()}, ("random@0.05:6", "untuned", "sensitive@0.1"), 1, 12, tmp_path)
    assert [found._key("t", name)["base"] for name in found.methods] == ["87acece19f95", "d7ec9672ffb4", "773e5d2eef43"]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [(f"{name}/half", f"'{name}' has no mask") for name in ("untuned", "linear-probe", "lora")]
    + [(name, "write blocks as all, half") for name in ("exact/", "exact/third", "exact/0", "exact/half/2")]
    + [("random@0.1/half", "density")],
)
def test_wrong_blocks_are_told(make, tmp_path, wrong, told):
    with pytest.raises(UserError, match=told):
        compared(make, tmp_path, wrong)


def test_of_what_users_get_another_usual_rate_is_another_cell(make, tmp_path, monkeypatch):
    found = compared(make, tmp_path, "default", "random")
    before = [found._key("tiny", name)["base"] for name in found.methods]
    monkeypatch.setattr(Quality, "_usual", lambda *_: 0.125)
    after = [found._key("tiny", name)["base"] for name in found.methods]
    assert before[0] != after[0] and before[1] == after[1]
    assert [found._key("tiny", name)["forwards"] for name in found.methods] == [3000, 12]


def test_cells_hold_what_both_kinds_of_tables_need(make, tmp_path):
    cells = cells_of(compared(make, tmp_path, "untuned", "default:4", "exact:2"))
    for name, passes in (("default:4", 8), ("exact:2", 6)):
        cell = cells[name]
        assert (cell["passes"], cell["forwards"]) == (passes, passes)
        assert cell["final"] == pytest.approx(cell["scores"].count("1") / 8)
        assert (cell["base_final"], cell["base_scores"]) == (cells["untuned"]["final"], cells["untuned"]["scores"])
        assert [point[0] for point in cell["curve"]][:: len(cell["curve"]) - 1] == [0, passes]
        assert list(cell["curve"][-1][2:]) == [
            cell["seconds"],
            cell["validation_loss"],
            passes // (2 if passes == 8 else 3),
        ]
        assert cell["peak_memory_mib"] > 0 and cell["mask_seconds"] >= 0
    assert len(list((tmp_path / "masks").glob("*.safetensors"))) == 2, "the preset's density is another one here"
    assert not list((tmp_path / "runs").iterdir())


def test_a_mask_of_two_methods_is_found_once(make, tmp_path):
    cells = cells_of(compared(make, tmp_path, "default:4", "default:6"))
    assert cells["default:4"]["mask_seconds"] == cells["default:6"]["mask_seconds"]
    assert len(list((tmp_path / "masks").glob("*.safetensors"))) == 1


def test_what_finding_the_rate_takes_is_counted(make, tmp_path):
    cell = cells_of(compared(make, tmp_path, "default:300"))["default:300"]
    assert cell["rate_seconds"] > 0 and cell["passes"] > 600 == cell["forwards"]
    assert [point[0] - cell["curve"][0][0] for point in cell["curve"]] == list(range(0, 601, 60))
    assert cell["curve"][-1][0] == cell["passes"] and cell["general_text"] is not None


def test_what_a_mask_takes_of_the_runs_own_examples_is_counted(make, tmp_path):
    cells = cells_of(compared(make, tmp_path, "gradient-subspace:2", "exact:2"))
    gradients = 3 * 24 // 4  # a forward pass, each block once more, and a backward pass, in batches of 4
    assert cells["gradient-subspace:2"]["passes"] == gradients + 4 and cells["exact:2"]["passes"] == 6
    assert cells["gradient-subspace:2"]["curve"][0][0] == gradients, "before the first step"


@pytest.mark.parametrize("rule", ["weight-activation", "sensitive", "activation-subspace"])
def test_the_text_of_a_mask_counts_as_often_as_it_is_read(rule, frozen_tiny, make):
    model, recipe = frozen_tiny("llama"), make()
    own, general = (
        MASKS.build({"rule": rule, "sequences": 2, "tokens": 32, "text": text}) for text in ("answers", "general")
    )
    search = Search(0, recipe.data)
    read = [sum(len(each.tokens) for each in rule.passages(model, search)[0]) for rule in (own, general)]
    times = {"weight-activation": 1, "sensitive": 4, "activation-subspace": 3}[rule]
    assert [own.work(model, search, True), general.work(model, search)] == [times * tokens for tokens in read]
    assert general.work(model, search, own=True) == 0


def test_the_untuned_model_is_measured_once(make, tmp_path, monkeypatch):
    measured = []

    def once(recipe):
        measured.append(recipe.model.bits)
        yield e.Notice("")
        return {"final": 0.5, "loss": 1.0, "scores": "01"}

    def run(recipe, folder):
        yield e.Notice("")
        return {"final": 1.0, "scores": "11", "validation_loss": 1.0, "curve": [], "tuned": 1, "rate": 1.0}

    monkeypatch.setattr(quality, "untuned", once)
    monkeypatch.setattr(quality, "tuned", run)
    cells = cells_of(compared(make, tmp_path, "random", "untuned", "mezo", "exact", seeds=3))
    assert measured == [4, 32], "MeZO's base has 32 bits"
    assert cells["mezo"]["base_scores"] == "01"


def test_all_of_one_seed_before_the_next(make, tmp_path, monkeypatch):
    def run(recipe, folder):
        yield e.Notice("")
        return {"final": 1.0, "validation_loss": 1.0, "curve": [], "tuned": 1, "rate": 1.0}

    monkeypatch.setattr(quality, "untuned", run)
    monkeypatch.setattr(quality, "untuned", lambda recipe: run(recipe, None))
    monkeypatch.setattr(quality, "tuned", run)
    found = compared(make, tmp_path, "untuned", "random", "mezo", seeds=2)
    finish(found.run())
    order = [(cell["seed"], cell["method"]) for cell in found.cells if "method" in cell]
    assert order == [(0, "untuned"), (0, "random"), (0, "mezo"), (1, "random"), (1, "mezo")]


def test_an_interrupted_run_resumes_where_it_stopped(make, tmp_path):
    whole = cells_of(compared(make, tmp_path / "whole", "default:6"))["default:6"]
    work = compared(make, tmp_path / "parts", "default:6").run()
    for event in work:
        if isinstance(event, e.Progress) and event.stage == "Tuning" and event.done == 3:
            break
    work.close()
    found = compared(make, tmp_path / "parts", "default:6")
    events = []
    with pytest.raises(StopIteration):
        work = found.run()
        while True:
            events.append(next(work))
    assert [event.done for event in of(e.Progress, events) if event.stage == "Tuning"] == [4, 5, 6]
    cell = found.cells[-1]
    same = ("final", "scores", "loss", "best", "steps", "passes", "validation_loss")
    assert {key: cell[key] for key in same} == {key: whole[key] for key in same}


def test_test_examples_are_not_seen_in_a_run(make, tmp_path):
    events = list(training.train(make(**SMALL), folder=tmp_path / "run", splits=("validation",)))
    assert {event.split for event in of(e.Evaluation, events)} == {"validation"}


def test_a_run_with_a_kept_mask_is_the_run_that_searches(make, tmp_path, monkeypatch):
    recipe, hashes = make(**SMALL), []
    find = KeptMasks(tmp_path / "masks", recipe.model).find
    for number, how in enumerate(({}, {"find": find}, {"find": find})):
        if number == 2:
            monkeypatch.setattr(kept_masks, "find_measured", lambda *_: pytest.fail("searched again"))
        hashes += [event.hash for event in of(e.Finished, training.train(recipe, folder=tmp_path / f"{number}", **how))]
    assert len(set(hashes)) == 1 == len(hashes) - 2
    facts = [json.loads((tmp_path / name / "run.json").read_text())["mask_seconds"] for name in "12"]
    assert facts[0] == facts[1]


@pytest.mark.parametrize("name", list(MASKS))
def test_masks_that_do_not_draw_are_the_same_for_every_seed(name, frozen_tiny, make):
    model, recipe = frozen_tiny("llama", 32), make()
    tables = {"rule": name, "sequences": 2, "tokens": 32, "threshold": 1.5}
    known = {key: value for key, value in tables.items() if key in MASKS[name].model_fields}
    rule = MASKS.build(known)
    if not rule.cost() or name == "saved":
        pytest.skip("never kept")
    found = {finish(rule.find(model, Search(seed, recipe.data))).hash for seed in (0, 1)}
    assert len(found) == 1 or draws(rule)


def test_other_models_settings_and_data_have_masks_of_their_own(frozen_tiny, make, tmp_path):
    model, recipe = frozen_tiny("llama"), make(**SMALL)
    kept, other = KeptMasks(tmp_path, recipe.model), KeptMasks(tmp_path, recipe.model.model_copy(update={"block": 64}))
    rule, search = recipe.mask, Search(0, recipe.data)
    key = kept._key(rule, model, search)
    assert kept._key(rule, model, Search(1, recipe.data)) == key
    shorter = Search(0, recipe.data.model_copy(update={"train": 5}))
    assert kept._key(rule, model, shorter) == key
    reading = rule.model_copy(update={"text": "answers"})
    asked = Search(0, recipe.data.model_copy(update={"template": "{{ text }} or is it not?"}))
    assert len({key, other._key(rule, model, search), kept._key(reading, model, search),
                kept._key(reading, model, asked),
                kept._key(rule.model_copy(update={"density": 0.02}), model, search)}) == 5  # fmt: skip


def test_steps_that_were_taken_back_are_counted():
    records = np.zeros(6, journal.record_dtype(1))
    records["step"], records["kind"] = [1, 2, 3, 1, 2, 3], [0, 0, 0, 1, 0, 0]
    taken = np.append(0, np.cumsum(records["kind"] == journal.STEP))
    assert [int(taken[trials._place(records, step)]) for step in (0, 1, 2, 3)] == [0, 3, 4, 5]


def test_hidden_states_are_those_at_the_end_of_the_prompt(frozen_tiny):
    for family in ("llama", "gpt2"):
        model = frozen_tiny(family)
        prompts = [(5, 6, 7, 8, 9), (5, 6, 7), (9, 4, 4, 4, 4, 4, 4), (3,)]
        examples = [Encoded((Row(each, (0,), (1,), (0,)),), 2, 0, each, (), 0) for each in prompts]
        found = linear_probe.hidden_states(model, examples)
        for row, prompt in zip(found, prompts, strict=True):
            with torch.no_grad():
                logits = model.module(input_ids=torch.tensor([prompt]), use_cache=False).logits[0, -1]
                head = model.module.get_output_embeddings()(row.float())
            torch.testing.assert_close(head, logits, rtol=1e-3, atol=1e-4)


def test_the_probe_is_where_the_penalised_loss_is_lowest():
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(60, 5, generator=generator, dtype=torch.float64)
    labels = (states[:, 0] + 0.5 * torch.randn(60, generator=generator, dtype=torch.float64) > 0).long()
    weights = linear_probe.fit(states, labels, 3, 0.1)
    inputs = torch.cat([states, torch.ones(60, 1, dtype=torch.float64)], dim=1)
    errors = (inputs @ weights).softmax(dim=1) - F.one_hot(labels, 3)
    slope = inputs.T @ errors / 60 + 0.1 * torch.cat([weights[:-1], torch.zeros(1, 3, dtype=torch.float64)])
    assert slope.abs().max() < 1e-6 and weights[0, 1] - weights[0, 0] > 0.5


def test_a_probe_learns_what_the_prompt_says(make, tmp_path):
    cells = cells_of(compared(make, tmp_path, "linear-probe", "untuned", seeds=2))
    cell = cells["linear-probe"]
    assert cell["scores"].count("1") == round(8 * cell["final"]) and cell["base_scores"] == cells["untuned"]["scores"]
    assert (cell["seed"], cell["passes"], cell["forwards"]) == (0, 6, 0)
    again = compared(make, tmp_path, "linear-probe", seeds=2)
    assert not of(e.Notice, list(again.run()))


def test_there_is_no_probe_where_candidates_differ_from_row_to_row(tmp_path, make):
    takes = [
        Quality(make(), {"tiny": (f"data.task={task}",)}, ("linear-probe",), 1, 12, tmp_path)._takes(PROBE, "tiny", 0)
        for task in ("choice", "sst2", "copa", "record", "squad")
    ]
    assert takes == [True, True, False, False, False]


@pytest.fixture
def questions(tmp_path):
    """Settings of a task with written answers."""
    rows = [{"context": f"It is {i}.", "question": "What is it?", "answer": f"a {i}"} for i in range(30)]
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = json.dumps(str(tmp_path / "questions.jsonl"))
    return (f"data.source={source}", "data.task=squad", 'data.template=""', "data.columns={}", "data.train=8",
            "data.validation=3", "data.test=5", "data.max_tokens=64")  # fmt: skip


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
def test_written_answers_are_judged_by_their_own_metric(make, tmp_path, questions):
    pytest.importorskip("peft")
    found = Quality(make(**SMALL), {"asked": questions}, ("default:2", "lora:2"), 1, 12, tmp_path, search=False)
    for cell in cells_of(found).values():
        assert cell["metric"] == "f1" and len(cell["scores"]) == len(cell["base_scores"]) == 5
        assert cell["final"] == pytest.approx(sum(map(float, cell["scores"])) / 5, abs=1e-4)
        assert len(cell["samples"]) == len(cell["base_samples"]) == 3
        assert all(sample["expected"].startswith("a ") for sample in cell["samples"])


def test_text_is_judged_by_its_loss(make, tmp_path):
    (tmp_path / "text.jsonl").write_text("\n".join(json.dumps({"text": f"some words {i}"}) for i in range(30)))
    source = json.dumps(str(tmp_path / "text.jsonl"))
    task = (f"data.source={source}", "data.task=text", 'data.template=""', "data.columns={}", "data.train=8",
            "data.validation=3", "data.test=5")  # fmt: skip
    cell = cells_of(Quality(make(**SMALL), {"text": task}, ("default:2",), 1, 12, tmp_path, search=False))["default:2"]
    assert cell["metric"] == "perplexity" and "samples" not in cell
    assert cell["final"] == pytest.approx(np.exp(cell["loss"])) and len(cell["base_scores"]) == 5


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
def test_lora_begins_at_the_base_and_learns(make, tmp_path):
    pytest.importorskip("peft")
    found = compared(make, tmp_path, "lora:8", model={"bits": 32})
    cell = cells_of(found)["lora:8"]
    data = compared(make, tmp_path, "untuned", model={"bits": 16})
    untuned = cells_of(data)["untuned"]
    assert cell["base_loss"] == pytest.approx(untuned["loss"], rel=1e-3) and cell["base_scores"] == untuned["scores"]
    assert cell["curve"][-1][1:] and cell["curve"][-1][3] < cell["base_loss"]
    assert (cell["passes"], cell["steps"], cell["forwards"]) == (24, 8, 24) and cell["peak_memory_mib"] > 0
