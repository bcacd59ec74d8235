"""Lists of models."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import constants

from sparsezo_gui import resources
from sparsezo_gui.engine.hub.library import licence_of, local_models, spec_of, summary
from sparsezo_gui.engine.hub.search import search_hub
from sparsezo_gui.recipe.recipe import ModelTable
from tests.models import module, tiny


@pytest.fixture(autouse=True)
def bundled(tmp_path, monkeypatch):
    monkeypatch.setitem(resources.BUNDLED_MODELS, "starter", tiny("qwen3", tmp_path / "starter"))


def cached(tmp_path, monkeypatch, **folders):
    """A Hugging Face cache with these folders as models."""
    root = tmp_path / "cache"
    for name, folder in folders.items():
        place = root / f"models--some--{name}"
        shutil.copytree(folder, place / "snapshots" / "abc")
        (place / "refs").mkdir()
        (place / "refs" / "main").write_text("abc")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(root))


def test_bundled_and_cached_models(tmp_path, monkeypatch):
    llama = tiny("llama", tmp_path / "llama")
    (llama / "README.md").write_text('---\nlanguage: en\nlicense: "apache-2.0"\n---\n# Model\n')
    vision = tmp_path / "vision"
    vision.mkdir()
    (vision / "config.json").write_text(json.dumps({"model_type": "vit"}))
    mamba = tmp_path / "mamba"
    mamba.mkdir()
    (mamba / "config.json").write_text(json.dumps({"model_type": "mamba"}))
    seen = shutil.copytree(mamba, tmp_path / "seen")  # only its config was looked at
    (mamba / "model.safetensors").touch()
    cached(tmp_path, monkeypatch, llama=llama, vision=vision, mamba=mamba, seen=seen)
    starter, first, second = local_models()
    assert (starter.id, starter.kind, starter.problem) == ("starter", "bundled", "")
    assert (first.id, first.kind, first.architecture) == ("some/llama", "cache", "LlamaForCausalLM")
    assert first.parameters == module("llama").num_parameters()
    assert first.bytes == (llama / "model.safetensors").stat().st_size
    assert (first.licence, first.problem) == ("apache-2.0", "")
    assert second.id == "some/mamba" and "recurrent" in second.problem


def test_no_cache_at_all(tmp_path, monkeypatch):
    cached(tmp_path, monkeypatch)
    assert [model.id for model in local_models()] == ["starter"]


def test_a_summary_never_fails(tmp_path):
    assert summary(ModelTable(id=str(tiny("gpt2", tmp_path / "gpt2")))).architecture == "GPT2LMHeadModel"
    assert "no config.json" in summary(ModelTable(id=str(tmp_path))).problem
    assert "There is no model folder" in summary(ModelTable(id=str(tmp_path / "no"))).problem
    assert "offline" in summary("nobody/nothing").problem


def test_a_model_on_the_hub_is_told_from_its_config(tmp_path, monkeypatch):
    folder = tiny("llama", tmp_path / "llama")
    names = {"model.safetensors": 123, "other/model.safetensors": 9}
    files = [SimpleNamespace(rfilename=name, size=size) for name, size in names.items()]
    info = SimpleNamespace(tags=["license:mit"], gated="manual", siblings=files)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: info)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: str(folder / "config.json"))
    monkeypatch.setattr(huggingface_hub, "is_offline_mode", lambda: False)
    found = summary(ModelTable(id="some/model"))
    assert (found.kind, found.bytes, found.licence, found.gated, found.problem) == ("hub", 123, "mit", True, "")
    assert found.parameters == spec_of(ModelTable(id="some/model")).parameters == module("llama").num_parameters()
    files.clear()
    assert "no safetensors" in summary(ModelTable(id="some/model")).problem


def test_search(monkeypatch):
    models = [
        SimpleNamespace(id="a/b", config={"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, gated=False,
                        safetensors=SimpleNamespace(parameters={"BF16": 10, "F32": 1}), tags=["license:mit"]),
        SimpleNamespace(id="c/d", config={"model_type": "qzx"}, gated="auto", safetensors=None, tags=None),
    ]  # fmt: skip
    monkeypatch.setattr(huggingface_hub.HfApi, "list_models", lambda *_, **__: iter(models))
    first, second = search_hub("x")
    assert (first.parameters, first.bytes, first.licence, first.problem) == (11, 24, "mit", "")
    assert second.gated and "transformers does not support" in second.problem


@pytest.mark.parametrize(
    ("text", "licence"),
    [("---\nlicense: mit\n---\n", "mit"), ("---\nlicense: other\nlicense_name: own\n---", "own"), ("# no header", "")],
)
def test_licence(text, licence, tmp_path):
    (tmp_path / "README.md").write_text(text)
    assert licence_of(tmp_path) == licence
