"""For all tests: nothing of the user's is touched, and nothing is asked of the network."""

from __future__ import annotations

import gc
import os
import signal
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["PYTHON_KEYRING_BACKEND"] = "keyring.backends.null.Keyring"
# Tiny tensors gain nothing from threads, and several test processes share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else every process that tests start would compile the program again

import hypothesis
import pytest

from sparsezo_gui import resources

# Where tests run in the background of a script, they and what they start would ignore Ctrl-C, which some of them try.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Examples may take any time, on a busy computer, and share a test's folder.
NOT_CHECKED = [hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.function_scoped_fixture]
hypothesis.settings.register_profile("without a clock", deadline=None, suppress_health_check=NOT_CHECKED)
hypothesis.settings.load_profile("without a clock")


def pytest_addoption(parser):
    parser.addoption("--faults", type=int, default=3, metavar="N", help="how many faults of each kind are tried")
    help = "damaged inputs of each format in tests/fuzz: N of them, or those from FIRST:END (default: 300)"
    parser.addoption("--fuzz", default="300", metavar="N", help=help)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home of the program's own for each test."""
    folder = tmp_path / "home"
    monkeypatch.setenv("SPARSEZO_HOME", str(folder))
    return folder


@pytest.fixture(autouse=True)
def _kept_pages(monkeypatch):
    """Pages of a mapped file are not given back after each weight, which takes a fifth of loading a tiny model."""
    finite = sys.modules.get("sparsezo_gui.engine.pretrained.finite")
    if finite:
        monkeypatch.setattr(finite, "let_go", lambda files: None)


@pytest.fixture(autouse=True)
def _unsynced(monkeypatch):
    """Nothing waits for the disk; what survives a power cut is tried on a double, in tests/faults."""
    monkeypatch.setattr(os, "fsync", os.fstat)


@pytest.fixture(autouse=True)
def _frozen(monkeypatch):
    """What is alive before a test is not looked through again: a run collects several times, and with the libraries of
    the engine in memory every time takes 0.4 s. Nor is it counted, which takes half of loading a tiny model."""
    gc.collect()
    gc.freeze()
    monkeypatch.setattr(gc, "get_freeze_count", lambda: 1)


@pytest.fixture(scope="session")
def _few_words(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "check.jsonl"
    path.write_text('{"text": "The tide had gone out further than ever."}\n')
    return path


@pytest.fixture(autouse=True)
def _short_check(monkeypatch, _few_words):
    """A run ends with a few words of general text; the bundled pages, which tests/engine/test_general.py and processes
    read, take a quarter of a tiny run."""
    monkeypatch.setattr(resources, "CHECK_TEXT", _few_words)


@pytest.fixture
def run(capsys):
    """``run(*arguments)``: exit code, lines of standard output, text of standard error."""

    from sparsezo_gui import cli

    def call(*arguments):
        capsys.readouterr()
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code
        out, error = capsys.readouterr()
        assert "Traceback" not in error + out
        return code, out.splitlines(), error

    return call
