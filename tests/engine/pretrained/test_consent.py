"""Code that comes with a model: it runs once the user has let it, and only the very bytes that were asked about."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import sys

import pytest
import torch

from sparsezo_gui.engine import frozen, planning
from sparsezo_gui.engine.files import home
from sparsezo_gui.engine.hub import library
from sparsezo_gui.engine.pretrained import code as codes
from sparsezo_gui.engine.pretrained import consent
from sparsezo_gui.engine.pretrained.code import find_code
from sparsezo_gui.errors import ConsentNeeded, UserError
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe.recipe import ModelTable
from tests.engine.conftest import finish
from tests.own_code import edit, own_code


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "marker"


@pytest.fixture
def folder(tmp_path, marker):
    return own_code(tmp_path / "model", marker)


def table(folder, **more):
    return ModelTable(id=str(folder), trust_remote_code=True, device="cpu", **more)


def refused(folder):
    with pytest.raises(UserError) as error:
        finish(frozen.load(table(folder)))
    return error.value


def given(folder):
    consent.give(find_code(table(folder), folder))


def test_what_a_recipe_says_grants_nothing(folder, marker):
    error = refused(folder)
    assert isinstance(error, ConsentNeeded) and sorted(error.code.files) == [
        "configuration_own.py", "marks.py", "modeling_own.py", "parts/extra.py", "tokenization_own.py"
    ]  # fmt: skip
    assert "--trust-remote-code" in str(error) and str(folder) in str(error) and "parts/extra.py" in str(error)
    assert not marker.exists()


def test_once_it_is_let_run_the_models_own_classes_are_used(folder, marker):
    given(folder)
    model = finish(frozen.load(table(folder, bits=32)))
    names = [type(each).__name__ for each in (model.module, model.source.config, model.tokenizer)]
    assert names == ["OwnModel", "OwnConfig", "OwnTokenizer"] and marker.exists()
    assert model.module(torch.tensor([[1, 2, 3]])).logits.shape == (1, 3, 288)
    assert "class OwnModel" in inspect.getsource(type(model.module))


def test_an_own_model_with_a_usual_tokenizer(folder):
    edit(folder / "tokenizer_config.json", auto_map={})
    given(folder)
    model = finish(frozen.load(table(folder)))
    assert type(model.module).__name__ == "OwnModel" and model.tokenizer("a cat").input_ids


def test_lists_estimates_and_previews_run_nothing(folder, marker, tmp_path):
    data = tmp_path / "data.jsonl"
    data.write_text('{"text": "a", "label": "yes"}\n{"text": "b", "label": "no"}\n' * 4)
    recipe = Recipe(model=table(folder), data={"source": str(data), "columns": {"answer": "label"}})
    assert "needs the Python code that comes with it" in library.summary(recipe.model).problem
    with pytest.raises(ConsentNeeded):
        planning.estimate(recipe)
    preview = finish(planning.preview_data(recipe))
    assert preview.rows and not preview.longest_tokens
    assert not marker.exists()
    given(folder)
    assert planning.estimate(recipe).total > 0 and not library.summary(recipe.model).problem
    assert finish(planning.preview_data(recipe)).longest_tokens


def test_a_known_layout_is_told_without_the_code(tmp_path, marker):
    folder = own_code(tmp_path / "model", marker, "llama")
    assert library.summary(table(folder)).parameters and planning.estimate(Recipe(model=table(folder))).total
    assert isinstance(refused(folder), ConsentNeeded)
    assert finish(frozen.load(ModelTable(id=str(folder), device="cpu"))).spec.layers == 2
    assert not marker.exists()


@pytest.mark.parametrize("change", ["byte", "more", "less", "name"])
def test_another_code_is_asked_about_anew(folder, marker, change):
    given(folder)
    part = folder / "parts" / "extra.py"
    if change == "byte":
        part.write_bytes(part.read_bytes() + b"\n")
    elif change == "more":
        (folder / "parts" / "more.py").touch()
    elif change == "less":
        part.unlink()
    else:
        part.rename(folder / "parts" / "other.py")
    assert isinstance(refused(folder), ConsentNeeded) and not marker.exists()


def test_the_same_code_may_run_in_another_folder(folder, marker, tmp_path):
    given(folder)
    moved = shutil.move(folder, tmp_path / "elsewhere")
    assert consent.permitted(table(moved), moved) is not None


def test_of_a_model_on_the_hub_a_consent_holds_for_one_commit(folder, tmp_path):
    first = shutil.copytree(folder, tmp_path / "models--a--b" / "snapshots" / ("1" * 40))
    second = shutil.copytree(folder, tmp_path / "models--a--b" / "snapshots" / ("2" * 40))
    hub = ModelTable(id="a/b", trust_remote_code=True)
    consent.give(find_code(hub, first))
    assert consent.permitted(hub, first) and not consent.permitted(hub, second)
    assert not consent.permitted(hub.model_copy(update={"id": "a/c"}), first)
    assert not consent.permitted(table(folder), folder)


def test_what_runs_is_what_was_read_not_what_lies_there_by_then(folder, marker, tmp_path):
    given(folder)
    trusted = consent.required(table(folder), folder)
    other = tmp_path / "other"
    for path in folder.rglob("*.py"):
        path.write_text(f"from pathlib import Path\nPath({str(other)!r}).touch()\nclass OwnConfig: pass\n")
    assert trusted.find("AutoConfig", object).__module__.endswith("configuration_own")
    assert marker.exists() and not other.exists()


def test_transformers_own_copies_of_code_are_not_used(folder, marker):
    given(folder)
    finish(frozen.load(table(folder)))
    assert marker.exists() and not [name for name in sys.modules if name.startswith("transformers_modules")]


@pytest.mark.parametrize("reference", ["other/repo--modeling_own.OwnModel", "a--b--c.D"])
def test_code_from_another_repository_is_refused(folder, marker, reference):
    edit(folder / "config.json", auto_map={"AutoConfig": reference})
    assert "another repository" in str(refused(folder)) and not marker.exists()


@pytest.mark.parametrize("reference", [7, "own", "/etc/own.Own", "../modeling_own.Own", "os.Own", "modeling_own"])
def test_code_that_is_not_of_the_folder_is_refused(folder, marker, reference):
    edit(folder / "config.json", auto_map={"AutoConfig": reference})
    assert str(folder) in str(refused(folder)) and not marker.exists()


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_links_out_of_the_folder_are_refused(folder, marker, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "far.py").write_text("x = 1\n")
    (folder / "linked").symlink_to(tmp_path / "outside", target_is_directory=True)  # its code is not of the model
    assert "linked/far.py" not in find_code(table(folder), folder).files
    (folder / "far.py").symlink_to(tmp_path / "outside" / "far.py")
    assert "links to a file outside its folder" in str(refused(folder))


def test_a_class_that_is_no_model_is_refused(folder):
    edit(folder / "config.json", auto_map={"AutoConfig": "modeling_own.OwnModel"})
    given(folder)
    assert "'modeling_own.OwnModel' is not a PreTrainedConfig" in str(refused(folder))


@pytest.mark.parametrize("text", ["raise RuntimeError('broken')", "import no_such_package", "def", "exit()"])
def test_code_that_does_not_run_gets_a_sentence(folder, text):
    (folder / "configuration_own.py").write_text(text)
    given(folder)
    named = "its own code for 'configuration_own.OwnConfig' does not run here"
    assert str(refused(folder)).startswith(f"{folder}: {named}")


def test_too_much_code_is_refused(folder, monkeypatch):
    monkeypatch.setattr(codes, "MOST_BYTES", 100)
    assert "Python code, too much to review" in str(refused(folder))
    monkeypatch.setattr(codes, "MOST_ENTRIES", 3)
    assert "too many to search" in str(refused(folder))


def test_a_code_file_that_is_missing(folder):
    (folder / "modeling_own.py").unlink()
    assert "'modeling_own.py' is missing" in str(refused(folder))


def test_the_file_of_consents(folder):
    given(folder)
    path = home() / "consent.json"
    if os.name != "nt":
        assert path.stat().st_mode & 0o777 == 0o600
    given(folder)
    kept = json.loads(path.read_text())
    assert kept["version"] == 1 and len(kept["consents"]) == 1
    path.write_text(json.dumps({**kept, "consents": []}))
    assert isinstance(refused(folder), ConsentNeeded)
    for text, told in (('{"version": 2, "consents": []}', "another version"), ("{", "is damaged"),
                       ('{"version": 1, "consents": [{}]}', "is damaged"), ("[]", "is damaged")):  # fmt: skip
        path.write_text(text)
        assert told in str(refused(folder))
    path.unlink()
    path.mkdir()
    assert "cannot be read" in str(refused(folder))
    if hasattr(os, "mkfifo"):
        path.rmdir()
        os.mkfifo(path)  # a reader of which would wait
        assert "cannot be read" in str(refused(folder))
