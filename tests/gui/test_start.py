"""Starting the program: quickly, without torch, and with words where something is wrong."""

from __future__ import annotations

import locale
import os
import subprocess
import sys

import pytest

from sparsezo_gui import resources
from sparsezo_gui.gui.app import make_application
from sparsezo_gui.gui.messages import Failed, Ticket
from sparsezo_gui.gui.requests import ListModels
from sparsezo_gui.gui.worker import Worker

HEADLESS = {**os.environ, "DISPLAY": "", "WAYLAND_DISPLAY": "", "QT_QPA_PLATFORM": "offscreen"}


def python(*arguments: str, **variables: str) -> subprocess.CompletedProcess:
    command, environment = [sys.executable, *arguments], {**HEADLESS, **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.slow
def test_the_window_is_imported_and_its_recipe_built_without_what_takes_seconds():
    heavy = (
        "torch", "transformers", "bitsandbytes", "datasets", "huggingface_hub", "pyqtgraph",
        "sparsezo_gui.engine.training",
    )  # fmt: skip
    code = (
        "import sys, sparsezo_gui.gui.app, sparsezo_gui.gui.pages.model\nfrom sparsezo_gui.recipe import load\n"
        f"load('starter'); print([m for m in {heavy} if m in sys.modules])"
    )
    done = python("-W", "error", "-c", code)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


@pytest.mark.slow
def test_help_needs_neither_display_nor_torch_nor_qt():
    code = (
        "import sys\nfrom sparsezo_gui.__main__ import main\ntry:\n    main(['--help'])\nexcept SystemExit as e:\n"
        "    assert e.code == 0\nprint([m for m in ('torch', 'PySide6', 'pydantic') if m in sys.modules])"
    )
    done = python("-c", code)
    assert "--exit-when-done" in done.stdout and done.stdout.strip().endswith("[]")


@pytest.mark.slow
def test_a_wrong_recipe_is_told_before_a_window_opens(tmp_path):
    recipe = tmp_path / "wrong.toml"
    recipe.write_text("[loop]\nstep = 5\n")
    for target, word in ((str(recipe), "Did you mean 'steps'?"), ("startr", "Did you mean 'starter'?")):
        done = python("-m", "sparsezo_gui", target)
        assert done.returncode == 2
        assert word in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_recipe_that_is_wrong_for_its_data_is_bad_input(tmp_path):
    recipe = tmp_path / "recipe.toml"
    text = resources.recipe("starter").read_text(encoding="utf-8")
    recipe.write_text(text.replace("{{ text }}", "{text}"))
    done = python("-m", "sparsezo_gui", str(recipe), "--autostart", "--exit-when-done", XDG_CONFIG_HOME=str(tmp_path))
    assert done.returncode == 2 and "Did you mean '{{ text }}'?" in done.stderr, done.stderr


def test_numbers_have_points():
    make_application()
    assert locale.localeconv()["decimal_point"] == "."


@pytest.mark.parametrize("fault", [ValueError("broken"), type("PanicException", (BaseException,), {})("broken")])
def test_a_fault_in_a_library_ends_no_worker(fault):
    """A panic in Rust is no Exception."""

    class Engine:
        def models(self):
            raise fault

    worker = Worker(Engine())
    worker._serve(Ticket(1, ListModels()))
    (told,) = worker.outbox
    assert isinstance(told, Failed) and told.ticket.number == 1 and "broken" in told.problem.details


def test_an_order_to_leave_is_no_fault():
    class Engine:
        def models(self):
            raise SystemExit

    with pytest.raises(SystemExit):
        Worker(Engine())._serve(Ticket(1, ListModels()))
