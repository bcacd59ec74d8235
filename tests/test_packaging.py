"""The ways to install: pinned versions that agree with what the program declares, and recipes that are well formed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PACKAGING = ROOT / "packaging"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DECLARED = [Requirement(line) for lines in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
            for line in lines]  # fmt: skip
PINNED = [Requirement(line) for line in (PACKAGING / "constraints.txt").read_text(encoding="utf-8").splitlines()
          if not line.startswith("#")]  # fmt: skip
SCRIPTS = sorted(PACKAGING.glob("*.sh"))


def run(*command):
    if not shutil.which(command[0]):
        pytest.skip(f"{command[0]} is not here")
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("declared", DECLARED, ids=str)
def test_every_requirement_is_pinned_to_a_version_that_it_allows(declared):
    """After a change of pyproject.toml: packaging/lock.sh."""
    pins = [each for each in PINNED if canonicalize_name(each.name) == canonicalize_name(declared.name)]
    assert pins
    for pin in pins:
        (version,) = pin.specifier
        assert version.operator == "==" and declared.specifier.contains(version.version)


def test_no_trial_version_is_pinned():
    """One of them gets in when two packages disagree about a third."""
    assert not [str(pin) for pin in PINNED for each in pin.specifier if Version(each.version).is_prerelease]


def test_what_only_one_build_of_pytorch_needs_is_not_pinned():
    assert not [each.name for each in PINNED if re.match(r"(nvidia-(?!ml-py)|cuda-|triton)", each.name)]


@pytest.mark.parametrize(
    "name", ["install.sh", "install.ps1", "build_deb.sh", "flatpak/io.github.sparsezo.sparsezo.yml"]
)
def test_every_recipe_installs_the_pinned_versions(name):
    assert "constraints.txt" in (PACKAGING / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_well_formed(path):
    shell = path.read_text(encoding="utf-8").splitlines()[0].rpartition("/")[2].split()[-1]
    assert run(shell, "-n", path) == (0, "")
    assert os.access(path, os.X_OK)
    assert run("shellcheck", path) == (0, "")


def test_the_menu_entry_is_valid():
    assert run("desktop-file-validate", *PACKAGING.glob("linux/*.desktop")) == (0, "")


def test_the_description_for_software_centres_is_valid():
    code, told = run("appstreamcli", "validate", "--no-net", *PACKAGING.glob("linux/*.xml"))
    assert code == 0, told
    assert f'version="{PROJECT["version"]}"' in next(PACKAGING.glob("linux/*.xml")).read_text(encoding="utf-8")


@pytest.mark.parametrize(("arguments", "told"), [
    (["--help"], "Installs SparseZO for the current user"),
    (["--colour"], "install.sh: unknown option '--colour'."),
    (["gone.whl"], "install.sh: 'gone.whl' does not exist. Give a wheel or the folder of the source."),
    (["--torch"], "--torch BACKEND"),
])  # fmt: skip
def test_the_installer_explains_itself(arguments, told):
    code, output = run("sh", PACKAGING / "install.sh", *arguments)
    assert told in output and code == (0 if arguments == ["--help"] else 2)
