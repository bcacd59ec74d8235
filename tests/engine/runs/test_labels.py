"""What a user calls a run, and deleting runs."""

from __future__ import annotations

import os

import pytest

from sparsezo_gui.engine.locks import held
from sparsezo_gui.engine.runs.folder import open_run
from sparsezo_gui.engine.runs.labels import LABELS, Labels, label, labels_of
from sparsezo_gui.engine.runs.listing import list_runs
from sparsezo_gui.engine.runs.preparing import LOCK
from sparsezo_gui.engine.runs.remove import removable, remove
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import events as e
from tests.engine.runs.made import run_of

NOTHING = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # SHA-256 of no records


@pytest.fixture
def run(home):
    return run_of(home / "runs" / "r")


def test_a_run_is_listed_by_what_the_user_calls_it(run):
    label(run.path, " my  best\nrun ", ("paper", " ", "paper", "to keep"))
    (listed,) = list_runs()
    assert (listed.name, listed.tags) == ("my best run", ("paper", "to keep"))
    assert open_run(run.path).name == "my best run"
    label(run.path, "", ())
    assert list_runs()[0].name == "r" and labels_of(run.path) == Labels()


@pytest.mark.parametrize("content", ["", "[]", '{"name": 5}', '{"name": "' + "x" * 300 + '"}', "{" * 100_000])
def test_damaged_labels_are_ignored(run, content):
    (run.path / LABELS).write_text(content)
    assert list_runs()[0].name == "r"


def test_labels_are_bounded(run):
    for name, tags in (("x" * 201, ()), ("", ("x" * 201,)), ("", tuple(map(str, range(21))))):
        with pytest.raises(UserError, match="up to 200 characters"):
            label(run.path, name, tags)
    assert not (run.path / LABELS).exists()


def test_the_list_knows_data_method_and_curve(run):
    for step, accuracy in ((0, 0.2), (5, 0.8)):
        run.record(e.Evaluation(step, "validation", {"accuracy": accuracy, "loss": 1.0}, metric="accuracy"))
    (listed,) = list_runs()
    assert (listed.metric, listed.curve) == ("accuracy", (0.2, 0.8))
    assert listed.data == run.recipe.data.source and listed.method


def test_a_run_is_deleted_with_its_branches_and_no_others(run, home):
    other = run_of(home / "runs" / "other")
    run_of(run.path / "branches" / "b", branched={"step": 0, "records": 0, "hash": NOTHING})
    (run.path / "large").write_bytes(b"x" * 5000)
    found = removable(run.path)
    assert found.branches == 1 and found.bytes > 5000
    assert remove(run.path) == found
    assert [each.path for each in list_runs()] == [str(other.path)] and not run.path.exists()
    assert sorted(each.name for each in (home / "runs").iterdir()) == ["other"]


def test_what_is_active_is_not_deleted(run):
    branch = run_of(run.path / "branches" / "b", branched={"step": 0, "records": 0, "hash": NOTHING})
    with held(branch.path / LOCK), pytest.raises(UserError, match="is writing this run"):
        remove(run.path)
    assert len(list_runs()) == 2


def test_a_link_to_a_run_is_not_followed(run, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(run.path)
    with pytest.raises(UserError, match="a link to a run"):
        remove(link)
    with pytest.raises(UserError, match="not a run"):
        remove(tmp_path)
    assert run.path.exists()
    (run.path / "branches").mkdir()
    elsewhere = run_of(tmp_path / "elsewhere")
    (run.path / "branches" / "b").symlink_to(elsewhere.path)
    with held(elsewhere.path / LOCK):
        assert remove(run.path).branches == 0
    assert open_run(elsewhere.path).name == "elsewhere"


def test_a_folder_of_another_program_is_not_deleted(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(UserError, match="not a run"):
        remove(tmp_path)
    assert (tmp_path / "run.json").exists()


def test_what_an_interrupted_deletion_left_goes_later(run, home, monkeypatch):
    def interrupted(*_args, **_named):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("shutil.rmtree", interrupted)
        remove(run.path)
    assert list_runs() == [] and not run.path.exists()
    (left,) = (home / "runs").iterdir()
    os.utime(left, (0, 0))
    list_runs()
    assert not left.exists()
    remove(run_of(run.path).path)  # of the same name


def test_damaged_and_unprepared_runs_are_deleted_too(run, home):
    (run.path / "run.json").write_text("{")
    start = home / "runs" / "start"
    start.mkdir()
    (start / LOCK).touch()
    (start / "recipe.toml").write_text("")
    for path in (run.path, start):
        assert remove(path).path == str(path)
    assert list((home / "runs").iterdir()) == []
