"""Finding models, and a sentence for everything that can be wrong with one before it is loaded."""

from __future__ import annotations

import json
import os
import shutil

import pytest
from safetensors.torch import load_file, save_file

from sparsezo_gui import resources
from sparsezo_gui.engine.hub.cache import find
from sparsezo_gui.engine.pretrained import source
from sparsezo_gui.engine.pretrained.source import inspect
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.events import Progress
from sparsezo_gui.recipe.recipe import ModelTable
from tests.engine.conftest import finish
from tests.models import tiny


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return tiny("llama", tmp_path_factory.mktemp("llama"), shard="60KB")


@pytest.fixture
def folder(llama, tmp_path):
    """A fresh copy of a model in several files."""
    return shutil.copytree(llama, tmp_path / "model")


def refused(folder, **settings):
    with pytest.raises(UserError) as error:
        finish(find(ModelTable(id=str(folder), **settings)))
    assert len(str(error.value)) > 40  # what, where and how to fix
    return str(error.value)


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_folder(folder):
    work = find(ModelTable(id=str(folder)))
    assert isinstance(next(work), Progress)
    found = finish(work)
    assert (found.folder, found.revision, found.prequantised) == (folder, "", False)
    assert {path.name for path in found.weights.values()} == {path.name for path in folder.glob("*.safetensors")}
    assert found.spec.layers == 2 and found.config.model_type == "llama"


def test_a_bundled_model(folder, monkeypatch):
    monkeypatch.setitem(resources.BUNDLED_MODELS, "starter", folder)
    assert finish(find(ModelTable())).folder == folder


def test_no_such_folder(tmp_path):
    assert "There is no model folder" in refused(tmp_path / "nothing")


def test_a_file_is_no_folder(folder):
    assert "is a file" in refused(folder / "config.json")


def test_a_folder_without_a_config(folder):
    (folder / "config.json").unlink()
    assert "it has no config.json" in refused(folder)
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (folder / "adapter_model.safetensors").touch()
    assert "does not say which model the adapter was trained on" in refused(folder)


@pytest.mark.parametrize("text", ["{", "[1]", "\udcff", "[" * 100_000])
def test_a_broken_config(folder, text):
    (folder / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert "config.json: not" in refused(folder)


def test_an_unknown_architecture(folder):
    edit(folder / "config.json", model_type="lama")
    assert "transformers does not support the model type 'lama'. Did you mean 'llama'?" in refused(folder)
    edit(folder / "config.json", model_type="qzxv17")
    assert "may be newer" in refused(folder)
    edit(folder / "config.json", model_type=None)
    assert "does not support the model type None" in refused(folder)


def test_a_config_with_nonsense_in_it(folder):
    edit(folder / "config.json", hidden_size="wide")
    assert "config.json: does not describe a 'llama' model" in refused(folder)


@pytest.mark.parametrize("fields", [{"num_hidden_layers": 10**9}, {"num_labels": 10**9}, {"n_layer": 1e300},
                                    {"text_config": {"attention_types": [[["global"], 10**9]]}}])  # fmt: skip
def test_a_config_that_would_take_hours_to_build(folder, fields):
    edit(folder / "config.json", **fields)
    assert "no model has more than 1000" in refused(folder)


def test_an_own_class_that_is_no_table(folder):
    edit(folder / "config.json", auto_map=7, model_type="own")
    assert "transformers does not support the model type 'own'" in refused(folder)


def test_a_huge_config(folder):
    with (folder / "config.json").open("r+b") as file:
        file.truncate(200_000_000)
    assert "larger than 95.4 MiB" in refused(folder)


@pytest.mark.parametrize("id", ["a" * 300, "~nobody/model", "a\0b"])
def test_an_id_that_is_no_path(id):
    with pytest.raises(UserError):
        finish(find(ModelTable(id=id)))


@pytest.mark.parametrize("file", ["adapter_model.bin", "other.safetensors"])
@pytest.mark.parametrize("nest", [dict, lambda **table: {"text_config": table}])
def test_weights_from_a_file_that_was_not_checked(folder, file, nest):
    (folder / file).write_bytes(b"cos\nsystem\n(S'echo'\ntR.")
    edit(folder / "config.json", **nest(transformers_weights=file))
    assert "to the weights file" in refused(folder)


def test_an_adapter_that_would_be_loaded_with_the_model(folder):
    (folder / "adapter_config.json").write_text("{}")
    assert "contains an adapter besides the model" in refused(folder)


def test_remote_code_does_not_run_by_what_a_recipe_says(folder):
    edit(folder / "config.json", model_type="own", auto_map={"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"})
    (folder / "own.py").write_text("raise RuntimeError('it ran')")
    assert "set [model] trust_remote_code = true" in refused(folder)
    assert "needs the Python code that comes with it" in refused(folder, trust_remote_code=True)


def test_remote_code_is_not_needed_where_transformers_has_its_own(folder):
    edit(folder / "config.json", auto_map={"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"})
    assert finish(find(ModelTable(id=str(folder)))).spec.layers == 2


@pytest.mark.parametrize("method", ["gptq", "awq", "fp8"])
def test_other_quantisations(folder, method):
    edit(folder / "config.json", quantization_config={"quant_method": method, "bits": 4})
    assert f"'{method}' format" in refused(folder)


def test_no_weights(folder):
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    assert "no weights" in refused(folder)
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'echo'\ntR.")
    assert "can run code when opened" in refused(folder)


def test_a_missing_shard(folder):
    next(folder.glob("*.safetensors")).unlink()
    assert "is missing, though model.safetensors.index.json names it" in refused(folder)


def test_a_truncated_shard(folder):
    path = next(folder.glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-100])
    assert f"{path}: broken or incomplete" in refused(folder)


@pytest.mark.parametrize("table", [None, {}, [], {"a": 1}])
def test_a_broken_index(folder, table):
    edit(folder / source.INDEX, weight_map=table)
    assert "does not say which file" in refused(folder)


@pytest.mark.parametrize("name", ["../evil.safetensors", "/etc/passwd", "weights.bin", "..", "a/../../b.safetensors"])
def test_an_index_that_points_elsewhere(folder, name):
    edit(folder / source.INDEX, weight_map={"a": name})
    assert "not a safetensors file in this folder" in refused(folder)


@pytest.mark.parametrize("name", ["a" * 300 + ".safetensors", "a\0.safetensors"])
def test_an_index_with_a_name_that_no_file_has(folder, name):
    edit(folder / source.INDEX, weight_map={"a": name})
    assert "is missing, though model.safetensors.index.json names it" in refused(folder)


links = pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")


@links
@pytest.mark.parametrize("name", ["config.json", "model-00001-of-00006.safetensors", "tokenizer.json", "LICENSE"])
def test_a_link_out_of_the_folder(folder, tmp_path, name):
    (tmp_path / "secret").write_bytes((folder / name).read_bytes() if (folder / name).exists() else b"secret")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(tmp_path / "secret")
    assert f"{folder / name}: links to a file outside its folder, {tmp_path / 'secret'}." in refused(folder)


@links
def test_links_within_the_folder_and_to_the_folder(folder, tmp_path):
    (folder / "config.json").rename(folder / "other.json")
    (folder / "config.json").symlink_to("other.json")
    (tmp_path / "link").symlink_to(folder)
    assert finish(find(ModelTable(id=str(tmp_path / "link")))).folder == folder
    assert inspect(tmp_path / "link", ModelTable(id="model")).spec.layers == 2


@links
@pytest.mark.parametrize("blobs", ["models--a--b/blobs", "blobs"])
def test_the_links_of_the_hugging_face_cache(folder, tmp_path, blobs):
    snapshot = tmp_path / "hub" / "models--a--b" / "snapshots" / "c0ffee"
    snapshot.mkdir(parents=True)
    (tmp_path / "hub" / blobs).mkdir(exist_ok=True)
    for number, path in enumerate(folder.iterdir()):
        shutil.copy(path, tmp_path / "hub" / blobs / str(number))
        (snapshot / path.name).symlink_to(tmp_path / "hub" / blobs / str(number))
    assert inspect(snapshot, ModelTable(id="a/b")).revision == "c0ffee"
    (snapshot / "LICENSE").symlink_to(folder / "config.json")
    with pytest.raises(UserError, match="links to a file outside its folder"):
        inspect(snapshot, ModelTable(id="a/b"))


def test_a_shard_without_what_the_index_promises(folder):
    path = next(folder.glob("*.safetensors"))
    tensors = load_file(path)
    name = min(tensors)
    save_file({key: tensor for key, tensor in tensors.items() if key != name} | {"more": tensors[name]}, path)
    assert f"lacks the weight '{name}'" in refused(folder)


def test_config_and_weights_of_different_models(folder):
    edit(folder / "config.json", num_hidden_layers=3)
    assert "lacks the weight 'model.layers.2" in refused(folder)
    edit(folder / "config.json", num_hidden_layers=2, intermediate_size=129)
    assert "config.json requires" in refused(folder)


def test_inspect_knows_a_snapshot_of_the_cache(llama, tmp_path):
    commit = shutil.copytree(llama, tmp_path / "snapshots" / "abc123")
    assert inspect(commit, ModelTable(id="some/model")).revision == "abc123"
