"""A run is there from its first second: what is interrupted while it is prepared is listed, and taken up again."""

from __future__ import annotations

import os

import pytest

from sparsezo_gui.engine import training
from sparsezo_gui.engine.runs.branch import branch
from sparsezo_gui.engine.runs.folder import open_run
from sparsezo_gui.engine.runs.history import history
from sparsezo_gui.engine.runs.listing import list_runs
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import events as e
from sparsezo_gui.recipe import load
from tests.engine.conftest import of

SEARCHED = {"mask": {"rule": "sensitive", "text": "task", "sequences": 4}}


def until(events, kind):
    """What comes up to the first event of ``kind``, with it."""
    told = []
    while not told or not isinstance(told[-1], kind):
        told.append(next(events))
    return told


def test_from_the_first_event_on_the_folder_has_the_recipe(make, tmp_path, home):
    recipe = make()
    events = training.train(recipe)
    told = next(events)
    folder = home / "runs" / os.listdir(home / "runs")[0]
    assert told == e.Preparing(str(folder), "tiny") and load(folder / "recipe.toml") == recipe
    (listed,) = list_runs()
    assert (listed.path, listed.state, listed.step, listed.steps) == (str(folder), "preparing", 0, 6)
    with pytest.raises(UserError, match="another window or terminal"):
        list(training.resume(folder))
    events.close()
    (listed,) = list_runs()
    assert (listed.name, listed.state, listed.model) == ("tiny", "interrupted", recipe.model.id)
    found = history(folder)
    assert (found.recipe, found.steps, found.events, found.run) == (recipe, [], [], listed)


def test_it_is_prepared_again_with_what_was_found_and_ends_as_if_undisturbed(make, tmp_path, home):
    recipe = make(**SEARCHED)
    events = training.train(recipe, folder=tmp_path / "run")
    while "Measuring" not in str(next(events)) and not (home / "masks").exists():
        pass
    events.close()
    assert sorted(os.listdir(tmp_path / "run")) == ["lock", "recipe.toml"]
    again = list(training.resume(tmp_path / "run"))
    assert isinstance(again[0], e.Preparing) and not of(e.Started, again[:1])
    assert any("was found before" in notice.text for notice in of(e.Notice, again))
    whole = list(training.train(recipe, folder=tmp_path / "whole"))
    assert again[-1].reason == "done" and again[-1].hash == whole[-1].hash
    assert open_run(tmp_path / "run").name == "tiny"


def test_a_run_without_a_name_keeps_that_of_its_folder(make, tmp_path):
    recipe = make(run={"name": ""})
    training_events = training.train(recipe, folder=tmp_path / "mine")
    next(training_events)
    training_events.close()
    list(training.resume(tmp_path / "mine"))
    assert open_run(tmp_path / "mine").name == "mine"


@pytest.mark.parametrize("fault", [{"model": {"id": "no/such"}}, {"data": {"source": "gone.csv"}}])
def test_a_start_that_fails_leaves_nothing_and_one_taken_up_again_stays(make, tmp_path, fault, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError):
        list(training.train(make(**fault), folder=tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    events = training.train(make(**fault), folder=tmp_path / "run")
    next(events)
    events.close()
    for _ in range(2):  # what it lacks may be there again tomorrow
        with pytest.raises(UserError):
            list(training.resume(tmp_path / "run"))
    assert list_runs(tmp_path / "run")[0].state == "interrupted"


def test_what_needs_steps_says_to_resume_it_first(make, tmp_path):
    events = training.train(make(), folder=tmp_path / "run")
    next(events)
    events.close()
    for use in (
        open_run,
        lambda path: branch(open_run(path), 0),
        lambda path: list(training.resume(path, paused=True)),
    ):
        with pytest.raises(UserError, match=r"has no steps yet.*sparsezo resume"):
            use(tmp_path / "run")


@pytest.mark.parametrize("content", ["[loop]\nsteps = 0\n", "\0", ""])
def test_a_damaged_recipe_is_told(tmp_path, home, content):
    folder = home / "runs" / "broken"
    folder.mkdir(parents=True)
    (folder / "lock").touch()
    (folder / "recipe.toml").write_text(content)
    (listed,) = list_runs()
    assert listed.state == ("damaged" if content else "interrupted") and bool(listed.problem) == bool(content)
    if content:
        with pytest.raises(UserError, match=r"recipe\.toml"):
            list(training.resume(folder))
    assert (folder / "recipe.toml").read_text() == content


def test_a_folder_with_other_files_is_no_start(tmp_path, home):
    folder = home / "runs" / "mine"
    folder.mkdir(parents=True)
    for name in ("lock", "recipe.toml", "notes.txt"):
        (folder / name).touch()
    assert list_runs() == []
    with pytest.raises(UserError, match="not a run"):
        list(training.resume(folder))
