"""Tiny frozen models of every family, made once a session."""

from __future__ import annotations

import json
import shutil
from functools import cache

import pytest

from sparsezo_gui import recipe
from sparsezo_gui.recipe.recipe import ModelTable
from sparsezo_gui.recipe.registry import MASKS
from sparsezo_gui.work import finish
from tests.models import tiny

WORDS = ["good", "bad", "great", "dull", "warm", "cold"]


def pytest_collection_modifyitems(items):
    """What is tried on every family is quick on two, whose linear layers lie either way, and slow on the others."""
    for item in items:
        if getattr(getattr(item, "callspec", None), "params", {}).get("family", "llama") not in ("llama", "gpt2"):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def frozen_tiny(tmp_path_factory):
    """``frozen_tiny(family, bits, compute)``: the loaded `FrozenModel` of a tiny random model."""
    from sparsezo_gui.engine import frozen

    @cache
    def folder(family):
        return tiny(family, tmp_path_factory.mktemp("models") / family)

    @cache
    def load(family, bits=4, compute="auto"):
        return finish(frozen.load(ModelTable(id=str(folder(family)), bits=bits, compute=compute, device="cpu")))

    return load


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


@pytest.fixture
def make(tmp_path):
    """``make(family, **tables)``: a recipe on a tiny model and forty examples of two answers."""

    def made(family="llama", **tables):
        folder = tmp_path / family
        if not folder.exists():
            tiny(family, folder)
        rows = [{"text": f"a {WORDS[i % 6]} film {i}", "label": "yes" if i % 2 else "no"} for i in range(40)]
        for split, part in (("train", rows[:24]), ("validation", rows[24:32]), ("test", rows[32:])):
            (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, part)))
        base = {
            "model": {"id": str(folder), "device": "cpu"},
            "data": {"source": str(tmp_path), "template": "{{ text }} is it good?", "columns": {"answer": "label"}},
            "mask": {"rule": "random"},
            "update": {"schedule": "constant"},
            "loop": {"steps": 6, "batch_size": 4, "evaluate_every": 4, "seed": 3},
            "run": {"name": "tiny"},
        }
        whole = {key: {**base.get(key, {}), **tables.get(key, {})} for key in {*base, *tables}}
        if "density" in MASKS[whole["mask"]["rule"]].model_fields:
            whole["mask"].setdefault("density", 0.01)
        return recipe.build(whole)

    return made


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """A folder for what is made once."""
    return tmp_path_factory.mktemp("once")


@pytest.fixture
def trained(make, tmp_path, once):
    """``trained(name, **tables)``: the run of a recipe of `make`, in the folder 'run' beside its model and data.

    It is trained once under this name, and then copied to where each test has its model and data.
    """
    from sparsezo_gui.engine import training
    from sparsezo_gui.engine.runs.folder import open_run

    def made(name, **tables):
        chosen, run, kept = make(**tables), tmp_path / "run", once / name
        if not kept.exists():
            list(training.train(chosen, folder=run))
            shutil.copytree(run, kept / "run")
            (kept / "place").write_text(str(tmp_path))
            return open_run(run)
        shutil.copytree(kept / "run", run)
        for path in run.glob("*.*"):
            if path.suffix in (".json", ".jsonl", ".toml"):
                path.write_text(path.read_text().replace((kept / "place").read_text(), str(tmp_path)))
        return open_run(run)

    return made
