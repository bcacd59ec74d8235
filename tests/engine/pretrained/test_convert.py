"""Pickles to safetensors: the same model, and nothing of a hostile pickle is ever run."""

from __future__ import annotations

import builtins
import json
import os
import pickle
import shutil
import sys
import zipfile

import pytest
import torch
from transformers import AutoModelForCausalLM

from sparsezo_gui import cli
from sparsezo_gui.engine.pretrained.convert import convert
from sparsezo_gui.engine.pretrained.source import inspect
from sparsezo_gui.engine.pretrained.weights import Checkpoint
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.recipe import ModelTable
from tests.engine.conftest import finish
from tests.models import module, tiny


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A folder with everything of a model but its weights."""
    folder = tiny("qwen3", tmp_path_factory.mktemp("qwen3"))
    (folder / "model.safetensors").unlink()
    (folder / "own.py").touch()
    return folder


@pytest.fixture
def folder(bare, tmp_path):
    return shutil.copytree(bare, tmp_path / "model")


def refused(folder, out):
    with pytest.raises(UserError) as error:
        finish(convert(folder, out))
    assert set(os.listdir(out.parent)) <= {"model", "home"}  # nothing half-done is left
    return str(error.value)


def loads_as(out, family="qwen3"):
    source = inspect(out, ModelTable(id=str(out)))
    checkpoint, plain = Checkpoint(source), module(family).state_dict()
    for name, tensor in plain.items():
        assert torch.equal(checkpoint.read(name), tensor), name
    loaded = AutoModelForCausalLM.from_pretrained(out, dtype="float32").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in plain.items())


slow = pytest.mark.slow  # every conversion starts a process that imports torch


@pytest.mark.parametrize("form", [{}, pytest.param({"_use_new_zipfile_serialization": False}, marks=slow)])
def test_a_single_file(folder, tmp_path, form, capfd):
    torch.save(module("qwen3").state_dict(), folder / "pytorch_model.bin", **form)
    assert cli.main(["convert", str(folder), "--out", str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["weights"] == ["model.safetensors"]
    loads_as(tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {path.name for path in folder.iterdir()} - {"pytorch_model.bin", "own.py"} | {"model.safetensors"}
    assert (tmp_path / "out" / "model.safetensors").stat().st_size < (folder / "pytorch_model.bin").stat().st_size


@slow
def test_several_files(folder, tmp_path):
    state = module("qwen3").state_dict()
    state.pop("lm_head.weight")
    files = {name: f"pytorch_model-{number % 3}.bin" for number, name in enumerate(state)}
    for file in set(files.values()):
        torch.save({name: tensor for name, tensor in state.items() if files[name] == file}, folder / file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": files}))
    written = finish(convert(folder, tmp_path / "out"))
    assert written == [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
    assert not (tmp_path / "out" / "pytorch_model.bin.index.json").exists()
    loads_as(tmp_path / "out")


@slow
def test_views_of_one_memory_become_tensors_of_their_own(folder, tmp_path):
    state = module("qwen3").state_dict()
    both = torch.stack([torch.arange(6.0), -torch.arange(6.0)], 1)
    state |= {"left": both[:, 0], "right": both[:, 1], "all": both, "again": both, "none": torch.empty(0)}
    torch.save(state, folder / "pytorch_model.bin")
    finish(convert(folder, tmp_path / "out"))
    source = inspect(tmp_path / "out", ModelTable(id="out"))
    entries = Checkpoint(source).entries
    assert entries["left"].read().tolist() == [0, 1, 2, 3, 4, 5]
    assert torch.equal(entries["all"].read(), both)
    assert "again" not in entries and entries["none"].shape == (0,)


class Calls:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def hostile(marker):
    """Pickles that make a file where they are run, in every way that is known to have been tried."""
    code = f"open({str(marker)!r}, 'w')"
    return {
        "system": Calls(os.system, f"touch {marker}"),
        "popen": Calls(os.popen, f"touch {marker}"),
        "eval": Calls(builtins.eval, code),
        "exec": Calls(builtins.exec, code),
        "open": Calls(builtins.open, str(marker), "w"),
        "getattr": Calls(getattr, Calls(__import__, "os"), "system"),
        "load": Calls(torch.load, str(marker)),
        "nested": {"a": torch.ones(2), "b": [{"c": Calls(os.system, f"touch {marker}")}]},
    }


@pytest.mark.parametrize(
    ("name", "form"),
    [("nested", "zip"), ("system", "bare")]
    + [pytest.param(name, "zip", marks=slow) for name in hostile("") if name != "nested"]
    + [pytest.param("system", "legacy", marks=slow)],
)
def test_a_hostile_pickle_is_refused_and_not_run(folder, tmp_path, name, form):
    content = hostile(tmp_path / "marker")[name]
    with (folder / "pytorch_model.bin").open("wb") as file:
        if form == "bare":
            pickle.dump(content, file)
        else:
            torch.save(content, file, _use_new_zipfile_serialization=form == "zip")
    assert "pytorch_model.bin: not converted, because it " in refused(folder, tmp_path / "out")
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([torch.ones(2)], "it contains no table of tensors"),
        pytest.param({"a": 7}, "'a' in it is not a plain tensor", marks=slow),
        pytest.param({7: torch.ones(2)}, "7 in it is not a plain tensor", marks=slow),
        pytest.param({"a": torch.ones(2).to_sparse()}, "'a' in it is not a plain tensor", marks=slow),
        pytest.param({"a": torch.ones(2, dtype=torch.complex64)}, "'a' in it is not a plain tensor", marks=slow),
        ({"a": torch.ones(1).expand(10**12)}, "its tensors are larger than the file"),
        pytest.param({"a": Calls(bytearray, 10**15)}, "not converted", marks=slow),
    ],
)
def test_other_contents(folder, tmp_path, content, reason):
    torch.save(content, folder / "pytorch_model.bin")
    assert reason in refused(folder, tmp_path / "out")


@slow
def test_damaged_files(folder, tmp_path):
    path = folder / "pytorch_model.bin"
    torch.save(module("qwen3").state_dict(), path)
    whole = path.read_bytes()
    for damaged in (b"", whole[:1000], b"PK\x03\x04" + bytes(100), bytes(1000)):
        path.write_bytes(damaged)
        assert "not converted" in refused(folder, tmp_path / "out")


@slow
def test_parts_that_are_compressed(folder, tmp_path):
    torch.save(module("qwen3").state_dict(), tmp_path / "whole")
    with (
        zipfile.ZipFile(tmp_path / "whole") as old,
        zipfile.ZipFile(folder / "pytorch_model.bin", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    (tmp_path / "whole").unlink()
    assert "parts of it are compressed" in refused(folder, tmp_path / "out")


def test_what_the_reading_process_is_given(folder, tmp_path, monkeypatch):
    """Neither tokens nor the user's Python settings, and an empty folder to be in."""
    from sparsezo_gui.engine.pretrained import unpickle

    spy = tmp_path / "model" / "spy.py"
    spy.write_text(
        "import json, os, sys\n"
        f"json.dump([sorted(os.environ), os.listdir(), sys.flags.isolated], open({str(tmp_path / 'seen')!r}, 'w'))\n"
        "sys.exit(1)\n"
    )
    monkeypatch.setattr(unpickle, "__file__", str(spy))
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="because the converter crashed"):
        finish(convert(folder, tmp_path / "out"))
    variables, files, isolated = json.loads((tmp_path / "seen").read_text())
    assert set(variables) <= {"PATH", "SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "HOME", "LC_CTYPE"}
    assert files == ["reason"] and isolated == 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits are those of the system")
def test_the_limits_of_the_reading_process():
    import subprocess

    from sparsezo_gui.engine.pretrained import unpickle

    code = (
        "import runpy, resource, json\n"
        f"runpy.run_path({unpickle.__file__!r})['confine'](1000)\n"
        "print(json.dumps([resource.getrlimit(getattr(resource, 'RLIMIT_' + n))[1] for n in "
        "('CORE', 'NPROC', 'FSIZE', 'DATA')]))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert all(limit <= most for limit, most in zip(json.loads(found), (0, 0, 100_001_000, 2**33), strict=True))


def test_folders_without_pickles(folder, tmp_path):
    assert "nothing to convert" in refused(folder, tmp_path / "out")
    (folder / "config.json").unlink()
    assert "has no config.json" in refused(folder, tmp_path / "out")


@pytest.mark.parametrize("name", ["../pytorch_model.bin", "/etc/passwd", "model.safetensors"])
def test_an_index_that_points_elsewhere(folder, tmp_path, name):
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    assert "not a bin file in this folder" in refused(folder, tmp_path / "out")


def test_the_sentence_about_a_pickle_names_the_command(folder):
    (folder / "pytorch_model.bin").touch()
    with pytest.raises(UserError, match=f"sparsezo convert {folder} --out"):
        inspect(folder, ModelTable(id=str(folder)))
