"""Golden trajectories: what every estimator and update did on a tiny model must stay what it does.

A missing file is recorded at the first run and fails once, so that it is looked at before it is committed. So that no
file records a fault, the first two steps are also those of a plain model in fp64, whose weights are edited in place.
"""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path

import pytest
import torch

from sparsezo_gui import recipe
from sparsezo_gui.engine import training
from sparsezo_gui.engine.data.encode import Encoded, Row
from sparsezo_gui.engine.masks.rule import Search
from sparsezo_gui.engine.runs import journal
from sparsezo_gui.engine.runs.folder import open_run
from sparsezo_gui.engine.session import Session
from sparsezo_gui.engine.session.loading import load_data
from sparsezo_gui.engine.session.opening import open_session
from sparsezo_gui.engine.spaces.sparse import SparseValues
from sparsezo_gui.engine.zo.generator import FIRST, GENERATOR
from sparsezo_gui.recipe.events import Returned
from sparsezo_gui.recipe.presets import PRESETS
from sparsezo_gui.recipe.registry import ESTIMATORS, UPDATES
from sparsezo_gui.recipe.tables import changed
from tests.engine import plain as reference
from tests.engine.conftest import finish

FOLDER = Path(__file__).parents[1] / "golden"
RATES = {
    "sgd": 3e-4, "scalar-normalised": 3e-3, "sign": 3e-3, "momentum": 1e-3, "adam": 3e-3, "conservative": 0.03,
}  # fmt: skip
SETTINGS = {
    "hizoo": {"epsilon": 0.02},  # a second difference of fp32 losses has few digits at a smaller one
    "addax": {"short": 3},
}


def counts(rule):
    """The two smallest numbers of directions that an estimator can have; 1 where it has as many as it has."""
    field = ESTIMATORS[rule].model_fields.get("directions")
    least = next((bound.ge for bound in field.metadata if hasattr(bound, "ge")), 1) if field else 1
    return (least, least + 1) if field else (1,)


def example(*tokens, label):
    """A choice of two tokens after ``tokens``."""
    last = len(tokens) - 1
    return Encoded((Row(tokens, (last, last), (30, 40), (0, 1)),), 2, label, (), (), 0)


class Plain:
    """Steps of a session's recipe on a plain fp64 model, by the papers' formulas; only directions are the session's."""

    def __init__(self, session):
        self.session, self.model = session, reference.plain_model(session.model).double()
        self.values = session.tuned.values.double().clone()
        self.moment, self.count = 0.0, 0
        self.parameter = self.values.clone().requires_grad_()
        make = {"momentum": partial(torch.optim.SGD, momentum=0.9), "adam": torch.optim.Adam}
        rule = session.recipe.update.rule
        self.optimizer = make[rule]([self.parameter], lr=1.0) if rule in make else None

    def loss(self, offset, examples):
        with torch.no_grad():
            reference.put(self.model, self.session.model, self.session.tuned, self.values + offset)
            return float(reference.loss(self.model, examples))

    def gradient(self, examples, offset=0.0):
        self.model.zero_grad()
        reference.put(self.model, self.session.model, self.session.tuned, self.values + offset)
        reference.loss(self.model, examples).backward()
        tuned = self.session.tuned
        return torch.cat([self.model.get_parameter(name).grad.view(-1)[tuned.indices[name].long()]
                          for name in tuned.slices])  # fmt: skip

    def step(self, examples, z, rate):
        """The numbers that a step of ``examples`` along ``z`` (q, n) records; moves the values."""
        rule, z, self.before = self.session.recipe.estimator, z.double(), self.loss(0.0, examples)
        epsilon = getattr(rule, "epsilon", 0.0)

        def slope(direction, some=examples):
            plus, minus = (self.loss(sign * epsilon * direction, some) for sign in (1, -1))
            return (plus - minus) / (2 * epsilon)

        def ahead():
            return torch.tensor([self.loss(epsilon * direction, examples) for direction in z]).double()

        exact, projected_grads, self.times, self.apart = 0.0, None, 1.0, None
        match rule.rule:
            case "two-sided":
                recorded = [slope(direction) for direction in z]
            case "conmezo":  # whose cone is in the direction already
                recorded = [slope(z[0])]
            case "curvzo":
                recorded = [slope(z[0])]
                projected_grads = [0.0, 2**0.5 * recorded[0]]
            case "hizoo":
                second = sum(self.loss(sign * epsilon * z[0], examples) for sign in (1, -1)) - 2 * self.before
                recorded = [slope(z[0]), second / epsilon**2]
                projected_grads = recorded[:1]
            case "fzoo":
                recorded = ((ahead() - self.before) / epsilon).tolist()
                projected_grads = (torch.tensor(recorded) / torch.tensor(recorded).std()).tolist()
            case "bszo":  # whose shrinking of each slope has its closed form in test_estimators
                recorded = ((ahead() - self.before) / epsilon).tolist()
                projected_grads = rule.projected_grads(z, recorded, self.session.state.estimator)[0]
            case "loren":
                recorded = ((ahead() - ahead().mean()) * len(z) / (epsilon * (len(z) - 1))).tolist()
            case "grzo":
                recorded = [slope(direction, [one]) for direction, one in zip(z, examples, strict=True)]
                projected_grads = (torch.tensor(recorded) / torch.tensor(recorded).std()).tolist()
            case "forward-gradient":
                recorded = (z @ self.gradient(examples)).tolist()
            case "first-order":
                exact = self.gradient(examples)
                recorded, projected_grads = [float(exact.norm())], []
            case "elastic":
                exact = sum(self.gradient(examples, sign * epsilon * z[0]) for sign in (1, -1)) / 2
                exact *= z[0] == 0  # what is not perturbed is back-propagated
                recorded, projected_grads = [slope(z[0]), float(exact.norm())], [slope(z[0])]
                if rule.balanced:
                    self.apart = z[0] == 0
                    perturbed, others = (~self.apart).sum(), self.apart.sum()
                    exact *= others.sqrt()
                    self.times = torch.where(self.apart, rule.weight * (perturbed / others).sqrt(), 1.0)
                else:
                    exact *= rule.weight
                    recorded[1] *= rule.weight
            case "addax":
                short = [each for each in examples if each.length <= rule.short]
                share = len(short) / len(examples)
                exact = share * self.gradient(short) * (len(z[0]) ** 0.5 if rule.balanced else 1.0)
                recorded = [(1 - share) * slope(z[0], [each for each in examples if each not in short]), share]
                projected_grads = recorded[:1]
        grads = recorded if projected_grads is None else projected_grads
        gradient = exact + torch.tensor(grads).double() @ z[: len(grads)] / max(1, len(grads))
        return tuple(recorded + self.move(gradient, grads, exact, rate, examples))

    def move(self, gradient, grads, exact, rate, examples):
        """Moves the values; what the update records itself."""
        update, measured, self.count = self.session.recipe.update, [], self.count + 1
        match update.rule:
            case "sgd":
                self.values -= rate * self.times * gradient
            case "sign":
                self.values -= rate * gradient.sign()
            case "scalar-normalised":
                square = sum(grad**2 for grad in grads) / max(1, len(grads))
                if self.apart is None:
                    square += float(torch.as_tensor(exact).square().mean())
                else:
                    square = torch.where(self.apart, exact[self.apart].square().mean(), square)
                self.moment = update.memory * self.moment + (1 - update.memory) * square
                self.values -= rate * self.times * gradient / (self.moment / (1 - update.memory**self.count)) ** 0.5
            case "conservative":
                losses = [self.loss(-move * rate * gradient, examples) for move in (0.0, 1.0, -1.0)]
                measured = [(0.0, 1.0, -1.0)[losses.index(min(losses))]]
                self.values -= measured[0] * rate * gradient
            case _:
                self.optimizer.param_groups[0]["lr"] = rate
                self.parameter.grad = gradient
                self.optimizer.step()
                self.values = self.parameter.detach().clone()
        return measured


PLAIN = ("sgd", "scalar-normalised")  # with which every estimator goes; the other updates go with two-sided slopes
UNBALANCED = {"elastic": {"balanced": False, "weight": 1.0}, "addax": {"balanced": False}}  # as in version 0.1
COMBINED = [
    (estimator, directions, update, GENERATOR, {})
    for estimator in ESTIMATORS
    if estimator != "auto"  # is one of the others
    for directions in counts(estimator)
    for update in (UPDATES if estimator == "two-sided" else PLAIN)
] + [
    *(("loren", 1, update, FIRST, {}) for update in PLAIN),  # whose state began elsewhere in the first version
    *((estimator, 1, update, GENERATOR, older) for estimator, older in UNBALANCED.items() for update in PLAIN),
]


@pytest.mark.parametrize(("estimator", "directions", "update", "generator", "older"), COMBINED)
def test_trajectory(frozen_tiny, estimator, update, directions, generator, older):
    model = frozen_tiny("llama", 32)
    chosen = recipe.build(
        {
            "mask": {"rule": "random", "density": 0.02},
            "estimator": {
                "rule": estimator,
                **SETTINGS.get(estimator, {}),
                **older,
                **({"directions": directions} if "directions" in ESTIMATORS[estimator].model_fields else {}),
            },
            "update": {"rule": update, "learning_rate": RATES[update], "schedule": "linear"},
            "loop": {"steps": 12, "seed": 5, "batch_size": 6},
        }
    )
    tuned = SparseValues(model, finish(chosen.mask.find(model, Search(5, chosen.data))))
    session = Session(chosen, model, tuned, generator=generator)
    session.begin()
    plain = Plain(session)
    batch = [example(5, 9, 20 + i, label=i % 2) for i in range(6)]
    if estimator == "addax":  # short ones and long ones
        batch[3:] = [example(5, 9, 7, 20 + i, label=i % 2) for i in range(3)]

    found = {"loss": [], "recorded": []}
    for step in range(1, 13):
        directions_now = session.directions()
        rate = chosen.update.rate(step, 12)
        estimate = session.estimate(batch, directions_now, rate)
        if step <= 2:
            expected = plain.step(batch, directions_now, rate)
            assert estimate.recorded == pytest.approx(expected, rel=1e-2, abs=5e-3)
            assert estimate.loss == pytest.approx(plain.before, abs=5e-3)
        session.advance(directions_now, estimate.recorded, rate, estimate.exact)
        if step <= 2:
            away = (plain.values - tuned.start).norm()
            assert away > 0 and (tuned.values - plain.values).norm() < 0.05 * away
        found["loss"].append(estimate.loss)
        found["recorded"].append(list(estimate.recorded))
    found["values"] = tuned.values[:8].tolist()
    version = "" if generator == GENERATOR else "-generator-1"
    version += "-balanced" if getattr(chosen.estimator, "balanced", False) else ""
    path = FOLDER / f"{estimator}-{directions}-{update}{version}.json"
    if not path.exists():
        path.write_text(json.dumps(found, indent=1) + "\n")
        pytest.fail(f"recorded {path.name}: look at it, then commit it")
    golden = json.loads(path.read_text())
    assert found["loss"] == pytest.approx(golden["loss"], rel=1e-4)
    # Losses carry 1e-7 of rounding, which 1 / 2ε makes 1e-4 of a projected gradient, and the rate a part of a value.
    assert found["values"] == pytest.approx(golden["values"], rel=1e-3, abs=max(1e-5, 1e-3 * RATES[update]))
    for mine, theirs in zip(found["recorded"], golden["recorded"], strict=True):
        assert mine == pytest.approx(theirs, rel=1e-2, abs=5e-3)


FINDS = ("sensitive", "activation-subspace")  # masks that are found on text


ELASTIC = [preset for preset in PRESETS if preset.settings["estimator"]["rule"] == "elastic"]
OFFERED = [(preset, 32, {}) for preset in PRESETS] + [
    pytest.param(preset, 64, UNBALANCED["elastic"] if preset in ELASTIC else {}, marks=pytest.mark.slow)
    for preset in PRESETS
    if preset.settings.get("model", {}).get("bits", 4) == 4
]
OFFERED += [(preset, 32, UNBALANCED["elastic"]) for preset in ELASTIC]


@pytest.mark.parametrize(("preset", "block", "older"), OFFERED, ids=lambda each: getattr(each, "title", str(each)))
def test_preset(make, tmp_path, preset, block, older):
    """What is offered to everybody, whole: the model's bits, mask, estimator and update together, in a run."""
    small = {"sequences": 2, "tokens": 32} if preset.settings["mask"]["rule"] in FINDS else {}
    exact = preset in ELASTIC
    if exact:
        small["density"] = 0.05  # of 0.1 % of so small a model, none is in the last block
    rate = RATES[preset.settings["update"]["rule"]]  # those of presets hardly move so small a model
    mask, update = {**preset.settings["mask"], **small}, {**preset.settings["update"], "learning_rate": rate}
    recipe = make(loop={"steps": 8}, model={"block": block})
    estimator = {**preset.settings["estimator"], **older}
    chosen = changed(recipe, {**preset.settings, "mask": mask, "estimator": estimator, "update": update})
    for event in training.train(chosen, folder=tmp_path / "run"):
        assert not isinstance(event, Returned), "a preset goes on"
    steps = journal.read(tmp_path / "run" / "journal.bin").steps
    found = {"loss": steps["loss"].tolist(), "recorded": steps["values"].tolist()}
    assert not exact or steps["values"][:, 1].min() > 0, "it back-propagates"
    session = finish(open_session(open_run(tmp_path / "run"), 0))
    batch = session.choose(finish(load_data(session.recipe, session.model)).train.encoded).examples
    if isinstance(session.tuned, SparseValues):
        plain = Plain(session)
        first, before = plain.step(batch, session.directions(), 0.0), plain.before
        assert found["recorded"][0] == pytest.approx(first, rel=1e-2, abs=5e-3)
    else:  # steps in other spaces have plain ones of their own, in test_dense and test_low_rank
        with torch.no_grad():
            before = float(reference.loss(reference.plain_model(session.model), batch))
    assert found["loss"][0] == pytest.approx(before, rel=3e-3)
    version = ("" if block == 32 else f"-{block}") + ("-balanced" if exact and not older else "")
    path = FOLDER / f"preset-{re.sub('[^a-z]+', '-', preset.title.lower()).strip('-')}{version}.json"
    if not path.exists():
        path.write_text(json.dumps(found, indent=1) + "\n")
        pytest.fail(f"recorded {path.name}: look at it, then commit it")
    golden = json.loads(path.read_text())
    assert found["loss"] == pytest.approx(golden["loss"], rel=1e-3)
    for mine, theirs in zip(found["recorded"], golden["recorded"], strict=True):
        assert mine == pytest.approx(theirs, rel=2e-2, abs=2e-2)
