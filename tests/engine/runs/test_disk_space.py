"""Room on the disk is told before the start: what cannot end is refused, what may not fit is told."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest

from sparsezo_gui.engine.hub.cache import find
from sparsezo_gui.engine.runs import disk_space
from sparsezo_gui.engine.runs.gradients import RECORD_BYTES
from sparsezo_gui.engine.runs.journal import HEADER_BYTES, record_dtype
from sparsezo_gui.engine.training import train
from sparsezo_gui.engine.zo.estimators.first_order import FirstOrder
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import toml
from sparsezo_gui.recipe.events import Notice
from tests.engine.conftest import finish
from tests.models import small_recipe


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """A run of 100 000 steps, of half of the weights."""
    path = small_recipe(
        tmp_path_factory.mktemp("room"),
        '[mask]\nrule = "random"\ndensity = 0.5\n[loop]\nsteps = 100000\nbatch_size = 2\nevaluate_every = 0\n',
    )
    return toml.load(path)


@pytest.fixture(scope="module")
def source(recipe):
    return finish(find(recipe.model))


def free(monkeypatch, size):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=size, total=10**12, used=0))


def test_what_a_run_needs(recipe, source):
    found, tuned = disk_space.needed(recipe, source), source.spec.eligible // 2
    assert found.least == HEADER_BYTES + 100_000 * record_dtype(1).itemsize + 4 * tuned
    checkpoints = -(-100_000 // disk_space.spacing(tuned))
    assert found.checkpoints == checkpoints * round(0.5 * 4 * tuned) < 2000 * 2**20
    assert found.export == sum(path.stat().st_size for path in source.folder.glob("*.safetensors"))
    few = recipe.model_copy(update={"run": recipe.run.model_copy(update={"checkpoints": 1})})
    assert disk_space.needed(few, source).checkpoints == 2**20


def test_what_is_told(recipe, source, tmp_path, monkeypatch):
    need = disk_space.needed(recipe, source)
    free(monkeypatch, need.least + need.checkpoints + need.export)
    assert list(disk_space.check(recipe, source, tmp_path)) == []
    free(monkeypatch, need.least + need.checkpoints)
    (sentence,) = disk_space.check(recipe, source, tmp_path)
    assert "too little space for the merged model" in sentence and "to another disk" in sentence
    free(monkeypatch, need.least)
    (sentence,) = disk_space.check(recipe, source, tmp_path)
    assert sentence.startswith("The checkpoints of this run may take") and "[run] checkpoints" in sentence
    free(monkeypatch, need.least - 1)
    with pytest.raises(UserError, match=r"the run needs [\d.]+ MiB for its journal and mask, but only [\d.]+ MiB are"):
        list(disk_space.check(recipe, source, tmp_path))


def test_exact_gradients_count_up_to_their_budget(recipe, source, tmp_path, monkeypatch):
    exact = recipe.model_copy(update={"estimator": FirstOrder()})
    tuned = source.spec.eligible // 2
    assert (disk_space.needed(recipe, source).gradients, disk_space.needed(exact, source).gradients) == (
        0,
        1000 * 2**20,
    )
    few = exact.model_copy(update={"loop": recipe.loop.model_copy(update={"steps": 1000})})
    need = disk_space.needed(few, source)
    assert need.gradients == 1000 * (RECORD_BYTES + 2 * tuned)
    assert need.checkpoints == -(-1000 // disk_space.spacing(tuned)) * round(0.5 * 4 * tuned)
    none = few.model_copy(update={"run": recipe.run.model_copy(update={"gradients": 0})})
    assert disk_space.needed(none, source).checkpoints == 1000 // 20 * round(0.5 * 4 * tuned)
    free(monkeypatch, need.least + need.checkpoints)
    (sentence,) = disk_space.check(few, source, tmp_path)
    assert sentence.startswith("The checkpoints and gradients of this run may take")
    assert "a smaller [run] checkpoints or gradients" in sentence


def test_a_run_without_room_is_refused_before_its_data_is_read(recipe, tmp_path, monkeypatch):
    free(monkeypatch, 1000)
    with pytest.raises(UserError, match="Free some space, or choose a folder on another disk"):
        for event in train(recipe, folder=tmp_path / "run"):
            assert not isinstance(event, Notice)
    assert not (tmp_path / "run").exists()
