"""How the program starts: what is set, and what is left out, before the first library loads."""

from __future__ import annotations

import gc
import os
import subprocess
import sys

import pytest

from sparsezo_gui import start


@pytest.mark.slow
def test_no_compiler_is_loaded_with_the_engine():
    code = (
        "import sys, torch, sparsezo_gui.engine.training\n"
        "print('torch._inductor.compile_fx' in sys.modules, torch.compile.__module__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "torch"]


@pytest.mark.parametrize(("set_before", "expected"), [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"),
                                                      ({"OMP_WAIT_POLICY": "active"}, "None")])  # fmt: skip
def test_threads_wait_without_spinning_unless_the_user_says_how(set_before, expected):
    mine = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    code = "import os, sparsezo_gui; print(os.environ.get('GOMP_SPINCOUNT'))"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**mine, **set_before}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == expected


def test_garbage_is_collected_as_usual_once_a_run_begins(monkeypatch):
    usual, frozen = gc.get_threshold(), []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(gc.get_threshold()))
    start.loaded()
    assert gc.get_threshold() == usual and not frozen, "another program's process is left alone"
    gc.set_threshold(*start.LOADING)
    start.loaded()
    assert gc.get_threshold() == usual and frozen == [start.LOADING]
