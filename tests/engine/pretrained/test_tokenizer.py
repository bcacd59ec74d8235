"""Tokenizers and models of strangers: what would break the program or a run is told before it begins."""

from __future__ import annotations

import gc
import json
import os
import shutil
import weakref

import pytest
import torch
from safetensors.torch import load_file, save_file

from sparsezo_gui import resources
from sparsezo_gui.engine import frozen, known, planning
from sparsezo_gui.engine.data.encode import encode_text
from sparsezo_gui.engine.data.prompts import EncodedPrompt
from sparsezo_gui.engine.data.tokenise import prompt_tokens, text_of
from sparsezo_gui.engine.generate import continuation
from sparsezo_gui.engine.pretrained import tokenizer
from sparsezo_gui.engine.pretrained.tokenizer import load_tokenizer
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe.recipe import ModelTable
from sparsezo_gui.work import finish
from tests.models import EOS, VOCABULARY, tiny

AGAIN = {
    "type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}] * 5000,
    "pair": [{"Sequence": {"id": name, "type_id": 0}} for name in "AB"], "special_tokens": {},
}  # fmt: skip
WAITING = [{"type": "Replace", "pattern": {"String": "☃"}, "content": "☃☃"}] * 8
SEEING = [{"type": "Replace", "pattern": {"Regex": "(?=☃)"}, "content": "☃"}] * 8
TIMES = r"this tokenizer cannot be loaded \(it can make a text 2.6e\+02 times longer"
ABORTS = '{"type":"Sequence","normalizers":[' * 3000 + '{"type":"NFC"}' + "]}" * 3000


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return tiny("llama", tmp_path_factory.mktemp("tokenizer") / "llama", num_hidden_layers=1)


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "model")


def change(path, **fields):
    path.write_text(json.dumps({**(json.loads(path.read_text()) if path.exists() else {}), **fields}))


def load(folder, **fields):
    return finish(frozen.load(ModelTable(id=str(folder), device="cpu", **fields)))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"post_processor": AGAIN}, r"takes more than 20\d MiB of memory"),
        ({"normalizer": {"type": "Sequence", "normalizers": WAITING}}, TIMES),
        ({"normalizer": {"type": "Sequence", "normalizers": SEEING}}, TIMES),
        ({"decoder": {"type": "Sequence", "decoders": WAITING}}, TIMES),
        (ABORTS, "this tokenizer cannot be loaded"),
        ("[" * 100_000, "this tokenizer cannot be loaded"),
        ("{}", "this tokenizer cannot be loaded"),
    ],
    ids=["again", "waits", "waits for a place", "waits in what is written", "nested", "brackets", "empty"],
)
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.1.0.json"])
def test_a_tokenizer_that_breaks_its_library_breaks_a_child(folder, home, content, sentence, name):
    path = folder / name
    if isinstance(content, dict):
        content = json.dumps({**json.loads((folder / "tokenizer.json").read_text()), **content})
    path.write_text(content)
    with pytest.raises(UserError, match=f"{name}: {sentence}.*Download or copy the model again"):
        load_tokenizer(folder)
    assert not (home / "tokenizers").exists()


@pytest.mark.parametrize("kind", ["normalizer", "decoder"])
def test_a_tokenizer_that_breaks_down_on_some_texts_is_a_sentence(folder, kind):
    endless = {"type": "Replace", "pattern": {"Regex": "(a|aa|a?a)+☃$"}, "content": "b"}
    fused = {"type": "Sequence", "decoders": [{"type": "Fuse"}, endless]}
    change(folder / "tokenizer.json", **{kind: fused if kind == "decoder" else endless})
    found = load_tokenizer(folder)
    with pytest.raises(UserError, match=r"its tokenizer fails on th.*retry-limit.*Download"):
        text_of(found.convert_tokens_to_ids(["a"] * 60), found)
        encode_text("a" * 60, found, 100)


def test_a_chat_template_in_a_file_of_its_own_counts(folder):
    """As in models of text and pictures, where `transformers` reads it for their processors only."""
    text = "{% for m in messages %}{{ m.content }}{% endfor %}"
    (folder / "chat_template.jinja").unlink()
    assert load_tokenizer(folder).chat_template is None
    beside = folder / "chat_template.json"
    beside.write_text(json.dumps({"chat_template": text}))
    assert load_tokenizer(folder).chat_template == text
    beside.write_text(json.dumps({"chat_template": {"default": text, "tool_use": "{{ tools }}"}}))
    assert load_tokenizer(folder).get_chat_template(tools=[{}]) == "{{ tools }}"
    named = [{"name": "default", "template": text}, {"name": "tool_use", "template": "{{ tools }}"}]
    beside.write_text(json.dumps({"chat_template": named}))
    assert load_tokenizer(folder).get_chat_template() == text
    for content in ('{"chat_template": 1}', '{"chat_template": [{"name": "a"}]}', "[]", "{"):
        beside.write_text(content)
        with pytest.raises(UserError, match=r"chat_template\.json: .*Download or copy the model again"):
            load_tokenizer(folder)
    beside.unlink()
    for table, expected in (({"image_size": 1}, None), ({"chat_template": text}, text)):
        (folder / "processor_config.json").write_text(json.dumps(table))
        assert load_tokenizer(folder).chat_template == expected


def test_a_tokenizer_is_tried_once_for_each_content(folder, home, monkeypatch):
    load_tokenizer(folder)
    [verdict] = (home / "tokenizers").iterdir()
    assert verdict.read_bytes() == b""
    monkeypatch.setattr(tokenizer, "Sandbox", None)  # it is not asked again
    os.utime(folder / "tokenizer.json")
    copy = shutil.copytree(folder, folder.parent / "copy")
    for place in (folder, copy):
        tokenizer._try(place / "tokenizer.json")
    change(folder / "tokenizer.json", version="1.0 ")
    with pytest.raises(TypeError):
        load_tokenizer(folder)


def test_a_refused_tokenizer_is_told_before_the_start_and_tried_once(whole, folder, tmp_path, monkeypatch):
    change(folder / "tokenizer.json", normalizer={"type": "Sequence", "normalizers": WAITING})
    data = tmp_path / "data.jsonl"
    data.write_text('{"text": "a", "label": "yes"}\n{"text": "b", "label": "no"}\n' * 4)
    table = ModelTable(id=str(folder), device="cpu")
    preview = finish(
        planning.preview_data(Recipe(model=table, data={"source": str(data), "columns": {"answer": "label"}}))
    )
    assert preview.rows and "tokenizer.json: this tokenizer cannot be loaded" in preview.tokenizer_problem
    monkeypatch.setattr(tokenizer, "Sandbox", None)  # it is not asked again
    assert planning.summary(table).problem == preview.tokenizer_problem
    shutil.copy(whole / "tokenizer.json", folder)
    monkeypatch.undo()
    assert not planning.summary(table).problem


def test_the_bundled_tokenizer_is_known(home):
    load_tokenizer(resources.BUNDLED_MODELS["starter"])
    assert not (home / "tokenizers").exists()


def test_a_home_that_cannot_be_written_costs_time_and_nothing_else(folder, home):
    home.write_text("a file")
    assert load_tokenizer(folder)("a").input_ids


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("tokenizer_config.json", '{"a":' * 5000 + "1" + "}" * 5000, "tokenizer_config.json: is not valid JSON"),
        ("tokenizer_config.json", {"fast_tokenizer_files": ["../tokenizer.1.json"]}, "a file in another folder"),
        ("tokenizer_config.json", {"tokenizer_class": 7}, "its tokenizer cannot be loaded"),
        ("tokenizer_config.json", {"model_max_length": "many"}, ""),
        ("tokenizer_config.json", {"added_tokens_decoder": {"x": {}}}, "its tokenizer cannot be loaded"),
        ("special_tokens_map.json", {"eos_token": [[1]]}, "its tokenizer cannot be loaded"),
        ("generation_config.json", {"eos_token_id": "</s>"}, "generation_config.json: 'eos_token_id' must be"),
        ("generation_config.json", {"eos_token_id": [1, 2.5]}, "generation_config.json: 'eos_token_id' must be"),
        ("generation_config.json", {"temperature": [], "do_sample": {}}, ""),
        ("generation_config.json", "[1]", "generation_config.json: is wrong"),
        ("generation_config.json", '{"a":' * 5000, "generation_config.json: is wrong"),
        ("generation_config.json", {"compile_config": 3}, "generation_config.json: is wrong"),
        ("config.json", {"eos_token_id": "</s>"}, "config.json"),
        ("config.json", {"sliding_window": -1}, "config.json: 'sliding_window' must be a number of tokens"),
        ("config.json", {"sliding_window": {}}, "config.json: 'sliding_window' must be a number of tokens"),
        ("config.json", {"return_dict": False, "output_hidden_states": "a", "output_attentions": 1}, ""),
    ],
)
def test_what_libraries_raise_over_a_file_is_a_sentence(folder, file, content, sentence):
    """An empty sentence: the file says nothing that is used, and the model loads."""
    if isinstance(content, dict):
        change(folder / file, **content)
    else:
        (folder / file).write_text(content)
    if file == "config.json":
        (folder / "generation_config.json").unlink()
    if not sentence:
        model = load(folder, bits=16)
        assert model.module.generation_config.eos_token_id == [EOS]
        list(continuation(model, EncodedPrompt(prompt_tokens("a", model.tokenizer)), 3))
        return
    with pytest.raises(UserError, match=sentence) as error:
        load(folder, bits=16)
    assert str(folder) in str(error.value) and len(str(error.value)) < 600


def test_tokens_beyond_the_table_are_told_where_they_are_used(folder):
    change(folder / "config.json", vocab_size=VOCABULARY - 1)
    weights = load_file(folder / "model.safetensors")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        weights[name] = weights[name][:-1].clone()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    model = load(folder, bits=16)
    last = model.tokenizer.convert_ids_to_tokens(VOCABULARY - 1)
    with pytest.raises(UserError, match=f"The prompt: contains the token '{last}'.* 288 tokens, and .* for 287"):
        beyond = prompt_tokens(model.tokenizer.convert_tokens_to_string([last]), model.tokenizer)
        continuation(model, EncodedPrompt(beyond), 3)
    continuation(model, EncodedPrompt(prompt_tokens("a", model.tokenizer)), 3)


@pytest.mark.parametrize(("value", "bits"), [
    (float("nan"), 4), (float("inf"), 16),
    *(pytest.param(float(value), bits, marks=pytest.mark.slow)
      for value, bits in (("nan", 8), ("nan", 16), ("nan", 32), ("inf", 4), ("inf", 8), ("inf", 32))),
])  # fmt: skip
@pytest.mark.parametrize(
    "name", ["model.layers.0.mlp.up_proj.weight", "model.embed_tokens.weight", "model.layers.0.input_layernorm.weight"]
)
def test_weights_that_are_no_numbers_are_told_while_they_are_loaded(folder, bits, value, name):
    weights = load_file(folder / "model.safetensors")
    weights[name].view(-1)[5] = value
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=f"the weight '{name}' contains NaN or infinity"):
        load(folder, bits=bits)


@pytest.mark.parametrize("settings", [
    {"load_in_4bit": True}, {"load_in_4bit": True, "llm_int8_skip_modules": ["x"]},
    {"load_in_8bit": True, "llm_int8_skip_modules": ["x"]},
])  # fmt: skip
def test_a_config_that_promises_quantised_weights_is_not_believed(folder, settings):
    change(folder / "config.json", quantization_config={"quant_method": "bitsandbytes", **settings})
    with pytest.raises(UserError, match=r"config.json says that the weight '.*' is quantised, but it is not"):
        load(folder)


def test_weights_quantised_before_are_looked_at_too(folder):
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=BitsAndBytesConfig(load_in_4bit=True))
    model.model.layers[0].mlp.up_proj.weight.quant_state.absmax[3] = torch.nan
    model.save_pretrained(folder)
    with pytest.raises(UserError, match=r"the weight 'model.layers.0.mlp.up_proj.weight' contains NaN or"):
        load(folder)


def test_a_tokenizer_in_use_is_not_loaded_twice_unless_its_files_change(tmp_path):
    folder = tiny("llama", tmp_path / "model")
    first = load_tokenizer(folder)
    assert load_tokenizer(folder) is first
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "bos_token": None}))
    second = load_tokenizer(folder)
    assert second is not first and first.bos_token and not second.bos_token
    shutil.rmtree(folder)
    with pytest.raises(UserError, match="its tokenizer cannot be loaded"):
        load_tokenizer(folder)
    gone = weakref.ref(first)
    del first
    gc.collect()
    assert gone() is None


def test_a_model_takes_the_tokenizer_that_is_known_already(tmp_path):
    table = ModelTable(id=str(tiny("llama", tmp_path / "model")))
    used, _ = known.tokenizer(table)
    assert finish(frozen.load(table)).tokenizer is used
