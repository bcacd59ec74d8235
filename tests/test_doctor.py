"""`sparsezo doctor`: each fault, from facts that have it, gets a sentence and the command that mends it."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import constants

from sparsezo_gui import doctor
from sparsezo_gui.doctor import Facts, Folder, examine, facts

GIB = 2**30
HOME = Folder("Program's folder", Path("/home/me/sparsezo"), 50 * GIB, True, "SPARSEZO_HOME")
WELL = Facts(
    python="3.12.1", executable="/my env/bin/python", pip=True, python_needed=">=3.11",
    required=("torch==2.13.*", "numpy==2.4.*", 'pywin32==1.*; sys_platform == "win32"'),
    installed={"torch": "2.13.0", "numpy": "2.4.1"}, cuda="13.0", cpu_only=False, driver="580.65.06", libraries=(),
    installer="apt-get", folders=(HOME,), offline=(), downloaded=False, memory=16 * GIB, available=8 * GIB, token="",
)  # fmt: skip
PIP = "'/my env/bin/python' -m pip install"
INDEX = "https://download.pytorch.org/whl"

FAULTS = {
    "old Python": (
        {"python": "3.10.2"}, "This is Python 3.10.2, but SparseZO needs >=3.11.",
        "python3 -m venv .venv && .venv/bin/pip install -e .",
    ),
    "wrong version, in an environment of uv": (
        {"installed": {**WELL.installed, "numpy": "2.3.0"}, "pip": False},
        "numpy 2.3.0 is installed; SparseZO needs numpy==2.4.*.",
        "uv pip install --python '/my env/bin/python' 'numpy==2.4.*'",
    ),
    "wrong version": (
        {"installed": {"torch": "2.13.0", "numpy": "2.5.0"}},
        "numpy 2.5.0 is installed; SparseZO needs numpy==2.4.*.", f"{PIP} 'numpy==2.4.*'",
    ),
    "missing package": (
        {"installed": {"numpy": "2.4.1"}}, "torch is not installed; SparseZO needs torch==2.13.*.",
        f"{PIP} 'torch==2.13.*'",
    ),
    "not installed": ({"required": ()}, "SparseZO is not installed in this Python.", f"{PIP} -e ."),
    "CPU build": (
        {"installed": {"torch": "2.13.0+cpu", "numpy": "2.4.1"}, "cuda": "", "cpu_only": True},
        "There is an NVIDIA GPU (driver 580.65.06), but PyTorch 2.13.0+cpu supports CPUs only.",
        f"{PIP} --force-reinstall 'torch==2.13.*' --index-url {INDEX}/cu130",
    ),
    "old driver": (
        {"driver": "535.129.03"},
        "The NVIDIA driver 535.129.03 is too old for CUDA 13.0 of PyTorch, which needs 580.",
        f"{PIP} --force-reinstall 'torch==2.13.*' --index-url {INDEX}/cu126",
    ),
    "very old driver": (
        {"driver": "470.82"}, "The NVIDIA driver 470.82 is too old for CUDA 13.0 of PyTorch, which needs 580.",
        "sudo ubuntu-drivers install",
    ),
    "Qt on Debian": (
        {"libraries": ("libEGL.so.1", "libdbus-1.so.3", "libglib-2.0.so.0", "libxcb-icccm.so.4")},
        "The window needs libEGL.so.1, libdbus-1.so.3, libglib-2.0.so.0, libxcb-icccm.so.4.",
        "sudo apt install libdbus-1-3 libegl1 libglib2.0-0 libxcb-icccm4",
    ),
    "Qt on Fedora": (
        {"libraries": ("libEGL.so.1",), "installer": "dnf"}, "The window needs libEGL.so.1.",
        "sudo dnf install 'libEGL.so.1()(64bit)'",
    ),
    "unwritable": (
        {"folders": (replace(HOME, writable=False),)},
        "You cannot write to /home/me/sparsezo. Choose another folder.",
        "export SPARSEZO_HOME=~/sparsezo_home",
    ),
    "full disk": (
        {"folders": (replace(HOME, free=GIB),)},
        "Only 1.00 GiB are free for /home/me/sparsezo. Remove what is kept there, or other files.", "sparsezo cache",
    ),
    "offline": (
        {"offline": ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")},
        "Downloads are forbidden by HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE, but nothing was downloaded before.",
        "unset HF_HUB_OFFLINE TRANSFORMERS_OFFLINE",
    ),
    "memory": ({"available": 2**29}, "Only 512 MiB of memory are free. Close other programs.", ""),
}  # fmt: skip


@pytest.fixture
def computer(monkeypatch):
    """``computer(**changes)``: the command sees a healthy computer with these changes."""

    def set(**changes):
        monkeypatch.setattr(doctor, "look", lambda token: replace(WELL, **{"token": token, **changes}))

    return set


def wrong(found):
    return [(each.problem, each.command) for each in found if each.problem]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_has_a_sentence_and_a_command(fault):
    changes, problem, command = FAULTS[fault]
    assert wrong(examine(replace(WELL, **changes))) == [(problem, command)]


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"driver": "", "cuda": "", "cpu_only": True}, {"cuda": "12.8", "driver": "525.60.13"},
        {"offline": ("HF_HUB_OFFLINE",), "downloaded": True}, {"driver": "", "cuda": "13.0"}, {"memory": 0},
    ],
)  # fmt: skip
def test_a_healthy_computer_has_none(changes):
    assert wrong(examine(replace(WELL, **changes))) == []


def test_the_command_is_a_list_for_people_and_exits_0(run, computer):
    computer()
    code, lines, error = run("doctor")
    assert (code, error, lines[-1]) == (0, "", "No problems found.")
    assert any("2 of 2 as required" in line for line in lines)


def test_it_exits_1_where_something_is_wrong(run, computer):
    computer(available=2**29, libraries=("libGL.so.1",))
    code, lines, error = run("doctor")
    assert (code, error) == (1, "")
    assert lines[-3:] == ["The window needs libGL.so.1.", "    sudo apt install libgl1",
                          "Only 512 MiB of memory are free. Close other programs."]  # fmt: skip


def test_json_has_one_line_for_each_finding(run, computer):
    computer(libraries=("libGL.so.1",))
    code, lines, error = run("doctor", "--json")
    found = {row["check"]: row for row in map(json.loads, lines)}
    assert (code, error) == (1, "")
    qt = found["Qt's libraries"]
    assert (qt["problem"], qt["command"]) == ("The window needs libGL.so.1.", "sudo apt install libgl1")
    assert [row["check"] for row in found.values() if row["problem"]] == ["Qt's libraries"]


def test_a_token_is_never_shown(run, computer, monkeypatch):
    computer()
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", False)
    monkeypatch.setenv("HF_TOKEN", "hf_" + "secretsecret" * 3)
    code, lines, _ = run("doctor")
    assert code == 0 and "from the variable HF_TOKEN" in "\n".join(lines)
    assert "secret" not in "\n".join(lines)


def test_a_wrong_argument_exits_2(run):
    code, _, error = run("doctor", "--now")
    assert code == 2 and "unrecognized arguments: --now" in error


def test_it_works_where_torch_cannot_be_imported(run, monkeypatch):
    for name in ("torch", "PySide6", "psutil", "safetensors"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in [name for name in sys.modules if name.startswith("sparsezo_gui.engine.files")]:
        monkeypatch.delitem(sys.modules, name)
    code, lines, _ = run("doctor", "--json")
    assert code in (0, 1) and json.loads(lines[0])["check"] == "Python"


# The facts themselves


@pytest.fixture
def program(tmp_path, monkeypatch):
    """``program(name, text)``: a program that prints ``text``, the only one of this name."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    def write(name, text):
        file = tmp_path / name
        file.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n")
        file.chmod(0o700)

    return write


@pytest.mark.skipif(sys.platform != "linux", reason="system libraries are looked up on Linux")
def test_missing_libraries_are_those_that_ldd_does_not_find(program):
    program(
        "ldd", "x.so:\n\tlibEGL.so.1 => not found\n\tlibz.so.1 => /lib/libz.so.1 (0x00)\n\tlibEGL.so.1 => not found"
    )
    assert facts._missing_libraries() == ("libEGL.so.1",)


@pytest.mark.skipif(Path("/proc/driver/nvidia/version").exists(), reason="this computer has a driver of its own")
def test_the_driver_is_the_one_that_nvidia_smi_names(program):
    program("nvidia-smi", "550.54.15\n550.54.15")
    assert facts._driver() == "550.54.15"
    program("nvidia-smi", "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.")
    assert facts._driver() == ""


@pytest.mark.parametrize(
    ("text", "build"),
    [
        ("__version__ = '2.13.0'\ncuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n", ("13.0", False)),
        ("__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\nhip: Optional[str] = None\n", ("", True)),
        ("__version__ = '2.13.0+rocm7'\ncuda: Optional[str] = None\nhip: Optional[str] = '7.0'\n", ("", False)),
    ],
)
def test_the_build_of_pytorch_is_read_from_its_file(text, build, tmp_path, monkeypatch):
    file = tmp_path / "version.py"
    file.write_text(text)
    monkeypatch.setattr(sys, "platform", "linux")

    class Torch:
        def locate_file(self, path):
            return file

    monkeypatch.setattr(facts.metadata, "distribution", lambda name: Torch())
    assert facts._torch_build() == build


def test_a_folder_is_looked_up_where_it_will_be(tmp_path):
    assert facts._folder("", tmp_path / "new" / "er", "X").writable
    (tmp_path / "file").write_text("")
    assert not facts._folder("", tmp_path / "file" / "new", "X").writable


def test_variables_and_the_cache_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "true")
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "0")
    monkeypatch.delenv("HF_DATASETS_OFFLINE", raising=False)
    seen = facts.look("the keyring")
    assert (seen.offline, seen.downloaded, seen.token) == (("HF_HUB_OFFLINE",), False, "the keyring")
    assert seen.installed["torch"].startswith("2.") and seen.memory > seen.available > 0
    (tmp_path / "models--owner--name").mkdir()
    assert facts.look().downloaded
