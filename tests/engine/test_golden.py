"""Golden trajectories: what every estimator and update did on a tiny model must stay what it does.

A missing file is recorded at the first run and fails once, so that it is looked at before it is committed.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from sparsezo_gui import recipe
from sparsezo_gui.engine import training
from sparsezo_gui.engine.data.encode import Encoded, Row
from sparsezo_gui.engine.masks.rule import Search
from sparsezo_gui.engine.runs import journal
from sparsezo_gui.engine.session import Session
from sparsezo_gui.engine.spaces.sparse import SparseValues
from sparsezo_gui.engine.zo.generator import FIRST, GENERATOR
from sparsezo_gui.recipe.events import Returned
from sparsezo_gui.recipe.presets import PRESETS
from sparsezo_gui.recipe.registry import ESTIMATORS, UPDATES
from sparsezo_gui.recipe.tables import changed
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


PLAIN = ("sgd", "scalar-normalised")  # with which every estimator goes; the other updates go with two-sided slopes
COMBINED = [
    (estimator, directions, update, GENERATOR)
    for estimator in ESTIMATORS
    for directions in counts(estimator)
    for update in (UPDATES if estimator == "two-sided" else PLAIN)
] + [("loren", 1, update, FIRST) for update in PLAIN]  # whose state began elsewhere in the first version


@pytest.mark.parametrize(("estimator", "directions", "update", "generator"), COMBINED)
def test_trajectory(frozen_tiny, estimator, update, directions, generator):
    model = frozen_tiny("llama", 32)
    chosen = recipe.build(
        {
            "mask": {"rule": "random", "density": 0.02},
            "estimator": {"rule": estimator, **SETTINGS.get(estimator, {}),
                          **({"directions": directions} if "directions" in ESTIMATORS[estimator].model_fields else {})},
            "update": {"rule": update, "learning_rate": RATES[update], "schedule": "linear"},
            "loop": {"steps": 12, "seed": 5, "batch_size": 6},
        }
    )
    tuned = SparseValues(model, finish(chosen.mask.find(model, Search(5, chosen.data))))
    session = Session(chosen, model, tuned, generator=generator)
    session.begin()
    batch = [example(5, 9, 20 + i, label=i % 2) for i in range(6)]
    if estimator == "addax":  # short ones and long ones
        batch[3:] = [example(5, 9, 7, 20 + i, label=i % 2) for i in range(3)]

    found = {"loss": [], "recorded": []}
    for step in range(1, 13):
        directions_now = session.directions()
        rate = chosen.update.rate(step, 12)
        estimate = session.estimate(batch, directions_now, rate)
        session.advance(directions_now, estimate.recorded, rate, estimate.exact)
        found["loss"].append(estimate.loss)
        found["recorded"].append(list(estimate.recorded))
    found["values"] = tuned.values[:8].tolist()
    older = "" if generator == GENERATOR else "-generator-1"
    path = FOLDER / f"{estimator}-{directions}-{update}{older}.json"
    if not path.exists():
        path.write_text(json.dumps(found, indent=1) + "\n")
        pytest.fail(f"recorded {path.name}: look at it, then commit it")
    golden = json.loads(path.read_text())
    assert found["loss"] == pytest.approx(golden["loss"], rel=1e-4)
    assert found["values"] == pytest.approx(golden["values"], rel=1e-3, abs=1e-5)
    for mine, theirs in zip(found["values"], golden["values"], strict=True):
        assert mine == pytest.approx(theirs, rel=1e-2, abs=5e-3)


FINDS = ("sensitive", "activation-subspace")  # masks that are found on text


OFFERED = [(preset, 32) for preset in PRESETS] + [
    (preset, 64) for preset in PRESETS if preset.settings.get("model", {}).get("bits", 4) == 4
]  # the latter as they went before other blocks could be chosen


@pytest.mark.parametrize(("preset", "block"), OFFERED, ids=lambda each: each if isinstance(each, int) else each.title)
def test_preset(make, tmp_path, preset, block):
    """What is offered to everybody, whole: the model's bits, mask, estimator and update together, in a run."""
    small = {"sequences": 2, "tokens": 32} if preset.settings["mask"]["rule"] in FINDS else {}
    exact = preset.settings["estimator"]["rule"] == "elastic"
    if exact:
        small["density"] = 0.05  # of 0.1 % of so small a model, none is in the last block
    rate = RATES[preset.settings["update"]["rule"]]  # those of presets hardly move so small a model
    mask, update = {**preset.settings["mask"], **small}, {**preset.settings["update"], "learning_rate": rate}
    recipe = make(loop={"steps": 8}, model={"block": block})
    chosen = changed(recipe, {**preset.settings, "mask": mask, "update": update})
    for event in training.train(chosen, folder=tmp_path / "run"):
        assert not isinstance(event, Returned), "a preset goes on"
    steps = journal.read(tmp_path / "run" / "journal.bin").steps
    found = {"loss": steps["loss"].tolist(), "recorded": steps["values"].tolist()}
    assert not exact or steps["values"][:, 1].min() > 0, "it back-propagates"
    older = "" if block == 32 else f"-{block}"
    path = FOLDER / f"preset-{re.sub('[^a-z]+', '-', preset.title.lower()).strip('-')}{older}.json"
    if not path.exists():
        path.write_text(json.dumps(found, indent=1) + "\n")
        pytest.fail(f"recorded {path.name}: look at it, then commit it")
    golden = json.loads(path.read_text())
    assert found["loss"] == pytest.approx(golden["loss"], rel=1e-3)
    for mine, theirs in zip(found["recorded"], golden["recorded"], strict=True):
        assert mine == pytest.approx(theirs, rel=2e-2, abs=2e-2)
