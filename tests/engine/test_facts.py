"""What rules say of themselves, by which runs are planned, refused and replayed, against what they do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from sparsezo_gui.engine.masks.rule import Search
from sparsezo_gui.engine.objectives.counted import Counted, Written
from sparsezo_gui.engine.privacy import Privacy
from sparsezo_gui.engine.session import Session
from sparsezo_gui.engine.spaces.values import tuned_values
from sparsezo_gui.engine.zo.generator import Source
from sparsezo_gui.engine.zo.updates import Gradient
from sparsezo_gui.recipe.rates import in_weights
from sparsezo_gui.recipe.recipe import DataTable
from sparsezo_gui.recipe.registry import ESTIMATORS, MASKS, OBJECTIVES, PRIVACY, SPACES, UPDATES
from sparsezo_gui.recipe.tables import build
from tests.engine.conftest import finish
from tests.engine.test_correctness import SEARCH, example
from tests.engine.test_replay import SETTINGS, TEXT

BATCH = [example([5, 9, 7 + i, *[9] * (8 * (i % 2))], [2, 2], [8, 11], [0, 1], 2, i % 2) for i in range(4)]


@dataclass
class Watched:
    """A probe that counts what is asked of it: ``forward_passes`` for each of the ``chosen`` examples."""

    probe: Any
    forward_passes: list[int] = field(default_factory=lambda: [0] * len(BATCH))
    chosen: tuple[int, ...] = tuple(range(len(BATCH)))
    blocks: list[int | None] = field(default_factory=list)
    own_directions: list[bool] = field(default_factory=list)

    def __getattr__(self, name):
        return getattr(self.probe, name)

    def _saw(self, count):
        for place in self.chosen:
            self.forward_passes[place] += count

    def losses(self, offsets):
        self._saw(len(offsets))
        return self.probe.losses(offsets)

    def own_losses(self, offsets):
        self._saw(len(offsets))
        self.own_directions.append(True)
        return self.probe.own_losses(offsets)

    def gradient(self, offsets=None, blocks=None):
        self._saw(1)
        self.blocks.append(blocks)
        return self.probe.gradient(offsets, blocks)

    def part(self, chosen):
        places = tuple(self.chosen[place] for place in chosen)
        return Watched(self.probe.part(chosen), self.forward_passes, places, self.blocks, self.own_directions)


def begun(model, **tables):
    """A session at its beginning."""
    chosen = build({"mask": {"rule": "random", "density": 0.02}, "loop": {"seed": 5, "batch_size": len(BATCH)},
                    "update": {"learning_rate": 1e-3}, **tables})  # fmt: skip
    session = Session(chosen, model, tuned_values(model, finish(chosen.mask.find(model, SEARCH))))
    session.begin()
    return session


def long(state, session):
    """How many vectors as long as the values a state holds."""
    size = session.tuned.values.numel()
    return sum(isinstance(part, torch.Tensor) and part.numel() == size for part in state or ())


@pytest.mark.parametrize("rule", list(ESTIMATORS))
def test_estimators(frozen_tiny, rule):
    session = begun(frozen_tiny("llama", 32), estimator={"rule": rule, **SETTINGS.get(rule, {})})
    estimator, directions = session.recipe.estimator, session.directions()
    probe = Watched(session.probe(BATCH, directions))
    found = estimator.estimate(probe, session.state.estimator)
    assert len(directions) == estimator.perturbations(len(BATCH))
    assert estimator.signs == (len(directions) > 0 and bool((directions.abs() == 1).all()))
    assert len(found.recorded) == estimator.recorded(len(BATCH))
    assert max(probe.forward_passes) == estimator.forward_passes
    assert bool(probe.blocks) == estimator.backwards
    assert {blocks or 0 for blocks in probe.blocks or (0,)} == {estimator.suffix}
    assert (found.exact is not None) == estimator.exact
    assert bool(probe.own_directions) == estimator.per_example
    session.advance(directions, found.recorded, 1e-3, found.exact)
    assert long(session.state.estimator, session) == estimator.state_vectors


@pytest.mark.parametrize("rule", list(UPDATES))
def test_updates(frozen_tiny, rule):
    session = begun(frozen_tiny("llama", 32), update={"rule": rule, "learning_rate": 1e-3})
    update, directions = session.recipe.update, session.directions()
    found = session.estimate(BATCH, directions, 1e-3)
    probe, state = Watched(session.probe(BATCH, directions)), session.state.update
    projected_grads = found.recorded[: len(found.recorded) - update.recorded]
    asked = update.measure(probe, Gradient(directions, projected_grads), 1e-3, state)
    assert (len(asked), max(probe.forward_passes)) == (update.recorded, update.forward_passes)
    session.advance(directions, found.recorded, 1e-3)
    assert long(session.state.update, session) == update.state_vectors
    assert update.long or not update.state_vectors


@pytest.mark.parametrize("rule", list(UPDATES))
def test_averaged_directions_shorten_the_steps_of_updates_that_say_so(rule):
    """The mean of 16 directions is 4 times shorter. A rate in units of weights has to make up for that, unless the
    update scales the mean itself; a rate on the gradient does not, since the mean is no smaller a gradient."""
    update = UPDATES[rule]()
    shorter = {}
    for count in (1, 16):
        values, directions = torch.zeros(4096), Source(5, 1, 4096).normal(count)
        gradient = Gradient(directions, [0.3 * (-1) ** number for number in range(count)])
        update.apply(values, gradient, 1e-3, update.start(values), [1.0] * update.recorded)
        shorter[count] = values.norm().item()
    assert update.averages == (in_weights(type(update)) and shorter[1] / shorter[16] == pytest.approx(4, rel=0.05))
    assert update.averages or not in_weights(type(update)) or shorter[1] == pytest.approx(shorter[16], rel=0.01)


KINDS = [*({"rule": rule, **SETTINGS.get(rule, {})} for rule in MASKS if rule != "saved"),
         {"rule": "rows", "density": 0.05, "score": "weight-activation", **TEXT},
         {"rule": "subspace", "rank": 2, "refresh": 0}]  # fmt: skip


@pytest.mark.parametrize("text", ["general", "answers"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_masks(frozen_tiny, tmp_path, kind, text):
    """Where they read a text, that of the run's own examples too."""
    model, found = frozen_tiny("llama", 32), []
    key = next((key for key in ("text", "texts") if key in MASKS[kind["rule"]].model_fields), None)
    if key is None and text != "general":
        return
    rule = MASKS[kind["rule"]](**{**{key: value for key, value in kind.items() if key != "rule"},
                                  **({key: text if key == "text" else (text,)} if key else {})})  # fmt: skip
    for number in range(2):
        path = tmp_path / f"{number}.jsonl"
        path.write_text("\n".join(f'{{"text": "{w} {number}", "label": "{w}"}}' for w in ("yes", "no", "maybe") * 9))
        table = DataTable(source=str(path), template="{{ text }} is", columns={"answer": "label"})
        found.append(finish(rule.find(model, Search(5, table))))
    assert (found[0].hash != found[1].hash) == rule.reads_task
    assert found[0].space == rule.space
    if not SPACES[rule.space].in_place:  # an overlay of which would take the model's weights over
        tuned = tuned_values(model, found[0])
        assert tuned.values.numel() == found[0].size == rule.tuned(model.spec)
        assert getattr(getattr(tuned, "bases", None), "count", 1) == rule.count


def test_what_measures_examples_apart_from_others_is_private():
    for rule in PRIVACY:
        kind = PRIVACY[rule]
        assert kind.private == (kind.estimate is not Privacy.estimate)
    assert Privacy.private, "who forgets to say so tells nothing"


@pytest.mark.parametrize("rule", list(OBJECTIVES))
def test_objectives(rule):
    """Whether they compare follows from what they have; those that write measure what is written."""
    kind = OBJECTIVES[rule]
    assert kind().compares == (rule == "preference") == ("reference" in vars(kind))
    assert kind().writes == (rule in ("f1", "exact-match")) == issubclass(kind, Written)
    assert kind.counts == issubclass(kind, Counted)
