"""What is given as a model and is none is named for what it is, in the terminal and in the list of models alike."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import huggingface_hub
import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoModelForTokenClassification

from sparsezo_gui.engine.hub.cache import find
from sparsezo_gui.engine.hub.library import summary
from sparsezo_gui.engine.hub.search import search_hub
from sparsezo_gui.engine.pretrained import kinds
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.recipe import ModelTable
from tests.engine.conftest import finish
from tests.models import tiny


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A model with a head of its own, and one with a tied one."""
    return {name: tiny(name, tmp_path_factory.mktemp(name)) for name in ("llama", "qwen2")}


@pytest.fixture
def folder(models, tmp_path):
    return shutil.copytree(models["llama"], tmp_path / "model")


def refused(id):
    """The sentence, which the list of models tells too."""
    with pytest.raises(UserError) as error:
        finish(find(ModelTable(id=str(id))))
    assert summary(str(id)).problem == str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["model.gguf", "README.md"], "model.gguf: broken or incomplete"),
        (["one.gguf", "two.gguf"], "contains 2 GGUF files. Choose one of them"),
        (["model.onnx", "tokenizer.json"], "contains a model in ONNX format"),
        (["weights.npz", "tokenizer.json"], "contains a model in MLX format"),
        (["tokenizer.json", "tokenizer_config.json"], "contains a tokenizer without a model"),
        (["params.json", "consolidated.00.pth"], "in its vendor's own format"),
        (["model_index.json", "unet"], "contains a diffusers pipeline"),
        (["saved_model.pb"], "contains a TensorFlow model"),
        (["notes.txt"], "it has no config.json"),
    ],
)
def test_folders_without_a_config(tmp_path, names, sentence):
    for name in names:
        (tmp_path / name).touch()
    assert sentence in refused(tmp_path)


def test_the_folder_that_was_meant_is_named(folder):
    assert refused(folder.parent).endswith(f"Choose one, such as {folder}")


def test_files(tmp_path):
    for name, content, sentence in (
        ("m.gguf", b"GGUF", "broken or incomplete"), ("blob", b"GGUF\3", "broken or incomplete"),
        ("model.safetensors", b"", f"set [model] id to the folder with config.json: {tmp_path}"),
        ("pytorch_model.bin", b"", "is a weights file"), ("m.onnx", b"", "ONNX"), ("x", b"", "is a file;"),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(content)
        assert sentence in refused(tmp_path / name)


@pytest.mark.parametrize("family", ["llama", "qwen2"])
@pytest.mark.parametrize(
    ("kind", "name"),
    [(AutoModelForSequenceClassification, "a text classifier or a reward model"),
     (AutoModelForTokenClassification, "a token classifier")],
)  # fmt: skip
def test_classifiers(models, tmp_path, family, kind, name):
    config = AutoConfig.from_pretrained(models[family])
    kind.from_config(config).save_pretrained(tmp_path / "a")
    assert f"is {name} (" in refused(tmp_path / "a")
    # As other programs save one: nothing but the weights says it. With a tied head nothing else would be missing.
    path = tmp_path / "a" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "architectures": None}))
    with pytest.raises(UserError, match=r"has the head of a classifier or reward model \('score'\)"):
        finish(find(ModelTable(id=str(tmp_path / "a"))))


def test_a_body_without_a_head(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"has no head that predicts tokens \('lm_head.weight'\)"):
        finish(find(ModelTable(id=str(folder))))


@pytest.mark.parametrize(
    ("file", "sentence"),
    [("modules.json", "a sentence-transformers model"), ("quantize_config.json", "quantised with GPTQ"),
     ("quant_config.json", "quantised with AWQ")],
)  # fmt: skip
def test_folders_whose_files_say_what_they_are(folder, file, sentence):
    (folder / file).write_text("{}")
    assert sentence in refused(folder)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"architectures": ["BertForMaskedLM"]}, "a masked language model"),
        ({"architectures": ["LlamaForRewardModel"]}, "a reward model"),
        ({"architectures": ["ViTForImageClassification"]}, "an image classifier"),
        ({"quantization": {"group_size": 64, "bits": 4}}, "a model in MLX format"),
    ],
)
def test_configs_that_say_what_they_are(folder, settings, sentence):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    assert sentence in refused(folder)


@pytest.mark.parametrize(
    "table", [{}, {"architectures": None}, {"architectures": [5]}, {"architectures": "x"}, {"quantization": 5},
              {"architectures": ["LlamaForCausalLM"]}, {"architectures": ["GPT2LMHeadModel"]}],
)  # fmt: skip
def test_configs_that_may_be_of_a_language_model(table):
    assert kinds.of_config(table) == ""


def test_on_the_hub_files_tags_and_config_say_it(models, monkeypatch, tmp_path):
    files = ["adapter_config.json", "adapter_model.safetensors"]
    info = SimpleNamespace(tags=["peft", "base_model:adapter:org/base"], gated=False, sha="0" * 40,
                           siblings=[SimpleNamespace(rfilename=name, size=1) for name in files])  # fmt: skip
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: info)
    monkeypatch.setattr(huggingface_hub, "is_offline_mode", lambda: False)
    assert "'some/model' on the Hub contains an adapter" in refused("some/model")
    assert "trained on 'org/base'" in refused("some/model") and "choose that folder" in refused("some/model")
    config = {"model_type": "qwen2", "architectures": ["Qwen2ForSequenceClassification"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    info.siblings = [SimpleNamespace(rfilename=name, size=1) for name in ("config.json", "model.safetensors")]
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: str(tmp_path / "config.json"))
    assert "a text classifier or a reward model" in summary("some/model").problem
    numbers = SimpleNamespace(parameters={"F32": 1})
    listed = [SimpleNamespace(id="a/b", config=config, gated=False, safetensors=numbers, tags=[]),
              SimpleNamespace(id="a/c", config={}, gated=False, safetensors=None, tags=["gguf"])]  # fmt: skip
    monkeypatch.setattr(huggingface_hub.HfApi, "list_models", lambda *_, **__: iter(listed))
    first, second = search_hub("x")
    assert first.problem.startswith("It is a text classifier") and second.problem.startswith(
        "It is a model in GGUF format. Download one"
    )
