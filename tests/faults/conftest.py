"""A small run that does everything that touches the disk, and how it ends when nothing happens to it."""

from __future__ import annotations

import os

import pytest

from tests.models import small_recipe

if os.name == "nt":
    collect_ignore_glob = ["test_*.py"]  # signals and address limits are those of POSIX


RECIPE = (
    "train = 20\nvalidation = 6\ntest = 6\n"
    '[mask]\nrule = "random"\ndensity = 0.02\n[update]\nrule = "scalar-normalised"\nlearning_rate = 1e-3\n'
    "[loop]\nsteps = 40\nbatch_size = 2\nevaluate_every = 10\n"
)


@pytest.fixture(scope="package")
def recipe_file(tmp_path_factory):
    return small_recipe(tmp_path_factory.mktemp("faults"), RECIPE)


@pytest.fixture(scope="package")
def exact_file(tmp_path_factory):
    """The same with exact gradients, which are recorded beside the journal."""
    return small_recipe(tmp_path_factory.mktemp("exact"), f'{RECIPE}[estimator]\nrule = "first-order"\n')


@pytest.fixture(scope="package")
def whole(recipe_file, tmp_path_factory):
    """The folder and the hash of a run that nothing happened to."""
    return _whole(recipe_file, tmp_path_factory)


@pytest.fixture(scope="package")
def exact_whole(exact_file, tmp_path_factory):
    return _whole(exact_file, tmp_path_factory)


def _whole(recipe, factory):
    from tests.faults import child

    folder = factory.mktemp("whole")
    code, events, error = child.run(
        ["train", recipe, "--run", folder / "run", "--json"], folder / "out", folder / "home"
    )
    assert (code, error) == (0, "")
    return folder / "run", events[-1]["hash"]
