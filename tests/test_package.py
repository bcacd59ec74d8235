"""The wheel has all that the program needs, and works outside a checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


def pip(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    done = pip("wheel", ".", "--no-deps", "-w", folder)
    if "No matching distribution found for hatchling" in done.stderr:
        pytest.skip("the build backend, hatchling, is neither here nor in the package registry")
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """``installed(*arguments)``: standard output of ``sparsezo`` from the wheel, outside the checkout."""
    folder = tmp_path_factory.mktemp("installed")
    done = pip("install", wheel, "--no-deps", "--target", folder)
    assert done.returncode == 0, done.stderr
    program = "import sys; from sparsezo_gui import resources, start; assert resources.ROOT.is_relative_to(sys.path[1])"

    def call(*arguments):
        command = [sys.executable, "-c", f"{program}; sys.exit(start.terminal())", *arguments]
        variables = {**os.environ, "PYTHONPATH": str(folder)}
        done = subprocess.run(command, cwd=folder.parent, env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


def test_the_wheel_has_every_file_of_program_and_resources(wheel):
    packed = set(zipfile.ZipFile(wheel).namelist())
    listed = subprocess.run(["git", "ls-files", "sparsezo_gui", "resources"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a checkout, so the files are not listed")
    files = listed.stdout.splitlines()
    wanted = {f"sparsezo_gui/{name}" if name.startswith("resources/") else name for name in files}
    assert len(wanted) > 300 and wanted - packed == set()
    assert {name for name in packed if ".dist-info/" not in name} - wanted == set()


def test_its_metadata_says_what_it_is(wheel):
    archive = zipfile.ZipFile(wheel)
    (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    about = message_from_bytes(archive.read(name))
    assert (about["Name"], about["License-Expression"]) == ("sparsezo-gui", "Apache-2.0")
    assert "Typing :: Typed" in about.get_all("Classifier")
    assert "sparsezo_gui/py.typed" in archive.namelist()


def test_it_runs_outside_a_checkout(installed):
    from sparsezo_gui import __version__

    assert installed("--version") == f"sparsezo {__version__}\n"
    page = ROOT / "resources" / "docs" / "reference" / "methods.md"
    assert installed("methods", "--markdown") == page.read_text(encoding="utf-8")
    assert "starter" in installed("recipes")
