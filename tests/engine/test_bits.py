"""What fewer bits cost: the table against whole runs of the program's own parts."""

from __future__ import annotations

import json
import math
import statistics

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sparsezo_gui import cli
from sparsezo_gui.engine import frozen
from sparsezo_gui.engine.bench.bits import SEQUENCES, TOKENS, WAYS, bits
from sparsezo_gui.engine.data import load_task, passages
from sparsezo_gui.engine.evaluate import evaluate
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import with_settings
from tests.engine.conftest import finish
from tests.models import tiny


@pytest.fixture
def make(make, tmp_path):
    """The same, of a model whose checkpoint is in 16 bits."""
    tiny("llama", tmp_path / "llama", dtype="bfloat16")
    return make


def test_the_table(make, tmp_path):
    """Losses are those of models that are loaded so, and bits those that each way has by its definition."""
    recipe = make()
    found = finish(bits(recipe, str(tmp_path / "train.jsonl"), densities=["0.05"], repeats=1))
    rows = {row["held"]: row for row in found}
    assert list(rows) == [*WAYS, f"{[*WAYS][-1]}, 0.05 whole"]
    for number, block, held in ((16, 32, "16 bits"), (8, 32, "8 bits"), (4, 64, "NF4, 64"), (4, 32, "NF4, 32 in 16")):
        chosen = with_settings(recipe, [f"model.bits={number}", f"model.block={block}"])
        model = finish(frozen.load(chosen.model))
        data = finish(load_task(chosen.data, model.tokenizer))
        found = finish(evaluate(model, data.validation.encoded, "validation")).metrics
        assert rows[held]["loss"] == round(found["loss"], 3) and rows[held]["accuracy"] == 100 * found["accuracy"]
        held_bytes = sum(layer.frozen.nbytes for layer in model.layers.values())
        assert rows[held]["bits"] == round(8 * held_bytes / model.spec.eligible, 3)
    assert [rows[held]["bits"] for held in WAYS if held != "8 bits"] == [16, 4.5, 5, 4.25, 4.5, 4.5]
    assert rows["16 bits"]["cost"] == "+0.000 ± 0.000" and rows["NF4, 64"]["time"] == 1
    assert rows["NF4, 32 in 16, 0.05 whole"]["bits"] == pytest.approx(4.5 + 0.05 * 64, abs=0.01)


def test_the_text_is_every_token_predicted(make, tmp_path):
    """The perplexity is that of transformers' own loss."""
    recipe = make()
    text = str(tmp_path / "train.jsonl")
    [row] = finish(bits(recipe, text, ["16 bits"], repeats=1))
    model = AutoModelForCausalLM.from_pretrained(recipe.model.id, dtype=torch.float32)
    read = passages(text, AutoTokenizer.from_pretrained(recipe.model.id), SEQUENCES, TOKENS)
    losses = [model(tokens, labels=tokens).loss.item() for each in read for tokens in [torch.tensor([each.tokens])]]
    assert row["perplexity"] == pytest.approx(math.exp(statistics.mean(losses)), rel=1e-3)


def test_what_cannot_be_compared(make, tmp_path):
    with pytest.raises(UserError, match="no validation examples"):
        finish(bits(make(data={"validation": 0})))


def test_on_the_command_line(make, tmp_path, capsys):
    model = make().model.id
    data = tmp_path / "sst2.jsonl"
    data.write_text("\n".join(json.dumps({"sentence": f"film {i}", "label": i % 2}) for i in range(40)))
    command = ["bench", "bits", "--set", f"model.id={model}", "--text", str(tmp_path / "train.jsonl"), "--json"]
    ways = ["--ways", "NF4, 64", "NF4, 32 in 16"]
    assert cli.main([*command, "--tasks", f"sst2={data}", *ways]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["held"] for row in rows] == ["16 bits", "NF4, 64", "NF4, 32 in 16"]
    assert cli.main([*command, "--tasks", "a=b", "c=d"]) == 2 and "one task at a time" in capsys.readouterr().err
    assert cli.main([*command, "--ways", "NF4"]) == 2 and "unknown number format" in capsys.readouterr().err
