"""Finding a rate: on a bowl whose stable rates are known, and on a tiny model."""

from __future__ import annotations

import math

import pytest
import torch

from sparsezo_gui.engine import range_test
from sparsezo_gui.engine.masks.rule import Search
from sparsezo_gui.engine.range_test import RUNG, SAFETY, climb, find_rate, set_apart
from sparsezo_gui.engine.session import Session
from sparsezo_gui.engine.spaces.sparse import SparseValues
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import events as e
from sparsezo_gui.recipe.tables import build
from tests.engine.conftest import finish


class Bowl:
    """L(θ) = ½·a·|θ − θ₀ − 1|². Along normal directions the mean of |θ − θ*|² shrinks below η = 2 / a(n + 2), and most
    quickly at half of that."""

    def __init__(self, session, curvature, directions=None):
        self.session, self.curvature, self.directions = session, curvature, directions

    def losses(self, offsets):
        tuned = self.session.tuned
        away = tuned.values - tuned.start - 1 + (0 if self.directions is None else offsets @ self.directions)
        return self.curvature / 2 * away.double().square().sum(dim=-1).reshape(-1)


@pytest.fixture
def on_bowl(frozen_tiny, monkeypatch):
    """``on_bowl(curvature, …)``: what is found on a bowl, the progress, and its highest stable rate."""

    def found(curvature, steps=60, **update):
        model = frozen_tiny("llama", 32)
        chosen = build({"mask": {"rule": "random", "density": 5e-4}, "update": {"rule": "sgd", **update}})
        session = Session(chosen, model, SparseValues(model, finish(chosen.mask.find(model, Search(0, chosen.data)))))
        monkeypatch.setattr(Session, "probe", lambda self, batch, z: Bowl(self, curvature, z))
        told = []

        def watched(work):
            while True:
                try:
                    told.append(next(work))
                except StopIteration as end:
                    return end.value

        loss = lambda: Bowl(session, curvature).losses(torch.zeros(1, 1)).item()  # noqa: E731
        report = watched(climb(session, ["example"], loss, steps))
        assert torch.equal(session.tuned.values, session.tuned.start) and session.step == 0
        return report, told, 2 / (curvature * (session.tuned.values.numel() + 2))

    return found


@pytest.mark.parametrize("curvature", [1.0, 100.0, 1e4])
def test_on_a_bowl_the_quickest_stable_rate_is_found(on_bowl, curvature):
    report, told, limit = on_bowl(curvature)
    assert limit / 2 / RUNG < report.best.rate < limit / 2 * RUNG
    # At this one rate or the next the mean square grows; single courses can differ by a rung.
    unstable = [rung.rate for rung in report.rungs if not rung.stable]
    assert len(unstable) == 1 and limit / RUNG < unstable[0] < limit * RUNG**2 and report.rungs[-1].rate == unstable[0]
    assert report.rate == pytest.approx(report.best.rate / SAFETY, rel=0.1)
    assert " is a good rate" in report.words and "the loss increased" in report.words
    assert {event.total for event in told} == {60} and all(isinstance(event, e.Progress) for event in told)


def test_where_the_usual_rates_are_too_high_lower_ones_are_tried(on_bowl):
    report, _, limit = on_bowl(1e8)
    assert limit / 2 / RUNG < report.best.rate < limit / 2 * RUNG
    rates = [rung.rate for rung in report.rungs]
    assert rates == sorted(rates) and rates[-1] == 1e-7 and not report.rungs[-1].stable


def test_where_no_rate_helps_none_is_told(on_bowl, monkeypatch):
    monkeypatch.setattr(range_test, "MOST", 3)
    report, _, _ = on_bowl(1e-6)
    assert report.rate is None and report.best is None and report.words.startswith("None of the rates")
    assert report.as_json()["rate"] is None and len(report.as_json()["rungs"]) == 3


def test_a_loss_that_is_no_number_is_unstable(on_bowl, monkeypatch):
    monkeypatch.setattr(Bowl, "losses", lambda self, offsets: torch.full((len(offsets),), math.nan).double())
    report, _, _ = on_bowl(1.0, steps=2)
    assert all(not rung.stable and rung.loss is None for rung in report.rungs) and report.rate is None


def test_on_a_model(make):
    work = find_rate(make(loop={"steps": 6}), steps=3)
    stages = []
    while True:
        try:
            stages.append(next(work))
        except StopIteration as end:
            report = end.value
            break
    assert len([each for each in stages if getattr(each, "stage", "").startswith("Trying")]) == 3 * len(report.rungs)
    assert report.rungs[0].rate == 1e-5 and report.steps == 3
    again = finish(find_rate(make(loop={"steps": 6}), steps=3))
    assert again == report


def test_what_is_private_is_not_tried(make):
    with pytest.raises(UserError, match=r"without the noise of \[privacy\]"):
        finish(find_rate(make(data={"answers": ("no", "yes")}, privacy={"rule": "gaussian"})))


def test_closing_it_cancels(make):
    work = find_rate(make(), steps=3)
    for event in work:
        if isinstance(event, e.Progress) and event.stage.startswith("Trying"):
            break
    work.close()
    assert list(work) == [], "nothing goes on behind"


@pytest.mark.parametrize(("count", "apart"), [(2, 1), (24, 6), (1000, 64)])
def test_examples_to_judge_by_are_not_trained_on(count, apart):
    judged, rest = set_apart(list(range(count)), 3)
    assert len(judged) == apart and sorted(judged + rest) == list(range(count))
    with pytest.raises(UserError, match="too few"):
        set_apart([1], 0)
