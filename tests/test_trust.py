"""Every command beside a model that comes with code: none runs it without the user's --trust-remote-code."""

from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path

import pytest

import sparsezo_gui
from sparsezo_gui import cli
from sparsezo_gui.engine.pretrained.code import find_code
from sparsezo_gui.recipe.recipe import ModelTable
from tests.own_code import edit, own_code

TRUST = "--trust-remote-code"
PACKAGE = Path(sparsezo_gui.__file__).parent
READERS = (
    "engine/pretrained/code.py", "engine/hub/cache.py", "gui/pages/model.py", "cli/__init__.py", "cli/command.py",
    "cli/plans.py", "cli/hub.py", "cli/launch.py", "cli/submit.py",
)  # fmt: skip
"""What looks at the recipe's key: whether there is code to ask about, whether to fetch it, its field; and the flag."""


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "marker"


@pytest.fixture
def recipe(tmp_path, marker):
    own_code(tmp_path / "model", marker)
    rows = [{"text": f"film {i}", "label": "yes" if i % 2 else "no"} for i in range(40)]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    path = tmp_path / "r.toml"
    path.write_text(
        f'[model]\nid = "{tmp_path / "model"}"\ndevice = "cpu"\ntrust_remote_code = true\n'
        '[data]\nsource = "data.jsonl"\ntemplate = "{{ text }} is it?"\ncolumns = { answer = "label" }\n'
        "train = 8\nvalidation = 0\ntest = 2\n"
        '[mask]\nrule = "random"\ndensity = 0.01\n[loop]\nsteps = 2\nbatch_size = 2\nevaluate_every = 0\n'
    )
    return path


@pytest.fixture
def run(capsys):
    """``run(*arguments)``: exit code, standard output, standard error."""

    def call(*arguments):
        capsys.readouterr()
        code = cli.main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def another_code(tmp_path, marker):
    """Changes a byte of the code. What was let run before runs no more in this process either."""

    def change():
        path = tmp_path / "model" / "marks.py"
        path.write_bytes(path.read_bytes() + b"\n")
        marker.unlink(missing_ok=True)

    return change


def test_no_command_with_a_recipe_runs_code_that_the_recipe_trusts(recipe, marker, run, tmp_path):
    for command in (
        ["train", recipe], ["train", recipe, "--set=model.trust_remote_code=true"], ["estimate", recipe, "--measure"],
        ["estimate", recipe], ["rates", recipe], ["noise", recipe],
        ["mask", recipe, "--out", tmp_path / "m.safetensors"],
        ["evaluate", recipe], ["bench", "quality", f"--set=model.id={tmp_path / 'model'}", "--out", tmp_path / "bench",
                               "--set=model.trust_remote_code=true"],
    ):  # fmt: skip
        code, out, error = run(*command, "--json")
        assert code == 2 and "parts/extra.py" in error and TRUST in error, command
        assert str(tmp_path / "model") in error and '"event": "started"' not in out
    for command in ("runs", "models", "recipes"):
        assert run(command)[0] == 0
    assert not marker.exists()


def test_with_the_flag_it_runs_and_the_files_are_named(recipe, marker, run, tmp_path, another_code):
    code, out, error = run("train", recipe, "--run", tmp_path / "run", TRUST, "--json")
    assert code == 0 and marker.exists()
    assert "parts/extra.py" in error and str(tmp_path / "model") in error
    assert all(json.loads(line) for line in out.splitlines())
    code, _, error = run("verify", tmp_path / "run")
    assert code == 0 and "extra.py" not in error
    another_code()
    assert run("verify", tmp_path / "run")[0] == 2 and not marker.exists()
    code, _, error = run("verify", tmp_path / "run", TRUST)
    assert code == 2 and "model's configuration changed since the run started" in error and marker.exists()


def test_the_flag_alone_suffices_where_the_recipe_does_not_know_of_the_code(recipe, marker, run, tmp_path):
    recipe.write_text(recipe.read_text().replace("trust_remote_code = true\n", ""))
    code, _, error = run("estimate", recipe)
    assert code == 2 and "trust_remote_code = true and allow the code" in error
    assert run("estimate", recipe, TRUST)[0] == 0 and marker.exists()
    assert run("train", recipe, "--run", tmp_path / "run", TRUST)[0] == 0
    assert "trust_remote_code = true" in (tmp_path / "run" / "recipe.toml").read_text()


def test_no_command_with_a_run_runs_code_that_changed(recipe, marker, run, tmp_path, another_code):
    made = tmp_path / "run"
    assert run("train", recipe, "--run", made, TRUST)[0] == 0
    another_code()
    loading = (
        ["resume", made], ["verify", made], ["evaluate", made], ["generate", made, "--prompt", "a"],
        ["export", made, "--format", "overlay", "--out", tmp_path / "o.safetensors"],
        ["export", made, "--format", "hf", "--out", tmp_path / "hf"],
    )  # fmt: skip
    for command in loading:
        code, _, error = run(*command)
        assert code == 2 and "parts/extra.py" in error, command
    shared, received = tmp_path / "shared.zip", tmp_path / "received"
    assert run("share", made, "--out", shared)[0] == 0
    places = (f"--set=model.id={tmp_path / 'model'}", f"--set=data.source={tmp_path / 'data.jsonl'}")
    assert run("receive", shared, "--run", received, *places, "--set=model.trust_remote_code=true")[0] == 0
    assert run("branch", made, "--step", 1, "--set=loop.steps=3")[0] == 0
    assert "parts/extra.py" in run("verify", received)[2]
    assert not marker.exists()
    for command in loading:
        code, _, error = run(*command, TRUST)
        assert code == 2 and "model's configuration changed since the run started" in error, command
    for command in loading[2:]:
        assert run(*command, "--changed-inputs")[0] == 0, command
    assert run("evaluate", received, "--changed-inputs")[0] == 0


@pytest.mark.parametrize("changed", ["tokenization_own.py", "parts/extra.py"])
def test_any_code_file_that_changed_is_a_changed_input(recipe, run, tmp_path, changed):
    """Also where the tokenizer alone has code, and where the file lies in a folder of its own."""
    edit(tmp_path / "model" / "config.json", auto_map={}, model_type="llama")
    made, path = tmp_path / "run", tmp_path / "model" / changed
    assert run("train", recipe, "--run", made, TRUST)[0] == 0
    path.write_text(path.read_text() + "\n")
    code, _, error = run("evaluate", made, TRUST)
    assert code == 2 and "model's configuration changed since the run started" in error


def test_an_exported_folder_holds_the_code_that_ran_and_says_so(recipe, run, tmp_path, marker):
    model, made, out = tmp_path / "model", tmp_path / "run", tmp_path / "hf"
    assert run("train", recipe, "--run", made, TRUST)[0] == 0
    before = find_code(ModelTable(id=str(model), trust_remote_code=True), model)
    for weights in ("original", "trained"):
        shutil.rmtree(out, ignore_errors=True)
        code, told, _ = run("export", made, "--format", "hf", "--out", out, "--weights", weights)
        assert code == 0 and "Written" in told
        assert find_code(ModelTable(id=str(out), trust_remote_code=True), out).hash == before.hash
        assert "trust_remote_code=True" in (out / "README.md").read_text()
        assert f"sparsezo train recipe.toml {TRUST}" in (out / "README.md").read_text()
    again = recipe.read_text().replace(str(model), str(out))
    recipe.write_text(again)
    assert run("evaluate", recipe)[0] == 0  # the same code, in another folder


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_one_place_alone_reaches_code_of_models(path):
    """Auto classes of transformers are called in one module and never trust; own classes come from another one."""
    place = path.relative_to(PACKAGE).as_posix()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        where = f"{place}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
            assert isinstance(node.value, ast.Constant) and node.value.value is False, where
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        autos = [name for name in names if name.startswith("Auto") or "dynamic_module" in name]
        assert not autos or place == "engine/pretrained/auto.py", where
        if isinstance(node, ast.Attribute) and node.attr == "trust_remote_code":
            assert place in READERS, where
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "TrustedCode":
            assert place == "engine/pretrained/consent.py", where
    if place == "engine/pretrained/auto.py":
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
        autos = [node for node in calls if getattr(node.func.value, "id", "").startswith("Auto")]
        assert len(autos) == 4 and all("trust_remote_code" in [each.arg for each in node.keywords] for node in autos)
