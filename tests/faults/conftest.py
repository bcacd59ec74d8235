"""A small run that does everything that touches the disk, and how it ends when nothing happens to it."""

from __future__ import annotations

import os

import pytest

from tests.models import small_recipe

if os.name == "nt":
    collect_ignore_glob = ["test_*.py"]  # signals and address limits are those of POSIX


@pytest.fixture(scope="package")
def recipe_file(tmp_path_factory):
    return small_recipe(
        tmp_path_factory.mktemp("faults"),
        "train = 20\nvalidation = 6\ntest = 6\n"
        '[mask]\nrule = "random"\ndensity = 0.02\n[update]\nrule = "scalar-normalised"\nlearning_rate = 1e-3\n'
        "[loop]\nsteps = 40\nbatch_size = 2\nevaluate_every = 10\n",
    )


@pytest.fixture(scope="package")
def whole(recipe_file, tmp_path_factory):
    """The folder and the hash of a run that nothing happened to."""
    from tests.faults import child

    folder = tmp_path_factory.mktemp("whole")
    code, events, error = child.run(
        ["train", recipe_file, "--run", folder / "run", "--json"], folder / "out", folder / "home"
    )
    assert (code, error) == (0, "")
    return folder / "run", events[-1]["hash"]
