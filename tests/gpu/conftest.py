"""What only a GPU shows; packaging/gpu_check.sh runs it. Without a GPU nothing here is collected."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

import pytest
import torch

from sparsezo_gui.engine import frozen
from sparsezo_gui.engine.bench import shapes
from sparsezo_gui.engine.masks.rule import Search
from sparsezo_gui.engine.session import Session
from sparsezo_gui.engine.spaces.values import tuned_values
from sparsezo_gui.recipe import Recipe, with_settings
from sparsezo_gui.recipe.recipe import ModelTable
from tests.engine.conftest import finish, make  # noqa: F401
from tests.models import tiny

collect_ignore_glob = [] if torch.cuda.is_available() else ["test_*.py"]
RESULTS = os.environ.get("SPARSEZO_GPU_RESULTS")  # the file that check.py reads: an object a line
GPU = torch.device("cuda", 0)
MIB, GIB = 2**20, 2**30


def note(**facts):
    if RESULTS:
        with open(RESULTS, "a", encoding="utf-8") as file:
            file.write(json.dumps(facts) + "\n")


def pytest_runtest_logreport(report):
    """Each test by its outcome, with what it failed of."""
    if report.when == "call" or report.outcome != "passed":
        why = str(report.longrepr)[-3000:] if report.failed else ""
        note(test=report.nodeid.split("::", 1)[1], outcome=report.outcome, seconds=round(report.duration, 2), why=why)


def session_of(place):
    """A session at its first step: the default recipe with a random mask on the model in ``place``."""
    chosen = with_settings(Recipe(), [f"model.id={place}", "model.device=cuda", "mask.rule=random"])
    model = finish(frozen.load(chosen.model))
    session = Session(chosen, model, tuned_values(model, finish(chosen.mask.find(model, Search(0, chosen.data)))))
    session.begin()
    return session


@pytest.fixture
def figure():
    """``figure(name, value, unit)`` keeps what was measured."""

    def keep(name, value, unit):
        note(figure=name, value=round(value, 4), unit=unit)
        print(f"{name}: {value:.4g} {unit}")

    return keep


@pytest.fixture(scope="session")
def frozen_tiny(tmp_path_factory):
    """As in tests/engine, on the GPU and in fp32, so that the same comparisons hold."""

    @cache
    def load(family, bits=4, compute="float32"):
        folder = tmp_path_factory.getbasetemp() / family
        if not folder.exists():
            tiny(family, folder)
        return finish(frozen.load(ModelTable(id=str(folder), bits=bits, compute=compute, device="cuda")))

    return load


@pytest.fixture
def at_most():
    """``at_most(bytes)``: no more of the GPU's memory from here on, as on a smaller one."""

    def limit(size):
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(size / torch.cuda.get_device_properties(GPU).total_memory)

    yield limit
    torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.fixture(scope="session")
def shape(tmp_path_factory):
    """``shape(name)``: the folder of a model of such a shape, in memory where there is room."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 24 * GIB
    base = Path(tempfile.mkdtemp(dir=memory if roomy else tmp_path_factory.getbasetemp()))
    yield cache(lambda name: finish(shapes.make(name, base / name)))
    shutil.rmtree(base)
