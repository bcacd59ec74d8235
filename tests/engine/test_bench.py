"""The benchmark's references compute what their papers say, and its tables come out whole."""

from __future__ import annotations

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from transformers import AutoModelForCausalLM

from sparsezo_gui import cli
from sparsezo_gui.engine import device as devices
from sparsezo_gui.engine.bench import memory as bench
from sparsezo_gui.engine.bench import references, shapes
from sparsezo_gui.engine.bench.memory import memory
from sparsezo_gui.engine.bench.steps import Load, steps
from sparsezo_gui.engine.data import load_task
from sparsezo_gui.engine.pretrained.tokenizer import load_tokenizer
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import loads
from sparsezo_gui.recipe.events import Progress
from sparsezo_gui.recipe.registry import ESTIMATORS
from tests.engine.conftest import finish

SMALL = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 4096,
         "tie_word_embeddings": True}  # fmt: skip


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(shapes.SHAPES, "small", SMALL)


@pytest.fixture
def model(tmp_path):
    return AutoModelForCausalLM.from_pretrained(finish(shapes.make("small", tmp_path / "small"))).float().eval()


EXAMPLES = [references.example(number, range(10, 15 + 3 * number)) for number in range(3)]


def test_made_models_keep_what_runs_through_them_in_bounds(model):
    logits = model(torch.arange(4, 40)[None]).logits
    assert torch.isfinite(logits).all() and 0.1 < logits.std() < 10


def test_mezo_scores_candidates_and_leaves_the_weights_where_its_update_puts_them(model):
    before = {name: value.clone() for name, value in model.named_parameters()}
    mezo = references.MeZO(model, EXAMPLES, padding=1)
    assert mezo.tokens.shape == (6, 12) and mezo.mask.sum(1).tolist() == [6, 6, 9, 9, 12, 12]
    # The loss by hand: each candidate alone, without padding.
    scores = [
        [model(torch.tensor([each.rows[0].tokens])).logits[0, -1].log_softmax(-1)[target] for target in (2, 3)]
        for each in EXAMPLES
    ]
    with torch.no_grad():
        by_hand = torch.nn.functional.cross_entropy(torch.tensor(scores), torch.tensor([0, 1, 0]))
        assert mezo._loss() == pytest.approx(by_hand.item(), rel=1e-4)
    mezo.step()
    generator, values = torch.Generator().manual_seed(1), []
    for name, parameter in model.named_parameters():
        z = torch.randn(parameter.shape, generator=generator)
        moved = parameter.data - before[name]
        values.append(((moved * z).sum() / (z * z).sum()).item())
    # Every weight moved along its z by as much as the losses at both ends say, here measured by other hands.
    ends = []
    for sign in (1, -1):
        generator = torch.Generator().manual_seed(1)
        for name, parameter in model.named_parameters():
            z = torch.randn(parameter.shape, generator=generator)
            parameter.data = before[name] + sign * references.EPSILON * z
        with torch.no_grad():
            ends.append(mezo._loss())
    expected = -references.RATE * (ends[0] - ends[1]) / (2 * references.EPSILON)
    assert len(values) > 10 and abs(expected) > 3e-9
    assert values == pytest.approx([expected] * len(values), rel=0.2, abs=3e-9)


def test_the_table_of_steps(tmp_path):
    loads = (Load("plain", (8, 8), ("plain",)), Load("mixed", (4, 9), ("mezo",)))
    rows = finish(steps(tmp_path, "small", 1, loads=loads))
    assert [(row["load"], row["against"]) for row in rows] == [
        ("64 tokens", "(drawing, update and journal alone)"),
        ("plain", "two plain forwards"), ("plain", "two plain forwards, last logits only"),
        ("mixed", "MeZO"),
    ]  # fmt: skip
    assert all(row["ratio"] == pytest.approx(row["ours_ms"] / row["theirs_ms"], rel=0.2) for row in rows)


@pytest.mark.parametrize("settings", [["estimator.directions=3"], *([f"estimator.rule={rule}"] for rule in ESTIMATORS
                                      if rule not in ("auto", ESTIMATORS.default))])  # fmt: skip
def test_steps_of_every_estimator_are_timed(tmp_path, settings):
    rows = finish(steps(tmp_path, "small", 1, settings, ["plain"], [Load("plain", (8, 8), ("plain",))]))
    assert rows[-1]["against"] == "two plain forwards, last logits only" and all(row["ours_ms"] > 0 for row in rows)


def test_an_unknown_shape(tmp_path):
    with pytest.raises(UserError, match="Unknown model shape 'smal'"):
        finish(shapes.make("smal", tmp_path))


def test_memory_can_be_cancelled_between_processes(tmp_path):
    work = memory(tmp_path, ["small"], cells=((2, 16, "answers"),))
    while not (event := next(work)).stage.endswith("formula"):
        assert isinstance(event, Progress)
    work.close()


@pytest.mark.parametrize(("width", "trained"), [(128, True), (144, False)])
def test_four_bit_weights_are_not_packed_where_that_breaks_them(tmp_path, monkeypatch, width, trained):
    """On a CPU with AVX-512 BF16 bitsandbytes did: LoRA learned nothing, and widths of no whole blocks ended it."""
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)
    monkeypatch.setitem(shapes.SHAPES, "odd", {**SMALL, "intermediate_size": width})
    folder = finish(shapes.make("odd", tmp_path / "odd"))
    model = references.load_plain(folder, torch.device("cpu"), torch.float32, trained=trained)
    layers = [layer for layer in model.modules() if isinstance(layer, Linear4bit)]
    kept = [layer for layer in layers if trained or layer.in_features == width]
    assert kept and not any(layer.support_avx512bf16_for_cpu for layer in kept)
    layer = kept[-1]
    with torch.no_grad():
        layer(torch.ones(2, layer.in_features))
    assert not getattr(layer.weight.quant_state, "packing_format_for_cpu", False)
    entered = torch.ones(1, layer.in_features, requires_grad=True)
    layer(entered).sum().backward()
    assert entered.grad.abs().sum() > 0


def test_a_cell_of_the_memory_table_is_kept(tmp_path, monkeypatch):
    monkeypatch.setitem(bench.WORK, "formula", lambda recipe: pytest.fail("is run in a process of its own"))
    monkeypatch.setattr(bench, "_apart", lambda work, recipe: {"formula": 7 * 2**20})
    kept, asked = tmp_path / "kept", {"cells": ((2, 16, "whole"),), "columns": ["formula"]}
    kept.mkdir()
    expected = [{"shape": "small", "batch": 2, "tokens": 16, "trained": "whole", "formula": 7}]
    assert finish(memory(tmp_path, ["small"], kept=kept, **asked)) == expected
    monkeypatch.setattr(bench, "_apart", lambda work, recipe: pytest.fail("measured again"))
    assert finish(memory(tmp_path, ["small"], kept=kept, **asked)) == expected


def test_the_command_line_keeps_the_cells_of_the_memory_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "_apart", lambda work, recipe: {work.__name__[1:]: 2**20, work.__name__[1:] + "_s": 0.5})
    folder = finish(shapes.make("small", tmp_path / "own"))  # a model's folder stands for a shape
    command = ["bench", "memory", "--shape", "small", str(folder), "--kept", str(tmp_path / "kept"), "--json"]
    assert cli.main(command) == 0
    first = capsys.readouterr().out
    assert (tmp_path / "kept" / "small-1-128-answers-formula.json").is_file()
    assert (tmp_path / "kept" / "own-8-1024-whole-exact.json").is_file() and '"exact_s": 0.5' in first
    monkeypatch.setattr(bench, "_apart", lambda work, recipe: pytest.fail("measured again"))
    assert cli.main(command) == 0
    assert capsys.readouterr().out == first and '"formula": 1' in first


def test_the_command_line_measures_what_it_is_asked_for(monkeypatch, capsys):
    monkeypatch.setattr(bench, "_apart", lambda work, recipe: {"exact": 3 * 2**20, "exact_s": 1.25})
    command = ["bench", "memory", "--shape", "small", "--batches", "2", "--tokens", "16", "--trained", "whole"]
    assert cli.main([*command, "--columns", "exact", "--markdown"]) == 0
    header, _, row = capsys.readouterr().out.strip().splitlines()[-3:]
    assert [cell.strip() for cell in header.split("|")[1:-1]] == [
        "shape", "batch", "tokens", "trained", "exact", "exact_s"
    ]  # fmt: skip
    assert [cell.strip() for cell in row.split("|")[1:-1]] == ["small", "2", "16", "whole", "3", "1.25"]
    assert cli.main([*command, "--columns", "exct"]) == 2
    assert "--columns exct: unknown column. Did you mean 'exact'" in capsys.readouterr().err


def test_seconds_and_peaks_of_a_text_are_those_of_work_on_all_of_it(tmp_path):
    """In this process, whose peaks are those of the tests; the figures themselves are the benchmark's."""
    place = finish(shapes.make("small", tmp_path / "small"))
    recipe = bench.recipe_of(tmp_path, place, 2, 16, "whole", ())
    for column, work in bench.WORK.items():
        if column not in ("measured", "qlora"):
            row = work(recipe)
            assert row[column] > 2**20 and isinstance(row[column], int)
            assert [each for key, each in row.items() if key.endswith("_s") and not (each >= 0)] == []
    learned = references.text(0, [5, 6, 7]).rows[0]
    assert (learned.tokens, learned.positions, learned.targets) == ((5, 6, 7), (0, 1), (6, 7))


def test_formulas_need_no_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "_apart", lambda work, recipe: work(loads(recipe)))
    monkeypatch.setattr(devices, "_program", [0])  # and not what this process of many tests takes
    (row,) = finish(memory(tmp_path, ["llama-2-7b"], cells=((16, 256, "whole"),), columns=["formula", "exact_formula"]))
    assert 4500 < row["formula"] < row["exact_formula"] < 1.1 * row["formula"] and row["exact_formula"] < 6000
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
@pytest.mark.parametrize(("examples", "labels"), [
    (EXAMPLES[:2], [[-100] * 4 + [2] + [-100] * 3, [-100] * 7 + [3]]),
    ([references.text(0, range(10, 14))], [[11, 12, 13, -100]]),
])  # fmt: skip
def test_qlora_learns_the_answer_of_a_choice_and_all_of_a_text(model, examples, labels):
    pytest.importorskip("peft")
    qlora = references.QLoRA(model, examples, checkpointing=False)
    assert qlora.labels.tolist() == labels
    qlora.step()


@pytest.mark.parametrize("scope", ["answers", "whole"])
def test_what_is_trained_of_an_example_in_the_memory_table(tmp_path, scope):
    place = finish(shapes.make("small", tmp_path / "small"))
    recipe = bench.recipe_of(tmp_path, place, 2, 16, scope, ())
    data = finish(load_task(recipe.data, load_tokenizer(place)))
    scored = {len(each.rows[0].positions) for each in data.train.encoded}
    assert max(scored) == {"answers": 2, "whole": 15}[scope] and data.longest == 15, "all but the last token go in"
