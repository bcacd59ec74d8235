"""The Python interface, and the examples of it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest

import sparsezo_gui as sz
from sparsezo_gui import api, resources
from tests.models import small_recipe

SETTINGS = ("loop.steps=4", "loop.batch_size=4", "update.learning_rate=0.01", "mask.rule=random",
            "mask.density=0.01", "loop.evaluate_every=2", "data.test=4", "data.validation=4")  # fmt: skip


def example(name):
    path = resources.ROOT / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"example_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert len(path.read_text().splitlines()) < 30
    return module.main


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A recipe file, and the folder of a run of it that was interrupted after two steps and resumed."""
    folder = tmp_path_factory.mktemp("api")
    path = small_recipe(folder)
    chosen = sz.load_recipe(path, *SETTINGS)
    for event in sz.train(chosen, folder / "run"):
        if event.as_json().get("step") == 2 and event.as_json()["event"] == "step":
            break
    assert len(sz.Run(folder / "run").steps()) == 2
    names = [event.as_json()["event"] for event in sz.Run(folder / "run").resume()]
    assert names.count("step") == 2 and names[-1] == "finished"
    return path, folder / "run"


def test_the_import_is_light():
    code = (
        "import sys, sparsezo_gui as sz, sparsezo_gui.api; sz.load_recipe('starter', 'loop.steps=7'); "
        "print([name for name in ('torch', 'PySide6', 'transformers', 'numpy') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_names():
    assert all(getattr(sz, name) is getattr(api, name) for name in sz.__all__) and sz.__all__ == api.__all__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = sz.nothing


def test_recipes(tmp_path):
    assert sz.load_recipe("starter", "loop.steps=7").loop.steps == 7
    assert sz.load_recipe({"loop": {"steps": 9}}).loop.steps == 9
    for wrong, sentence in ((("startr",), "starter"), (("starter", "loop.stepz=7"), "steps")):
        with pytest.raises(sz.UserError, match=sentence):
            sz.load_recipe(*wrong)
    with pytest.raises(sz.UserError, match="There is no run folder"):
        sz.Run(tmp_path / "nothing")


def test_a_run_is_the_same_as_on_the_command_line(trained, tmp_path, capsys):
    from sparsezo_gui import cli

    _, folder = trained
    run = sz.Run(folder)
    steps = run.steps()
    assert steps["step"].tolist() == [1, 2, 3, 4] and np.isfinite(steps["loss"]).all() and (steps["tokens"] > 0).all()
    assert [event.step for event in run.events() if event.as_json()["event"] == "evaluation"][-1] == 4
    assert cli.main(["evaluate", str(folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    found = run.evaluate()
    for model in ("base", "tuned"):
        assert found[model] == {name: pytest.approx(told[model][name]) for name in found[model]}
    assert found["base"]["loss"] != found["tuned"]["loss"]
    assert run.evaluate(step=0)["tuned"] == found["base"]
    probabilities = run.probabilities("a film 3")
    assert sum(probabilities.values()) == pytest.approx(1) and run.generate("a film 3") == next(iter(probabilities))
    assert run.probabilities("a film 3", base=True) == run.probabilities("a film 3", 0) != probabilities
    assert run.generate("a film", raw=True, tokens=3) != ""
    report = run.export(tmp_path / "o.safetensors", "overlay", "best")
    assert (tmp_path / "o.safetensors").is_file() and report["format"] == "overlay"
    for wrong in (lambda: run.evaluate("tests"), lambda: run.evaluate(step="bst"), lambda: run.evaluate(step=9),
                  lambda: run.probabilities("a", 9)):  # fmt: skip
        with pytest.raises(sz.UserError):
            wrong()


def test_examples(trained, tmp_path, capsys):
    path, folder = trained
    example("train")(str(path), str(tmp_path / "run"), *SETTINGS[1:], "loop.steps=10")
    said = capsys.readouterr().out
    assert "step 10: loss " in said and "\ntuned {" in said and "'loss': 0." in said
    assert example("compare")(str(path), str(tmp_path / "runs"), *SETTINGS, rates=(1e-4, 1e-2)) in (1e-4, 1e-2)
    assert {each.name for each in (tmp_path / "runs").iterdir()} == {"rate-0.0001", "rate-0.01"}
    example("use")(str(folder), "a film 3", str(tmp_path / "out"))
    assert "4 steps, loss " in capsys.readouterr().out and (tmp_path / "out" / "model.safetensors").is_file()
