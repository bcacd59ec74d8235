"""Finding a rate: on a bowl whose stable rates are known, and on a tiny model."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from sparsezo_gui.engine import rate_search
from sparsezo_gui.engine.general import general_text
from sparsezo_gui.engine.masks.rule import Search
from sparsezo_gui.engine.objective import count_tokens
from sparsezo_gui.engine.rate_search import FADES, RUNG, Budget, RateSearch, find_rate, set_apart
from sparsezo_gui.engine.runs.branch import branch
from sparsezo_gui.engine.runs.folder import open_run
from sparsezo_gui.engine.session import Session
from sparsezo_gui.engine.session.loading import load_data, load_model
from sparsezo_gui.engine.spaces.sparse import SparseValues
from sparsezo_gui.engine.training import train
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

    def found(curvature, steps=(60,), **update):
        model = frozen_tiny("llama", 32)
        chosen = build({"mask": {"rule": "random", "density": 5e-4}, "update": {"rule": "sgd", **update}})
        session = Session(chosen, model, SparseValues(model, finish(chosen.mask.find(model, Search(0, chosen.data)))))
        monkeypatch.setattr(Session, "probe", lambda self, batch, z, shared: Bowl(self, curvature, z))
        told = []

        def watched(work):
            while True:
                try:
                    told.append(next(work))
                except StopIteration as end:
                    return end.value

        loss = lambda: Bowl(session, curvature).losses(torch.zeros(1, 1)).item()  # noqa: E731
        report = watched(RateSearch(session, ["example"], loss, Budget(1, steps)).run())
        assert torch.equal(session.tuned.values, session.tuned.start) and session.step == 0
        return report, told, 2 / (curvature * (session.tuned.values.numel() + 2))

    return found


@pytest.mark.parametrize("curvature", [1.0, 100.0, 1e4, 1e8])
def test_on_a_bowl_the_quickest_stable_rate_is_found(on_bowl, curvature):
    report, told, limit = on_bowl(curvature)
    assert limit / 2 / RUNG < report.best.rate < limit / 2 * RUNG
    # At this one rate or the next the mean square grows; single courses can differ by a rung.
    unstable = [rung.rate for rung in report.rungs if not rung.stable]
    assert all(rate > limit / RUNG for rate in unstable)
    usual, found = 2.5e-5, report.best.rate / (2000 / 60) ** FADES
    assert report.rate == pytest.approx(usual ** (20 / 80) * found ** (60 / 80), rel=0.1)
    assert {event.total for event in told} == {60} and all(isinstance(event, e.Progress) for event in told)


def test_where_rates_harm_or_do_nothing_the_search_ends_without_one(on_bowl, monkeypatch):
    """As where a few steps lead the wrong way: lower and lower rates would be less and less harmful."""
    monkeypatch.setattr(
        Session, "advance", lambda self, directions, recorded, rate, exact=None: self.tuned.values.sub_(rate)
    )
    report, _, _ = on_bowl(1.0, (2,))
    assert report.rate is None and len(report.rungs) < 10 and report.rungs[0].loss == pytest.approx(report.base, 1e-3)


@pytest.mark.parametrize("curvature", [1e-9, 1.0, 1e6])
def test_both_neighbours_of_the_best_rate_were_tried_in_every_round(on_bowl, curvature):
    report, _, _ = on_bowl(curvature, (8, 16, 32))
    assert {rung.steps for rung in report.rungs} == {8, 16, 32} and report.steps == 32
    for steps in (8, 16, 32):
        tried = sorted((rung for rung in report.rungs if rung.steps == steps), key=lambda rung: rung.rate)
        assert len({rung.rate for rung in tried}) == len(tried)
        losses = [rung.loss if rung.stable else math.inf for rung in tried]
        assert len(losses) >= 3 and min(losses) in losses[1:-1]
        ratios = {round(high.rate / low.rate, 1) for low, high in itertools.pairwise(tried)}
        assert ratios <= {3.0, 3.1, 3.2, 3.3}


def test_where_every_rate_harms_none_is_told(on_bowl, monkeypatch):
    monkeypatch.setattr(rate_search, "MOST", 3)
    report, _, _ = on_bowl(1e15)
    assert report.rate is None and report.best is None and report.words.startswith("No learning rate from")
    assert report.as_json()["rate"] is None and len(report.as_json()["rungs"]) >= 3


def test_a_loss_that_is_no_number_is_unstable(on_bowl, monkeypatch):
    monkeypatch.setattr(Bowl, "losses", lambda self, offsets: torch.full((len(offsets),), math.nan).double())
    report, _, _ = on_bowl(1.0, steps=(2,))
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
    assert report.steps == 3 and all(len(rung.losses) == 3 for rung in report.rungs if rung.stable)
    again = finish(find_rate(make(loop={"steps": 6}), steps=3))
    assert again == report


@pytest.mark.parametrize(
    ("steps", "cost", "compared", "lengths"),
    [
        (100, "two-sided", 1, ()),
        (300, "two-sided", 1, (7,)),  # 4 × (7 × 2 + 1) = 60 of 600 passes
        (2000, "two-sided", 4, (8, 16, 32)),  # (4 × 8 + 3 × 16 + 3 × 32) × 2 + 10 × 4 = 392 of 4 000
        (100, "first-order", 1, (2,)),
    ],
)
def test_a_search_takes_a_tenth_of_the_passes(steps, cost, compared, lengths):
    recipe = build({"loop": {"steps": steps}, "estimator": {"rule": cost}})
    assert Budget.of(recipe) == Budget(compared, lengths)


@pytest.mark.parametrize(
    ("steps", "general", "compared", "lengths"),
    [
        (2000, 0, 4, (8, 16, 32)),
        (2000, 60, 4, (15, 30)),  # (4 × 15 + 3 × 30) × 2 + 7 × 4 + 60 = 388 of 400
        (300, 9, 1, (5,)),
        (300, 500, 1, (5,)),  # general text alone is too much: the least that tells anything
        (100, 500, 1, ()),
    ],
)
def test_what_general_text_takes_is_part_of_the_tenth(steps, general, compared, lengths):
    found = Budget.of(build({"loop": {"steps": steps}}), general)
    assert found == Budget(compared, lengths)
    runs = sum(length * (4, 3, 3)[number] * 2 + (4, 3, 3)[number] * compared for number, length in enumerate(lengths))
    assert general >= 500 or runs + general <= steps * 2 / 10


@pytest.fixture
def started(make):
    """``started(**tables)``: the events of a run up to its first step."""

    def events(**tables):
        found = []
        for event in train(make(**tables)):
            found.append(event)
            if isinstance(event, e.Step):
                return found
        return found

    return events


def test_a_run_without_a_learning_rate_finds_it_and_keeps_what_it_found(make):
    recipe = make(loop={"steps": 300, "batch_size": 2, "evaluate_every": 0})
    assert recipe.update.find_rate
    found, told = None, []
    run = train(recipe)
    for event in run:
        told.append(event)
        if isinstance(event, e.RateFound):
            found = event
        if isinstance(event, e.Step):
            break
    run.close()
    kept = open_run(next(each.run for each in told if isinstance(each, e.Started)))
    assert kept.recipe.update.learning_rate == found.rate == told[-1].rate and not kept.recipe.update.find_rate
    assert next(each for each in kept.events() if isinstance(each, e.RateFound)) == found
    model, tried = finish(load_model(recipe)), sum(len(trial.losses) for trial in found.trials) * 2
    general, own = general_text(model, recipe.data.max_tokens), finish(load_data(recipe, model)).train.encoded
    read = sum(map(count_tokens, general)) / (2 * sum(map(count_tokens, own)) / len(own))
    times = (found.passes - tried - (1 + len(found.trials))) / read
    assert times == pytest.approx(round(times), rel=0.01) and times > 1.9, "before, and at one rate or more"
    with pytest.raises(UserError, match="finds a learning rate at the start of a new run"):
        branch(kept, 1, ["update.find_rate=true"])
    report = finish(find_rate(recipe))
    assert report.rate == found.rate and [rung.rate for rung in report.rungs] == [each.rate for each in found.trials]


def test_a_short_run_takes_the_usual_rate_and_says_so(started, make):
    told = started(loop={"steps": 5})
    assert told[-1].rate == make(loop={"steps": 5}).update.learning_rate
    assert any("too short to find a learning rate" in getattr(event, "text", "") for event in told)


def test_a_given_rate_is_not_searched(started):
    told = started(loop={"steps": 100}, update={"learning_rate": 2e-3})
    assert told[-1].rate == 2e-3 and not any(isinstance(event, e.RateFound) for event in told)


def test_what_is_private_is_not_tried(make):
    with pytest.raises(UserError, match=r"without the noise of \[privacy\]"):
        finish(find_rate(make(data={"answers": ("no", "yes")}, privacy={"rule": "gaussian"})))


@pytest.mark.parametrize(("limit", "times"), [(1.0, 0), (0.1, 0), (0.05, 1), (0.02, 2), (0.005, 3)])
def test_a_rate_whose_random_part_ruins_the_model_is_lowered(frozen_tiny, monkeypatch, limit, times):
    """300 steps at 1e-2, falling linearly, move each value by 1e-2 · √(300 / 3) = 0.1 at random."""
    model = frozen_tiny("llama", 32)
    chosen = build({"mask": {"rule": "random", "density": 0.05}, "loop": {"steps": 300}})
    session = Session(chosen, model, SparseValues(model, finish(chosen.mask.find(model, Search(0, chosen.data)))))

    def perplexity(model, text):
        moved = (session.tuned.values - session.tuned.start).square().mean().sqrt().item()
        return 1.05 if moved < 1.03 * limit else 2.0
        yield

    monkeypatch.setattr(rate_search, "general_text", lambda *_: [])
    monkeypatch.setattr(rate_search, "perplexity", perplexity)
    rate, read = finish(rate_search.harmless(session, 1e-2))
    assert rate == pytest.approx(1e-2 / RUNG**times, rel=0.05) and read == 2 + times
    assert torch.equal(session.tuned.values, session.tuned.start)
    monkeypatch.setattr(rate_search, "perplexity", lambda *_: (yield from ()) or math.nan)
    assert finish(rate_search.harmless(session, 1e-2)) == (1e-2, 1), "what it costs is not known"
    exact = build({"estimator": {"rule": "first-order"}, "update": {"rule": "adam"}})
    session.recipe = exact
    assert finish(rate_search.harmless(session, 0.5)) == (0.5, 0), "whose steps are not random"


def test_closing_it_cancels(make):
    work = find_rate(make(), steps=3)
    for event in work:
        if isinstance(event, e.Progress) and event.stage.startswith("Trying"):
            break
    work.close()
    assert list(work) == [], "nothing goes on behind"


@pytest.mark.parametrize(("count", "apart"), [(2, 1), (24, 6), (1000, 64)])
def test_examples_to_judge_by_are_not_trained_on(count, apart):
    judged, rest = set_apart(list(range(count)), 3, 64)
    assert len(judged) == apart and sorted(judged + rest) == list(range(count))
    with pytest.raises(UserError, match="too few"):
        set_apart([1], 0, 64)
