"""The models of Ollama and LM Studio, and how a GGUF file is chosen."""

import json
import shutil
from pathlib import Path

import pytest

from sparsezo_gui.engine.hub.cache import find
from sparsezo_gui.engine.hub.library import local_models, summary
from sparsezo_gui.engine.pretrained.places import local_folder
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.recipe import ModelTable
from tests import gguf_files
from tests.engine.conftest import finish
from tests.models import tiny

HASH = "ab" * 32


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    return gguf_files.write(tiny("llama", folder / "llama"), folder / "model.gguf")


@pytest.fixture(autouse=True)
def user(tmp_path, monkeypatch):
    """The user's own folder, without anything in it."""
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "user")
    monkeypatch.delenv("OLLAMA_MODELS", raising=False)
    return tmp_path / "user"


def pull(store, name, file, digest=HASH):
    """What `ollama pull` writes, for the path of a manifest."""
    manifest = store / "manifests" / name
    manifest.parent.mkdir(parents=True, exist_ok=True)
    layers = [{"mediaType": "application/vnd.ollama.image.template", "digest": "sha256:" + "cd" * 32},
              {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}"}]  # fmt: skip
    manifest.write_text(json.dumps({"schemaVersion": 2, "layers": layers}))
    blob = store / "blobs" / f"sha256-{digest}"
    blob.parent.mkdir(exist_ok=True)
    shutil.copy(file, blob)
    return blob


def refused(id):
    with pytest.raises(UserError) as error:
        local_folder(str(id))
    assert summary(str(id)).problem == str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("manifest", "id"),
    [
        ("registry.ollama.ai/library/tiny/latest", "ollama:tiny"),
        ("registry.ollama.ai/library/tiny/latest", "ollama:tiny:latest"),
        ("registry.ollama.ai/library/tiny/1b", "ollama:tiny:1b"),
        ("registry.ollama.ai/me/tiny/1b", "ollama:me/tiny:1b"),
        ("hf.co/me/tiny-GGUF/Q4_0", "ollama:hf.co/me/tiny-GGUF:Q4_0"),
    ],
)
def test_a_model_of_ollama(user, file, manifest, id):
    blob = pull(user / ".ollama/models", manifest, file)
    assert local_folder(id) == blob.resolve()
    assert finish(find(ModelTable(id=id))).place == blob.resolve()
    found = [each for each in local_models() if each.kind == "ollama"]
    assert [each.id for each in found] == [id.removesuffix(":latest")]
    assert (found[0].problem, found[0].bytes, summary(id).kind) == ("", file.stat().st_size, "ollama")


def test_another_place_of_ollama(user, file, tmp_path, monkeypatch):
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "store"))
    pull(user / ".ollama/models", "registry.ollama.ai/library/hidden/latest", file)
    pull(tmp_path / "store", "registry.ollama.ai/library/tiny/latest", file)
    assert [each.id for each in local_models() if each.kind == "ollama"] == ["ollama:tiny"]


def test_models_that_ollama_lacks(user, file):
    assert refused("ollama:tiny") == "There is no model 'ollama:tiny'. No model of Ollama was found on this computer."
    store = user / ".ollama/models"
    pull(store, "registry.ollama.ai/library/tiny/latest", file)
    assert "Did you mean 'ollama:tiny'?" in refused("ollama:tini")
    for name in ("ollama:", "ollama:../../x", "ollama:a/b/c/d", "ollama:..", "ollama:tiny:..", "ollama:/etc/passwd"):
        assert f"There is no model '{name}'" in refused(name)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is not a manifest of Ollama"),
        ('{"layers": []}', "it has not one model"),
        ('{"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:../../x"}]}', "not one"),
        ('{"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:' + "0" * 64 + '"}]}',
         f"names sha256-{'0' * 64}, which is missing. Pull the model again."),
        ("[" * 100_000, "nested too deeply"),
    ],
)  # fmt: skip
def test_damaged_manifests(user, file, content, sentence):
    store = user / ".ollama/models"
    pull(store, "registry.ollama.ai/library/tiny/latest", file)
    (store / "manifests/registry.ollama.ai/library/tiny/latest").write_text(content)
    assert sentence in refused("ollama:tiny")
    assert not [each for each in local_models() if each.kind == "ollama"]


def test_models_of_lm_studio(user, file):
    old, new = (user / place / "me/repo" for place in (".cache/lm-studio/models", ".lmstudio/models"))
    names = ("Tiny-Q4_0.gguf", "mmproj-Tiny.gguf", "Big-00001-of-00003.gguf", "Big-00002-of-00003.gguf")
    for folder, name in [(old, names[0]), *((new, name) for name in names)]:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder / name)
    (new / "broken.gguf").write_bytes(b"GGUF")
    found = {each.id: each for each in local_models() if each.kind == "lmstudio"}
    listed = [old / names[0], new / names[2], new / names[0], new / "broken.gguf"]
    assert list(found) == sorted(map(str, listed))
    assert found[str(new / names[0])].title == "Tiny-Q4_0" and found[str(new / names[0])].problem == ""
    assert "broken or incomplete" in found[str(new / "broken.gguf")].problem


def test_which_file_of_a_folder(file, tmp_path):
    folder = tmp_path / "repo"
    folder.mkdir()
    shutil.copy(file, folder / "a.gguf")
    (folder / "config.json").write_text("{}")
    (folder / "mmproj-x.gguf").touch()
    assert local_folder(str(folder)) == (folder / "a.gguf").resolve()
    assert summary(str(folder)).problem == ""
    shutil.copy(file, folder / "b.gguf")
    assert f"contains 2 GGUF files. Choose one of them, such as {folder / 'a.gguf'}" in refused(folder)
    (folder / "model.safetensors").touch()  # the usual weights, beside converted ones
    assert local_folder(str(folder)) == folder.resolve()
    assert "There is no file 'no/such.gguf'" in refused("no/such.gguf")
