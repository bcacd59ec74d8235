"""A run whose answers end with another token than the base's texts stops there, here and in plain transformers."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from sparsezo_gui.engine.export import export_run, stops
from sparsezo_gui.engine.training import train
from tests.engine.conftest import finish
from tests.models import EOS, PAD, tiny

END = "<|endoftext|>"  # ends a turn, as <|im_end|> does where the end of a text is <|endoftext|>
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }}" + END + "\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)
FILE = "generation_config.json"


@pytest.fixture
def folder(tmp_path):
    """A model that has learned its lesson: whatever comes, it ends its turn."""
    folder = tiny("phi", tmp_path / "base")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.bias"][PAD] = 1e4
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture
def tuned(folder, make, tmp_path):
    """``tuned(task, …)``: the folder of a short run of the task on that model."""

    def run(task="chat", **more):
        turns = [{"role": "user", "content": "Is it?"}, {"role": "assistant", "content": "Yes\nit is"}]
        row = {"chat": {"messages": turns}, "pairs": {"prompt": "Is it?", "answer": "Yes"}}[task]
        (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for _ in range(6)))
        data = {"source": str(tmp_path / "rows.jsonl"), "task": task, "template": "", "columns": {}, **more}
        recipe = make(model={"id": str(folder)}, data=data, loop={"steps": 1, "evaluate_every": 0})
        list(train(recipe, folder=tmp_path / "run"))
        return tmp_path / "run"

    return run


def exported(run, out, form="hf", **more):
    return finish(export_run(run, form, out, **more))["told"]


def plain(out, length=8):
    """How many tokens plain transformers writes in answer to a question."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    turns = [{"role": "user", "content": "Is it?"}]
    ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    return model.generate(**ids, max_new_tokens=length, do_sample=False).shape[1] - ids.input_ids.shape[1]


@pytest.mark.parametrize("weights", ["original", "trained"])
def test_the_learned_end_is_added(tuned, folder, tmp_path, weights):
    run, before = tuned(), json.loads((folder / FILE).read_text())
    assert (before["eos_token_id"], plain(folder)) == (EOS, 8)
    told = exported(run, tmp_path / "out", weights=weights)
    after = json.loads((tmp_path / "out" / FILE).read_text())
    assert after == {**before, "eos_token_id": [EOS, PAD]}
    assert plain(tmp_path / "out") == 1
    assert [line for line in told if f"'{END}'" in line and "added the stop token" in line]


def test_the_file_is_made_where_the_base_has_none(tuned, folder, tmp_path):
    (folder / FILE).unlink()
    exported(tuned(), tmp_path / "out")
    config = json.loads((folder / "config.json").read_text())
    named = {name: config[name] for name in ("bos_token_id", "pad_token_id") if config.get(name) is not None}
    assert json.loads((tmp_path / "out" / FILE).read_text()) == {**named, "eos_token_id": [EOS, PAD]}
    assert plain(tmp_path / "out") == 1


def test_pairs_in_the_chat_template_learn_its_end(tuned, tmp_path):
    exported(tuned("pairs"), tmp_path / "out")
    assert json.loads((tmp_path / "out" / FILE).read_text())["eos_token_id"] == [EOS, PAD]


def test_a_base_that_stops_there_keeps_its_file(tuned, folder, tmp_path):
    (folder / FILE).write_text(f'{{"eos_token_id":[{PAD}, {EOS}],\n"temperature": 0.5}}')
    told = exported(tuned(), tmp_path / "out")
    assert (tmp_path / "out" / FILE).read_bytes() == (folder / FILE).read_bytes()
    assert not any("stop token" in line for line in told)


def test_the_end_of_a_text_is_what_plain_pairs_learn(tuned, folder, tmp_path):
    run = tuned("pairs", chat_template=False)
    exported(run, tmp_path / "out")
    assert (tmp_path / "out" / FILE).read_bytes() == (folder / FILE).read_bytes()
    (folder / FILE).write_text('{"eos_token_id": 7}')  # not the tokenizer's, which ends what is learned
    exported(run, tmp_path / "other", accept=True)
    assert json.loads((tmp_path / "other" / FILE).read_text()) == {"eos_token_id": [7, EOS]}


def test_an_overlay_says_where_to_stop(tuned, tmp_path):
    told = exported(tuned(), tmp_path / "o.safetensors", "overlay")
    assert [line for line in told if f"'{END}' (token {PAD}), which is not a stop token of the base model" in line]


def test_the_check_compares_where_texts_stop(tuned, tmp_path, monkeypatch):
    run = tuned()
    assert "6 of 6 prompts give" in exported(run, tmp_path / "out")[-1]
    monkeypatch.setattr(stops, "generation_config", lambda model: {})
    assert "0 of 6 prompts give" in exported(run, tmp_path / "other")[-1]
    assert torch.equal(*(load_file(tmp_path / name / "model.safetensors")["lm_head.bias"] for name in ("out", "other")))
