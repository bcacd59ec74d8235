"""Nothing listens and nothing is sent: the real programs, online, watched for every socket that is not local."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.models import small_recipe

pytestmark = pytest.mark.slow

WATCHED = """
import json, socket, sys
seen = []
events = {"socket.bind", "socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo",
          "socket.gethostbyname", "socket.gethostbyaddr"}
local = getattr(socket, "AF_UNIX", None)

def watch(event, arguments):
    if event in events and getattr(arguments[0], "family", None) != local:
        seen.append(f"{event} {arguments[1:]}")

sys.addaudithook(watch)
from sparsezo_gui.cli import main as train
from sparsezo_gui.__main__ import main as window
code = {"train": train, "window": window}[sys.argv[1]](sys.argv[3:])
import psutil  # sees what native code has opened
seen += [str(each) for each in psutil.Process().net_connections("inet")]
json.dump(seen, open(sys.argv[2], "w"))
sys.exit(code)
"""


@pytest.fixture
def recipe(tmp_path):
    return small_recipe(
        tmp_path,
        "train = 20\nvalidation = 8\ntest = 8\n"
        '[mask]\nrule = "sensitive"\ntext = "starter"\nsequences = 2\ntokens = 16\n'
        "[loop]\nsteps = 3\nbatch_size = 2\nevaluate_every = 0\n",
    )


def watched(tmp_path, *arguments, code=0):
    """What a program opened while it ran."""
    free = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, arguments[0], tmp_path / "seen.json", *arguments[1:]], text=True, check=False,
        env={**free, "SPARSEZO_HOME": str(tmp_path / "home"), "HF_HOME": str(tmp_path / "huggingface"),
             "HF_ENDPOINT": "http://127.0.0.1:9", "QT_QPA_PLATFORM": "offscreen",
             "XDG_CONFIG_HOME": str(tmp_path / "config")}, capture_output=True,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads((tmp_path / "seen.json").read_text())


def test_a_run_on_the_command_line(tmp_path, recipe):
    assert watched(tmp_path, "train", "train", recipe) == []


def test_a_run_in_the_window(tmp_path, recipe):
    assert watched(tmp_path, "window", recipe, "--autostart", "--exit-when-done") == []


def test_no_compiled_code_is_fetched(tmp_path):
    """Which bitsandbytes would do on some CPUs as soon as it is imported, and transformers with some models."""
    (tmp_path / "kernels.py").write_text("def get_kernel(*_, **__):\n    raise SystemExit('fetched')\n")
    done = subprocess.run(
        [sys.executable, "-c", "import sparsezo_gui.engine, bitsandbytes, importlib.util\n"
         "from transformers.utils import is_kernels_available\n"
         "print(importlib.util.find_spec('kernels'), is_kernels_available())"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)}, text=True, check=False, capture_output=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "None False\n", "")


def test_the_watch_sees_a_program_that_asks_the_hub(tmp_path):
    lure = tmp_path / "lure.toml"
    lure.write_text('[model]\nid = "owner/nothing"\n')
    assert "socket.connect (('127.0.0.1', 9),)" in watched(tmp_path, "train", "train", lure, code=2)
