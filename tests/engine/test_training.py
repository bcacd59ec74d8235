"""The loop: events, journal, resume, commands, and a base that never changes."""

from __future__ import annotations

import math
from pathlib import Path
from queue import SimpleQueue

import pytest
import torch

from sparsezo_gui import recipe
from sparsezo_gui.engine import device as devices
from sparsezo_gui.engine import planning, training
from sparsezo_gui.engine.forward import PACK_ROWS, SMALL_ROWS
from sparsezo_gui.engine.runs import journal
from sparsezo_gui.engine.runs.folder import open_run
from sparsezo_gui.engine.runs.listing import list_runs
from sparsezo_gui.engine.runs.preparing import is_start
from sparsezo_gui.engine.session.loading import load_data
from sparsezo_gui.engine.session.opening import open_session
from sparsezo_gui.engine.zo import generator
from sparsezo_gui.engine.zo.batches import batch_indices
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import events as e
from tests.engine import plain as reference
from tests.engine.conftest import finish, of
from tests.models import FAMILIES, tiny


def test_a_run_tells_everything_and_keeps_it(make, tmp_path):
    events = list(training.train(make(), folder=tmp_path / "run"))
    started = of(e.Started, events)[0]
    assert (started.first, started.steps, started.tuned) == (1, 6, round(0.01 * started.eligible))
    assert [step.step for step in of(e.Step, events)] == [1, 2, 3, 4, 5, 6]
    assert [(each.step, each.split) for each in of(e.Evaluation, events)] == [
        (0, "validation"), (4, "validation"), (6, "validation"), (0, "test"), (6, "test"),
    ]  # fmt: skip
    assert events[-1].reason == "done"
    run = open_run(tmp_path / "run")
    records = journal.read(run.journal).steps
    assert records["loss"].tolist() == [step.loss for step in of(e.Step, events)]
    assert of(e.Evaluation, run.events()) == of(e.Evaluation, events)
    session = finish(open_session(run))
    assert session.tuned.hash() == events[-1].hash
    assert session.tuned.mask.hash == run.facts.mask_hash


@pytest.mark.parametrize(("update", "directions"), [
    ("sgd", 1), ("scalar-normalised", 3), pytest.param("sgd", 3, marks=pytest.mark.slow),
    pytest.param("scalar-normalised", 1, marks=pytest.mark.slow),
])  # fmt: skip
def test_stop_and_resume_give_the_bits_of_the_uninterrupted_run(make, tmp_path, update, directions):
    chosen = make(update={"rule": update, "learning_rate": 1e-3}, estimator={"directions": directions})
    whole = list(training.train(chosen, folder=tmp_path / "whole"))
    commands = SimpleQueue()
    stopped = []
    for event in training.train(chosen, commands, folder=tmp_path / "parts"):
        stopped.append(event)
        if isinstance(event, e.Step) and event.step == 2:
            commands.put(e.Stop())
    assert (stopped[-1].reason, stopped[-1].step) == ("stopped", 2)
    iterator = training.resume(tmp_path / "parts")
    for event in iterator:  # a window that goes away closes the iterator in the middle
        if isinstance(event, e.Step) and event.step == 4:
            break
    iterator.close()
    rest = list(training.resume(tmp_path / "parts"))
    assert of(e.Started, rest)[0].first == 5
    assert rest[-1].hash == whole[-1].hash
    expected = [(step.step, step.loss, step.projected_gradient) for step in of(e.Step, whole)]
    records = journal.read(tmp_path / "parts" / "journal.bin").records
    assert [(int(r["step"]), float(r["loss"]), float(r["values"][0])) for r in records] == expected


def test_tight_memory_takes_smaller_passes_and_keeps_to_them(make, tmp_path, monkeypatch):
    """Formula and loop go over together; a run that began so is resumed so, and ends with the same bits."""
    chosen = make(loop={"batch_size": 24})
    usual = planning.estimate(chosen)
    assert usual.rows == PACK_ROWS["cpu"] and usual.small < usual.total and usual.verdict == "fits"
    with monkeypatch.context() as tight:
        tight.setattr(devices, "memory_free", lambda device: 0)
        tight.setattr(devices, "memory_used", lambda device: usual.small)
        small = planning.estimate(chosen)
        assert small.rows == SMALL_ROWS["cpu"] and small.total == small.small == usual.small
        whole = list(training.train(chosen, folder=tmp_path / "whole"))
        for event in training.train(chosen, folder=tmp_path / "parts"):
            if isinstance(event, e.Step) and event.step == 3:
                break
    assert open_run(tmp_path / "parts").facts.pack_rows == SMALL_ROWS["cpu"]
    assert list(training.resume(tmp_path / "parts"))[-1].hash == whole[-1].hash


def test_the_loop_equals_mezo_written_down_plainly(make, tmp_path):
    """Two steps of the published algorithm on plain weights, in fp64, with the run's own directions and batches."""
    chosen = make(model={"bits": 32}, update={"rule": "sgd", "learning_rate": 1e-2}, loop={"steps": 2})
    list(training.train(chosen, folder=tmp_path / "run"))
    session = finish(open_session(open_run(tmp_path / "run")))
    model, tuned = session.model, session.tuned
    data = finish(load_data(chosen, model)).train.encoded
    plain, values, epsilon = reference.plain_model(model).double(), tuned.start.double(), chosen.estimator.epsilon
    for step in (1, 2):
        z = generator.normal(3, step, 0, len(values)).double()
        batch = [data[i] for i in batch_indices(3, step, 4, 24)]
        losses = []
        for sign in (1, -1):
            reference.put(plain, model, tuned, values + sign * epsilon * z)
            with torch.no_grad():
                losses.append(reference.loss(plain, batch))
        values -= 1e-2 * (losses[0] - losses[1]) / (2 * epsilon) * z
    start = tuned.start.double()
    error = (tuned.values.double() - values).norm() / (values - start).norm()
    assert error < 5e-3  # fp32 losses carry 1e-7 of noise each, which 1 / 2ε makes 1e-4 of a slope


@pytest.mark.parametrize(
    ("family", "steps"), [*((family, 100) for family in FAMILIES), pytest.param("llama", 1000, marks=pytest.mark.slow)]
)
def test_the_base_is_bit_identical_after_many_steps(frozen_tiny, family, steps):
    """Drives the loop's own step; what is frozen must stay so, whatever is tuned on it."""
    from sparsezo_gui.engine.masks.random import Random
    from sparsezo_gui.engine.masks.rule import Search
    from sparsezo_gui.engine.session import Session
    from sparsezo_gui.engine.spaces.sparse import SparseValues
    from tests.engine.test_correctness import example

    model = frozen_tiny(family, 4)
    chosen = recipe.loads('[update]\nrule = "sgd"\nlearning_rate = 1e-3')
    tuned = SparseValues(model, finish(Random(density=0.01).find(model, Search(0, chosen.data))))
    session = Session(chosen, model, tuned)
    before = _bits(model)
    batch = [example([5, 9, 7], [2, 2], [8, 11], [0, 1], 2, 0)]
    for _ in range(steps):
        directions = session.directions()
        session.advance(directions, session.estimate(batch, directions).recorded, 1e-3)
    assert all(torch.equal(a, b) for a, b in zip(before, _bits(model), strict=True))
    assert not torch.equal(tuned.values, tuned.start)


def _bits(model):
    held = [layer.frozen.packed for layer in model.layers.values()]
    held += [layer.frozen.state.absmax for layer in model.layers.values()]
    return [tensor.clone() for tensor in [*held, *model.module.parameters()]]


def test_commands_pause_evaluate_and_change_the_rate(make, tmp_path):
    commands, told = SimpleQueue(), []
    for event in training.train(make(loop={"evaluate_every": 0}), commands, folder=tmp_path / "run"):
        told.append(event)
        if isinstance(event, e.Step) and event.step == 2:
            for command in (e.Pause(), e.EvaluateNow(), e.SetRate(0.5), e.Resume()):
                commands.put(command)
    names = [type(event).__name__ for event in told if not isinstance(event, e.Progress)]
    middle = names[names.index("Paused") : names.index("Resumed") + 1]
    assert middle == ["Paused", "Evaluation", "Examples", "RateChanged", "Notice", "Resumed"]
    rates = [step.rate for step in of(e.Step, told)]
    assert rates[2:] == [rates[0] / 2] * 4
    # A replay takes the rates that were used, not the scheduled ones.
    assert finish(open_session(open_run(tmp_path / "run"))).tuned.hash() == told[-1].hash


def test_a_changed_rate_survives_a_resume(make, tmp_path):
    commands = SimpleQueue()
    for event in training.train(make(), commands, folder=tmp_path / "run"):
        if isinstance(event, e.Step) and event.step == 1:
            commands.put(e.SetRate(0.25))
        if isinstance(event, e.Step) and event.step == 3:
            commands.put(e.Stop())
    steps = of(e.Step, training.resume(tmp_path / "run"))
    assert steps[0].rate == pytest.approx(0.25 * make().update.learning_rate)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_schedules(schedule):
    update = recipe.loads(f'[update]\nlearning_rate = 0.5\nschedule = "{schedule}"').update
    rates = [update.rate(step, 10) for step in range(1, 11)]
    expected = {
        "constant": [0.5] * 10,
        "linear": [0.5 * (1 - k / 10) for k in range(10)],
        "cosine": [0.25 * (1 + math.cos(math.pi * k / 10)) for k in range(10)],
    }[schedule]
    assert rates == pytest.approx(expected)


def test_a_loss_that_is_not_finite_never_reaches_the_values(make, tmp_path, monkeypatch):
    calls = []

    def broken(self, found, examples, base=None):
        if len(found.sums) == 2:
            calls.append(1)
            if len(calls) == 2:
                found.sums[0] = float("nan")
            if len(calls) == 3:
                found.sums[1] = float("inf")
        return found

    monkeypatch.setattr("sparsezo_gui.engine.objectives.Objective.losses_of", broken)
    events = list(training.train(make(), folder=tmp_path / "run"))
    assert [step.projected_gradient == 0 for step in of(e.Step, events)] == [False, True, True, False, False, False]
    assert len([each for each in of(e.Notice, events) if "skipped" in each.text]) == 2
    session = finish(open_session(open_run(tmp_path / "run")))
    assert torch.isfinite(session.tuned.values).all()
    assert session.tuned.hash() == events[-1].hash


def test_a_run_without_finite_losses_gives_up_with_a_sentence(make, tmp_path, monkeypatch):
    def broken(self, found, examples, base=None):
        found.sums[:] = float("nan") if len(found.sums) == 2 else 0.0
        return found

    monkeypatch.setattr("sparsezo_gui.engine.objectives.Objective.losses_of", broken)
    with pytest.raises(UserError, match="not finite for 10 steps in a row"):
        list(training.train(make(loop={"steps": 40}), folder=tmp_path / "run"))
    assert journal.read(tmp_path / "run" / "journal.bin").step == 10


def test_what_does_not_fit_together_is_refused(make, tmp_path):
    chosen = make(loop={"steps": 2})
    list(training.train(chosen, folder=tmp_path / "run"))
    with pytest.raises(UserError, match="already exists"):
        list(training.train(chosen, folder=tmp_path / "run"))
    with pytest.raises(UserError, match="there is no step 9"):
        finish(open_session(open_run(tmp_path / "run"), 9))
    (tmp_path / "train.jsonl").write_text('{"text": "x", "label": "no"}\n{"text": "y", "label": "yes"}')
    with pytest.raises(UserError, match=r"the training examples.* changed since"):
        list(training.resume(tmp_path / "run"))
    tiny("llama", tmp_path / "other", seed=9)
    (tmp_path / "other" / "model.safetensors").replace(tmp_path / "llama" / "model.safetensors")
    with pytest.raises(UserError, match="not the weights"):
        list(training.resume(tmp_path / "run"))


def test_a_mask_serves_its_model_and_no_other(make, tmp_path):
    first = list(training.train(make(loop={"steps": 1}), folder=tmp_path / "run"))
    saved = {"rule": "saved", "file": str(tmp_path / "run" / "mask.safetensors")}
    again = list(training.train(make(mask=saved, loop={"steps": 1}), folder=tmp_path / "again"))
    assert of(e.Started, first)[0].tuned == of(e.Started, again)[0].tuned
    tiny("llama", tmp_path / "llama2", seed=9)
    with pytest.raises(UserError, match="found for another model"):
        list(training.train(make(mask=saved, model={"id": str(tmp_path / "llama2")}), folder=tmp_path / "other"))
    assert not (tmp_path / "other").exists()


def test_a_start_that_is_cancelled_can_be_resumed(make, tmp_path):
    iterator = training.train(make(loop={"steps": 1}), folder=tmp_path / "run")
    next(iterator)
    iterator.close()
    assert is_start(tmp_path / "run")
    assert list(training.resume(tmp_path / "run"))[-1].reason == "done" and not is_start(tmp_path / "run")


def test_two_processes_cannot_write_one_run(make, tmp_path):
    list(training.train(make(loop={"steps": 2}), folder=tmp_path / "run"))
    from sparsezo_gui.engine.runs.folder import locked

    with locked(tmp_path / "run"), pytest.raises(UserError, match="another window or terminal"):
        list(training.resume(tmp_path / "run"))


def test_runs_are_listed(make, home):
    list(training.train(make(loop={"steps": 2})))
    list(training.train(make(loop={"steps": 2})))
    assert [(run.name, run.state, run.step, run.steps) for run in list_runs()] == [("tiny", "done", 2, 2)] * 2
    assert str(home) in list_runs()[0].path


def test_a_run_that_lies_elsewhere_is_listed_with_the_others(make, home, tmp_path):
    list(training.train(make(loop={"steps": 2})))
    list(training.train(make(loop={"steps": 2}), folder=tmp_path / "elsewhere"))
    (inside,) = list_runs()
    assert {run.path for run in list_runs(tmp_path / "elsewhere")} == {inside.path, str(tmp_path / "elsewhere")}
    assert list_runs(Path(inside.path)) == list_runs(tmp_path / "nothing") == [inside]
