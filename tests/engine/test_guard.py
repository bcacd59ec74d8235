"""Divergence: healthy runs are left alone, however noisy; a run that diverges goes back and gets well."""

from __future__ import annotations

import math
from queue import SimpleQueue

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsezo_gui.engine import guard as guards
from sparsezo_gui.engine import training
from sparsezo_gui.engine.guard import Guard, Median
from sparsezo_gui.engine.hub.library import spec_of as spec
from sparsezo_gui.engine.loop import rescue
from sparsezo_gui.engine.runs import journal
from sparsezo_gui.engine.runs.branch import branch
from sparsezo_gui.engine.runs.folder import open_run
from sparsezo_gui.engine.runs.listing import list_runs
from sparsezo_gui.engine.session import Session
from sparsezo_gui.engine.session.opening import open_session
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import events as e
from tests.engine.conftest import finish, of

# How the losses of batches are spread about their mean of 1, from those of large batches to a nearly solved task.
SPREADS = {
    "even": lambda chance, n: 1 + 0.05 * chance.standard_normal(n),
    "uneven": lambda chance, n: np.maximum(1 + 0.4 * chance.standard_normal(n), 0.01),
    "single examples": lambda chance, n: chance.exponential(1.0, n),
    "nearly solved": lambda chance, n: np.exp(2 * chance.standard_normal(n) - 2),
}


def watched(losses, projected_grads, base, start=0):
    """The first trouble, with its step and the one to go back to, judged twice as the loop does it."""
    first, second = Guard(base[: guards.BATCHES], start), Guard(base, start)
    suspected = False
    for step, (loss, projected_grad) in enumerate(zip(losses, projected_grads, strict=True), start + 1):
        for guard in (first, second):
            guard.saw(step, loss, (projected_grad,))
        suspected = suspected or bool(first.trouble)
        if suspected and second.trouble:
            return step, second.trouble, second.best
    return None, "", second.best


def heavy(chance, n):
    """Slopes whose size differs from batch to batch, with outliers."""
    return chance.standard_normal(n) * np.exp(0.7 * chance.standard_normal(n))


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=80), st.integers(1, 20))
@settings(max_examples=60)
def test_the_running_median(numbers, window):
    median = Median(window)
    for count, number in enumerate(numbers, 1):
        left = median.add(number)
        assert (left is None) == (count <= window) and (left is None or left == numbers[count - 1 - window])
        value = median.value
        if count < window:
            assert math.isnan(value)
        else:
            assert value == pytest.approx(float(np.median(numbers[count - window : count])))


@pytest.mark.parametrize("shift", [0.0, -1.5], ids=["", "below zero"])
@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("course", ["falls", "stays", "rises a little", "falls late"])
def test_a_run_that_behaves_is_left_alone(spread, course, shift):
    steps = np.arange(3000)
    level = {
        "falls": 0.1 + 0.9 * np.exp(-steps / 300), "stays": np.ones(3000), "rises a little": 1 + steps / 100000,
        "falls late": np.where(steps < 1500, 1.0, 0.2),
    }[course]  # fmt: skip
    for seed in range(12):
        chance = np.random.default_rng(seed)
        draw = SPREADS[spread]
        base = (draw(chance, guards.SURE) + shift).tolist()
        projected_grads = heavy(chance, 3000) * (1 + 2 * (steps > 1500))  # three times as steep from the middle on
        assert watched((level * draw(chance, 3000) + shift).tolist(), projected_grads.tolist(), base)[:2] == (None, "")


@pytest.mark.parametrize(
    ("course", "projected_grads", "sentence", "steps"),
    [
        (lambda t: 6.0 if t > 3 else 1.4, lambda t: 1.0, "more than three times", 16),
        (lambda t: 2.5 if t > 3 else 1.4, lambda t: 1.0, "clearly above", 64),
        (lambda t: 0.3 if t < 300 else 1.3, lambda t: 1.0, "was down to 0.286 and is back", 345),
        (lambda t: 1.6, lambda t: 100.0 if t > 400 else 1.0, "Gradients", 425),
        (lambda t: math.nan if t > 30 else 1.4, lambda t: 1.0, "not finite", 41),
    ],
    ids=["explodes", "gets worse", "forgets", "steep", "not finite"],
)
def test_trouble_is_seen_soon(course, projected_grads, sentence, steps):
    chance = np.random.default_rng(0)
    noise = 1 + 0.1 * chance.standard_normal(1000)
    losses = [course(t) * noise[t] for t in range(1000)]
    sizes = [projected_grads(t) * z for t, z in enumerate(chance.standard_normal(1000))]
    step, trouble, _ = watched(losses, sizes, [1.4, 1.5, 1.2, 1.6, 1.3, 1.4, 1.5, 1.35] * 16)
    assert sentence in trouble and step <= steps


def test_the_way_back_leads_to_where_the_losses_were_lowest():
    losses = [1.4] * 50 + [0.5] * 100 + [0.2] * 100 + [1.35] * 200
    assert watched(losses, [1.0] * 450, [1.4] * 8)[2] in range(150, 251)
    assert watched([2.0] * 100, [1.0] * 100, [1.4] * 8, start=30)[2] == 30


# In the loop


class Bowl:
    """L(θ) = 0.5 + 0.35·|θ − θ*|² / |θ₀ − θ*|², about what the tiny model's base loses, on every batch a little else.

    Along normal directions, plain steps lead to θ* below a rate of 2 / a(n + 2), where a = 0.7 / |θ₀ − θ*|².
    """

    def __init__(self, session, batch, directions):
        tuned, self.directions = session.tuned, directions
        chance = torch.Generator().manual_seed(0)
        away = 0.02 * torch.randn(tuned.values.numel(), generator=chance)
        self.at, self.size = tuned.values - tuned.start - away, away.square().sum().double()
        self.batch = 0.02 * math.sin(sum(batch[0].rows[0].tokens) + session.step)

    @staticmethod
    def rate(away):
        return (away.square().sum() / 0.7 / (away.numel() + 2)).item()

    def losses(self, offsets):
        squares = (self.at + offsets @ self.directions).double().square().sum(dim=1)
        return 0.5 + 0.35 * squares / self.size + self.batch


@pytest.fixture
def bowl(monkeypatch, make):
    """``bowl(times, **loop)``: a recipe whose rate is ``times`` the best one of the bowl that it runs on."""
    monkeypatch.setattr(Session, "probe", lambda *given, shared: Bowl(*given))

    def made(times, **loop):
        chosen = make(model={"bits": 32})
        count = round(0.01 * spec(chosen.model).eligible)
        rate = Bowl.rate(0.02 * torch.randn(count, generator=torch.Generator().manual_seed(0)))
        return make(model={"bits": 32}, update={"rule": "sgd", "learning_rate": times * rate},
                    loop={"steps": 120, "evaluate_every": 0, **loop})  # fmt: skip

    return made


def test_a_rate_a_thousand_times_too_high_is_caught_and_the_run_ends_no_worse_than_it_began(bowl, tmp_path):
    told = list(training.train(bowl(1000), folder=tmp_path / "run"))
    list(training.train(bowl(1000, guard=False, steps=20), folder=tmp_path / "unguarded"))
    assert (told[-1].reason, told[-1].step) == ("done", 120)
    began = of(e.Base, told)[0].losses
    losses = journal.read(tmp_path / "run" / "journal.bin").steps["loss"]
    unguarded = journal.read(tmp_path / "unguarded" / "journal.bin").steps["loss"]
    assert max(losses[-16:]) < max(began) and unguarded[-1] > 1e6
    factors = [event.factor for event in of(e.RateChanged, told)]
    assert len(factors) in (9, 10, 11) and factors == [0.5 ** (count + 1) for count in range(len(factors))]
    notices = [event for event in of(e.Notice, told) if "half the learning rate" in event.text]
    assert len(notices) == len(of(e.Returned, told)) == len(factors) and notices[0].level == "warning"
    # All of it is in the journal: any step is rebuilt, and the rate goes on from where it was.
    run = open_run(tmp_path / "run")
    assert finish(open_session(run, from_checkpoints=False)).tuned.hash() == told[-1].hash
    assert finish(open_session(run)).factor == pytest.approx(factors[-1])


def test_stopped_and_resumed_it_goes_the_same_way(bowl, tmp_path):
    whole = list(training.train(bowl(1000), folder=tmp_path / "whole"))
    commands, parts = SimpleQueue(), []
    for event in training.train(bowl(1000), commands, folder=tmp_path / "run"):
        parts.append(event)
        if isinstance(event, e.RateChanged) and event.factor == 0.25:
            commands.put(e.Stop())
    for event in training.resume(tmp_path / "run", commands):
        parts.append(event)
        if isinstance(event, e.Step) and event.step == 7 and event.rate < 0.2 * of(e.Step, parts)[0].rate:
            commands.put(e.Stop())
    parts += training.resume(tmp_path / "run")
    assert len(of(e.Finished, parts)) == 3 and len(of(e.Base, parts)) == 2
    assert parts[-1].hash == whole[-1].hash
    assert [event.step for event in of(e.Step, parts)] == [event.step for event in of(e.Step, whole)]


def test_a_good_rate_is_left_alone(bowl, tmp_path):
    told = list(training.train(bowl(0.5), folder=tmp_path / "run"))
    plain = list(training.train(bowl(0.5, guard=False), folder=tmp_path / "plain"))
    assert told[-1].hash == plain[-1].hash and not of(e.Returned, told) and not of(e.Base, plain)


def test_what_cannot_be_helped_ends_with_a_sentence(bowl, tmp_path, monkeypatch):
    monkeypatch.setattr(rescue, "RESCUES", 2)
    told = list(training.train(bowl(1000), folder=tmp_path / "run"))
    assert (told[-1].reason, told[-1].step) == ("early", 0)
    assert "ends there" in of(e.Notice, told)[-1].text
    session = finish(open_session(open_run(tmp_path / "run")))
    assert session.tuned.hash() == told[-1].hash and (session.tuned.values == session.tuned.start).all()
    assert list_runs(tmp_path / "run")[0].state == "done"
    rest = list(training.resume(tmp_path / "run"))
    assert of(e.Step, rest)[0].rate == pytest.approx(of(e.Step, told)[0].rate / 4)


def test_in_a_branch_the_way_back_ends_where_it_begins(bowl, tmp_path):
    list(training.train(bowl(0.5), folder=tmp_path / "run"))
    rate = bowl(1000).update.learning_rate
    made = branch(open_run(tmp_path / "run"), 20, [f"update.learning_rate={rate!r}"])
    told = list(training.resume(made.path))
    assert {event.step for event in of(e.Returned, told)} == {20} and told[-1].reason == "done"
    assert finish(open_session(made, from_checkpoints=False)).tuned.hash() == told[-1].hash


def test_losses_that_stop_being_finite_lead_back_and_those_that_never_were_to_an_end(make, tmp_path, monkeypatch):
    calls = []

    def broken(self, found, examples, base=None):
        calls.extend([1] * (len(found.sums) == 2))
        return _nan(found) if 5 < len(calls) < 16 else found

    monkeypatch.setattr("sparsezo_gui.engine.objectives.Objective.losses_of", broken)
    told = list(training.train(make(loop={"steps": 20}), folder=tmp_path / "run"))
    assert [event.step for event in of(e.Returned, told)] == [0] and told[-1].reason == "done"
    monkeypatch.setattr("sparsezo_gui.engine.objectives.Objective.losses_of", lambda self, found, *_: _nan(found))
    with pytest.raises(UserError, match="not finite"):
        list(training.train(make(loop={"steps": 20}), folder=tmp_path / "other"))
    assert journal.read(tmp_path / "other" / "journal.bin").step == 10


def _nan(found):
    if len(found.sums) == 2:
        found.sums[:] = float("nan")
    return found
