"""Every rule of every registry trains, and then replays and resumes to the same bits, whatever is drawn ahead; and a
rule that says something wrong of itself cannot do so in silence."""

from __future__ import annotations

import json
import shutil
from functools import partial

import pytest
import torch

from sparsezo_gui.engine import training
from sparsezo_gui.engine.masks.random import Random
from sparsezo_gui.engine.masks.rule import Search
from sparsezo_gui.engine.runs import checkpoints
from sparsezo_gui.engine.runs.branch import branch
from sparsezo_gui.engine.runs.folder import open_run
from sparsezo_gui.engine.session import Session
from sparsezo_gui.engine.session import replay as replays
from sparsezo_gui.engine.session.opening import open_session
from sparsezo_gui.engine.zo.estimators import Estimate
from sparsezo_gui.engine.zo.estimators.two_sided import TwoSided
from sparsezo_gui.engine.zo.generator import FIRST, Source, Stream, normal
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.registry import ESTIMATORS, MASKS, REGISTRIES, UPDATES
from sparsezo_gui.recipe.tables import build
from tests.engine.conftest import finish
from tests.engine.test_correctness import SEARCH
from tests.engine.test_loop import at, e, resume, train

TEXT = {"sequences": 2, "tokens": 32, "text": "general"}
SETTINGS = {
    "sensitive": TEXT, "weight-activation": TEXT, "outlier-channels": {**TEXT, "threshold": 1.5, "channels": 0.05},
    "rows": {"density": 0.05}, "multi-task": {"sequences": 2, "tokens": 32, "texts": ["general"]},
    "subspace": {"rank": 3, "refresh": 2, "subspaces": 2}, "activation-subspace": {**TEXT, "rank": 2},
    "lora": {"rank": 2},
    "addax": {"short": 9}, "fzoo": {"losses": 3}, "loren": {"losses": 3, "block": 100}, "hizoo": {"smoothing": 1e-3},
}  # fmt: skip
SPACES = (
    "all",
    "small-magnitude-dynamic",
    "random-layers",
    "subspace",
    "activation-subspace",
    "lora",
    "gradient-subspace",
)
PAIRS = [{"prompt": f"the cat sat on {i}", "chosen": " the mat", "rejected": f" a dog {i}"} for i in range(24)]


def tables(estimator="two-sided", update="scalar-normalised", mask="random", **others):
    """The tables of a short run of these rules."""
    return {
        "model": {"bits": 32}, "data": {"validation": 0, "test": 0}, "loop": {"evaluate_every": 0, "guard": False},
        "mask": {"rule": mask, **SETTINGS.get(mask, {})}, "update": {"rule": update, "learning_rate": 1e-3},
        "estimator": {"rule": estimator, **SETTINGS.get(estimator, {})}, **others,
    }  # fmt: skip


def goes(each):
    """Whether its rules go together."""
    try:
        return bool(build(each))
    except UserError as error:
        assert any(word in str(error) for word in ("Set [", "or [")), error
        return False


METHODS = {
    **{f"{rule}-{update}": tables(rule, update) for rule in ESTIMATORS for update in UPDATES},
    **{f"{mask}-{rule}": tables(rule, mask=mask) for mask in SPACES for rule in ESTIMATORS},
    **{mask: tables(mask=mask) for mask in MASKS if mask not in SPACES},
    **{f"{mask}-16-bits": tables("fzoo", mask=mask, model={"bits": 16}) for mask in SPACES[:3]},
    **{f"coreset-{rule}": tables(rule, selection={"rule": "coreset"}) for rule in ("two-sided", "first-order")},
    "accuracy": tables(objective={"rule": "accuracy"}),
    "preference": tables("first-order", "momentum", objective={"rule": "preference"}, data={
        "task": "preference", "template": "", "columns": {}, "validation": 0, "test": 0}),
    "gaussian": tables(privacy={"rule": "gaussian"}, data={"answers": ["yes", "no"], "validation": 0, "test": 0}),
}  # fmt: skip
METHODS = {name: each for name, each in METHODS.items() if goes(each)}


@pytest.fixture
def ahead(monkeypatch):
    """Directions are drawn ahead on three threads, and key frames are kept every two steps."""
    monkeypatch.setattr(replays, "DRAWN_AHEAD", 0)
    monkeypatch.setattr(replays.torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(checkpoints, "spacing", lambda size, again=False: 2)


def replayed(folder, use=False):
    """The hash of the values, from key frames or from the beginning."""
    return finish(open_session(open_run(folder), from_checkpoints=use)).tuned.hash()


def check(chosen, folder):
    """Trains, replays and resumes, and demands the same bits."""
    whole = train(chosen, folder / "whole")[-1].hash
    half = train(chosen, folder / "half", at(3, e.Stop()))[-1].hash
    assert whole != half
    assert replayed(folder / "whole") == replayed(folder / "whole", use=True) == whole
    assert replayed(folder / "half") == half
    if chosen.privacy.private:  # whose noise is the system's, another one in each run
        return
    shutil.copytree(folder / "half", folder / "bare", ignore=shutil.ignore_patterns("frames"))
    assert resume(folder / "half")[-1].hash == resume(folder / "bare")[-1].hash == whole


def test_nothing_is_left_out():
    tried = {(table, each[table]["rule"]) for each in METHODS.values() for table in each if "rule" in each[table]}
    tried |= {(registry.table, registry.default) for registry in REGISTRIES}
    every = {(registry.table, rule) for registry in REGISTRIES for rule in registry}
    assert every - tried == {("objective", "f1"), ("objective", "exact-match")}, "which no replay measures again"
    refused = {f"{rule}-conservative" for rule in ("first-order", "elastic", "addax")}
    assert {f"{rule}-{update}" for rule in ESTIMATORS for update in UPDATES} - METHODS.keys() == refused


# Every space once, and an estimator of each kind: plain, with a state, with an exact gradient, with directions of its
# own. All that goes together takes minutes; test_estimators replays every estimator without a run.
QUICK = {*(f"{rule}-scalar-normalised" for rule in ("two-sided", "hizoo", "first-order", "addax", "loren")),
         *(f"{mask}-two-sided" for mask in SPACES)}  # fmt: skip


@pytest.mark.parametrize(
    "method", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in METHODS]
)
def test_a_run_is_replayed_and_resumed(make, tmp_path, frozen_tiny, ahead, method):
    chosen = METHODS[method]
    if method == "saved":
        finish(Random(density=0.01).find(frozen_tiny("llama", 32), SEARCH)).save(tmp_path / "mask.safetensors")
        chosen = {**chosen, "mask": {"rule": "saved", "file": str(tmp_path / "mask.safetensors")}}
    if method == "preference":
        (tmp_path / "pairs").mkdir()
        (tmp_path / "pairs" / "train.jsonl").write_text("\n".join(map(json.dumps, PAIRS)))
        chosen = {**chosen, "data": {**chosen["data"], "source": str(tmp_path / "pairs")}}
    check(make(**chosen), tmp_path)


@pytest.mark.parametrize("estimator", ["loren", "two-sided"])
def test_a_run_of_the_first_generator_goes_on(make, tmp_path, monkeypatch, ahead, estimator):
    """And so does a branch of it, in which a state of LOREN's may begin."""
    chosen = make(**tables(estimator, mask="activation-subspace"))
    with monkeypatch.context() as before:
        before.setattr(training, "Session", partial(Session, generator=FIRST))
        before.setattr(training, "Search", partial(Search, generator=FIRST))
        told = train(chosen, tmp_path / "run", at(3, e.Stop()))
        ended = train(chosen, tmp_path / "whole")[-1].hash
    assert open_run(tmp_path / "run").facts.generator == FIRST
    assert (replayed(tmp_path / "run"), replayed(tmp_path / "whole")) == (told[-1].hash, ended)
    assert ended != train(chosen, tmp_path / "now")[-1].hash
    (tmp_path / "run" / "mask.safetensors").unlink()  # it is found again
    assert resume(tmp_path / "run")[-1].hash == ended
    made = branch(open_run(tmp_path / "whole"), 3, ["estimator.rule=loren", "estimator.losses=3"])
    assert resume(made.path)[-1].hash == replayed(made.path)
    source = Source(3, 0, 64, generator=open_run(made.path).facts.generator)
    assert torch.equal(source.state(), normal(0, 0, 0, 64, stream=Stream.BASES))


# Rules that say nothing, or something wrong, of themselves


class Planted(TwoSided):
    """Base of rules that remember where they went."""

    rule: str = "planted"

    def start(self, values, source):
        return (values.new_zeros(values.shape),)

    def projected_grads(self, directions, recorded, state):
        return recorded, (state[0] * 0.5 + directions[0] * recorded[0],)


class Leaning(Planted):
    """Directions that depend on the state, and nothing is said of that."""

    def shape(self, drawn, state):
        return drawn + state[0]


class Drawing(Planted):
    """The same in the place where there is no state."""

    def draw(self, source, batch_size, state):
        return source.normal(1) + state[0]


class Hiding(Planted):
    """Directions that depend on something that is remembered elsewhere."""

    def draw(self, source, batch_size):
        SEEN.append(source.step)
        return source.normal(1) * len(SEEN)


class Exact(Planted):
    """A gradient that was found exactly, which is not said."""

    def estimate(self, probe, state):
        gradient, loss = probe.gradient()
        return Estimate((1.0,), loss, gradient)


class Talking(Planted):
    """More numbers than are said."""

    def estimate(self, probe, state):
        return Estimate((1.0, 2.0), 0.0)


class Precise(Planted):
    """A state that a key frame cannot hold."""

    def projected_grads(self, directions, recorded, state):
        return recorded, (state[0].double(),)


SEEN: list[int] = []


@pytest.fixture
def plant(monkeypatch, make, ahead):
    """``plant(class)``: a recipe with that estimator."""

    def planted(kind):
        monkeypatch.setitem(ESTIMATORS.paths, "planted", f"{__name__}:{kind.__name__}")
        return make(**tables("planted"))

    return planted


def test_a_rule_with_a_state_needs_to_say_nothing(plant, tmp_path):
    check(plant(Leaning), tmp_path)


def test_a_rule_that_remembers_elsewhere_is_found_out(plant, tmp_path):
    with pytest.raises(AssertionError):
        check(plant(Hiding), tmp_path)


@pytest.mark.parametrize(
    ("kind", "why"),
    [(Drawing, "missing 1 required"), (Exact, "does not say so"), (Talking, "2 numbers"), (Precise, "float64")],
)
def test_a_rule_that_is_wrong_about_itself_fails_at_once(plant, tmp_path, kind, why):
    with pytest.raises(TypeError, match=why):
        train(plant(kind), tmp_path / "run")


def test_directions_of_their_own_are_never_drawn_piece_by_piece(make, plant):
    """Where a direction is as long as the model, nothing but numbers as they are drawn is possible."""
    plant(Leaning)
    with pytest.raises(UserError, match="one number per tuned weight"):
        make(**tables("planted", mask="all"))
    shaped = {rule for rule in ESTIMATORS if not ESTIMATORS[rule]().drawable_in_pieces}
    assert shaped == {"hizoo", "conmezo", "curvzo", "loren", "planted"}


def test_a_step_whose_scalars_are_zero_moves_nothing(make, tmp_path):
    """Where an exact gradient is zero, a replay does not measure it again: what is remembered must not move either."""
    train(make(**tables("first-order", "momentum")), tmp_path / "run")
    session = finish(open_session(open_run(tmp_path / "run"), 3))
    before, state = session.tuned.values.clone(), session.state.update[0]
    session.advance(session.directions(), (0.0,), 1e-3, torch.zeros_like(before))
    assert torch.equal(session.tuned.values, before) and torch.equal(session.state.update[0], state)
