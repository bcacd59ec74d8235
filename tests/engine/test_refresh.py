"""Directions that are found again during a run: recorded, so that any step is reached without data, or found once more
to the same bits."""

from __future__ import annotations

import pytest
import torch

from sparsezo_gui.engine import planning
from sparsezo_gui.engine.gradient import gradient
from sparsezo_gui.engine.masks.gradient_subspace import STAGE, directions
from sparsezo_gui.engine.runs.branch import branch
from sparsezo_gui.engine.runs.folder import open_run
from sparsezo_gui.engine.runs.share import share
from sparsezo_gui.engine.session.loading import data_of
from sparsezo_gui.engine.session.opening import open_session
from sparsezo_gui.engine.zo.batches import shuffled_batch
from sparsezo_gui.recipe import build, dump, loads, with_settings
from sparsezo_gui.recipe import events as e
from tests.engine.conftest import finish, of
from tests.engine.test_loop import at, resume, train
from tests.engine.test_recorded_gradients import blind, here, lose, replayed  # noqa: F401
from tests.engine.test_replay import tables

EVERY = 2  # so that steps 3 and 5 of 6 have new directions


def made_of(make, **others):
    recipe = tables(mask="gradient-subspace", **others)
    recipe["mask"] |= {"sequences": 2, "tokens": 32, "directions": 3, "examples": 9, "refresh": EVERY}
    return make(**recipe)


@pytest.fixture
def run(make, tmp_path):
    train(made_of(make), tmp_path / "run")
    return open_run(tmp_path / "run")


def test_any_step_is_reached_without_data_from_what_was_recorded(make, tmp_path, blind):  # noqa: F811
    hashes = {}
    for steps in (2, 3, 4, 6):
        events = train(made_of(make), tmp_path / f"run{steps}", at(steps, e.Stop()))
        hashes[steps] = events[-1].hash
    run = open_run(tmp_path / "run6")
    most = 52 + 2 * (40 + 2 * 3 * run.facts.tuned)
    assert 0.95 * most < run.gradients.stat().st_size <= most, "zeros at both ends are left out"
    blind()
    for step, hash in hashes.items():
        assert replayed(tmp_path / "run6", step) == (hash, (max(0, (step - 1) // EVERY), 0))
        assert replayed(tmp_path / "run6", step, use=True)[0] == hash


def test_what_is_missing_is_found_again_to_the_same_bits(run):
    hash = replayed(run.path)[0]
    lose(run)
    assert replayed(run.path) == (hash, (0, 2))


@pytest.mark.parametrize("stop", [2, 3, 5])
def test_a_resumed_run_goes_on_along_the_same_directions(make, tmp_path, run, stop):
    train(made_of(make), tmp_path / "other", at(stop, e.Stop()))
    assert resume(tmp_path / "other")[-1].hash == of(e.Finished, run.events())[-1].hash


@pytest.mark.parametrize("command", [e.Stop, e.Pause])
def test_a_command_need_not_wait_until_they_are_found(make, tmp_path, run, command):
    told, steps = [], []

    def script(event):
        if isinstance(event, e.Step):
            steps.append(event.step)
        found = isinstance(event, e.Progress) and event.stage == STAGE and steps == [1, 2]
        if found and not told:
            told.append(event)
            return (command(),) if command is e.Stop else (command(), e.Resume())
        return ()

    events = train(made_of(make), tmp_path / "other", script)
    assert told[0].done == 0, "of three, the others are not begun"
    if command is e.Stop:
        assert steps == [1, 2] and of(e.Finished, events)[-1].reason == "stopped"
        events = resume(tmp_path / "other")
    assert events[-1].hash == of(e.Finished, run.events())[-1].hash


def test_steps_that_were_taken_back_leave_no_directions_behind(make, tmp_path, blind):  # noqa: F811
    went = []

    def script(event):
        if isinstance(event, e.Step) and event.step == 4 and not went:
            went.append(event)
            return e.GoBack(2), e.SetRate(0.5)
        return ()

    hash = train(made_of(make, loop={"steps": 6, "evaluate_every": 0, "guard": False}), tmp_path / "run", script)[
        -1
    ].hash
    made = branch(open_run(tmp_path / "run"), 4, ["loop.seed=9"])
    other = resume(made.path)[-1].hash
    assert hash != other
    blind()
    assert replayed(tmp_path / "run") == (hash, (2, 0))
    assert replayed(made.path) == (other, (2, 0))


def test_a_shared_run_brings_them(run, tmp_path, blind):  # noqa: F811
    hash = replayed(run.path)[0]
    shared = share(run, tmp_path / "given.zip")
    assert (shared.again, shared.lacks) == (0, "")
    blind()
    assert replayed(here(tmp_path).path) == (hash, (2, 0))


def test_they_are_those_of_the_values_at_that_step_and_of_the_examples_to_come(run):
    session = finish(open_session(run, 2))
    examples = finish(data_of(session, run, ("train",))).train.encoded
    coming = [each for step in (3, 4, 5) for each in shuffled_batch(run.recipe.loop, step, examples)]
    assert len(coming) >= 9 > len(coming) - run.recipe.loop.batch_size
    own = finish(directions(session.model, session.tuned, coming, 3))
    finish(session.refresh(examples))
    (basis,) = session.state.basis
    assert torch.allclose(basis, own, rtol=1e-3, atol=1e-6 * own.abs().max()), "as recorded, in 16 bits"
    assert not torch.allclose(basis, session.tuned.basis, rtol=0.1)
    drawn = session.drawn(run.recipe, 3)
    assert torch.allclose(session.shaped(run.recipe, drawn), drawn @ basis, atol=1e-5)


def test_it_is_counted_in_passes_and_memory():
    fixed, again = (build({"mask": {"rule": "gradient-subspace", "refresh": every}}) for every in (0, 100))
    assert (fixed.cost, again.cost) == (2, 3), "512 examples are 32 batches, three passes each, in 100 steps"
    assert with_settings(again, ["loop.steps=100"]).cost == again.step_cost == 2
    assert (fixed.state_vectors, again.state_vectors) == (0, 8)
    assert not fixed.backwards and again.backwards and not again.estimator.backwards
    parts = [{part.name for part in planning.estimate(each).parts} for each in (fixed, again)]
    assert parts[1] - parts[0] == {"Backpropagation"}


def test_a_recipe_from_before_means_what_it_meant():
    written = dump(build({"mask": {"rule": "gradient-subspace", "refresh": 0}}))
    before = "\n".join(line for line in written.splitlines() if not line.startswith("refresh"))
    assert before != written.strip() and loads(before).mask.refresh == 0
    assert build({"mask": {"rule": "gradient-subspace"}}).mask.refresh == 100


@pytest.mark.parametrize("every", [0, EVERY])
def test_the_measured_fit_goes_backwards_as_the_run_does(make, monkeypatch, every):
    counted = []
    monkeypatch.setattr(planning, "gradient", lambda *given: counted.append(given) or gradient(*given))
    recipe = with_settings(made_of(make), [f"mask.refresh={every}"])
    assert finish(planning.measure(recipe)).measured and len(counted) == bool(every)
