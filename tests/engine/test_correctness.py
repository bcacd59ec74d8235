"""The comparisons that the method stands on, on every family, against an independent implementation."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from sparsezo_gui.engine import forward, objective
from sparsezo_gui.engine.data import Passage
from sparsezo_gui.engine.data.encode import Encoded, Row
from sparsezo_gui.engine.forward import log_probabilities
from sparsezo_gui.engine.masks import fisher
from sparsezo_gui.engine.masks.random import Random
from sparsezo_gui.engine.masks.resumable import Unfinished
from sparsezo_gui.engine.masks.rule import Search
from sparsezo_gui.engine.masks.select import Selection
from sparsezo_gui.engine.objective import count_tokens, measure, packs_of, points_at_once
from sparsezo_gui.engine.session import Session
from sparsezo_gui.engine.spaces.sparse import SparseValues
from sparsezo_gui.recipe import Recipe, with_settings
from sparsezo_gui.recipe.events import Progress
from sparsezo_gui.recipe.recipe import DataTable
from tests.engine import plain as reference
from tests.engine.conftest import finish
from tests.models import FAMILIES

SEARCH = Search(0, DataTable())
families = pytest.mark.parametrize("family", FAMILIES)


def example(tokens, positions, targets, choices=None, count=0, label=0):
    return Encoded(
        (Row(tuple(tokens), tuple(positions), tuple(targets), tuple(choices or [0] * len(targets))),),
        count,
        label,
        (),
        (),
        0,
    )


def batch(seed=0):
    """A completion, a single-token choice of three, choices whose candidates are of different lengths, plain text."""
    draw = np.random.default_rng(seed)
    tokens = [draw.integers(3, 288, length).tolist() for length in (7, 12, 45, 7)]
    two_rows = Encoded(
        (Row(tuple(tokens[0] + [9]), (6, 7), (9, 11), (0, 0)), Row(tuple(tokens[0]), (6,), (30,), (1,))),
        2,
        1,
        (),
        (),
        0,
    )

    def several(prompt, candidates, label):
        last = len(prompt) - 1
        rows = tuple(
            Row((*prompt, *each[:-1]), tuple(range(last, last + len(each))), each, (number,) * len(each))
            for number, each in enumerate(candidates)
        )
        return Encoded(rows, len(rows), label, (), (), 0)

    return [
        several(tokens[2], ((5, 6, 7), (8, 9, 10, 11), (12,), (5, 9)), 1),
        several(tokens[1], ((5, 6), (30, 9, 10)), 0),
        several(tokens[1][::-1], ((50, 60), (31, 9, 10)), 1),
        example(tokens[0], [4, 5], tokens[0][5:7]),
        example(tokens[1], [11, 11, 11], [5, 6, 7], [0, 1, 2], 3, 2),
        two_rows,
        example(tokens[2], range(44), tokens[2][1:]),
        example(tokens[3], [6, 6], [80, 81], [0, 1], 2, 0),
    ]


def shifted(example, start):
    """The example with further tokens before it."""
    rows = (
        dataclasses.replace(row, tokens=(*start, *row.tokens), positions=tuple(p + len(start) for p in row.positions))
        for row in example.rows
    )
    return dataclasses.replace(example, rows=tuple(rows))


@families
@pytest.mark.parametrize("bits", [4, 8, 32])
def test_overlay_forward_equals_dense_forward_with_edited_weights(frozen_tiny, family, bits):
    model = frozen_tiny(family, bits)
    tuned = SparseValues(model, finish(Random(density=0.05).find(model, SEARCH)))
    moved = 0.05 * torch.randn(3, tuned.mask.size, generator=torch.Generator().manual_seed(1))
    points = tuned.values + moved.to(model.device)
    with tuned.applied(points):
        found = measure(model, batch(), 3).loss
    expected = []
    for values in points:
        plain = reference.plain_model(model)
        reference.put(plain, model, tuned, values)
        with torch.no_grad():
            expected.append(reference.loss(plain, batch()).double())
    assert torch.allclose(found, torch.stack(expected), rtol=1e-5, atol=0)


@families
def test_a_mask_of_ones_reproduces_mezo(frozen_tiny, family):
    """MeZO's algorithm 1 on plain weights: perturb in place by +ε, −2ε, and compare the projected gradient."""
    model, epsilon = frozen_tiny(family, 32), 1e-3
    tuned = SparseValues(model, finish(Random(density=1.0).find(model, SEARCH)))
    session = Session(with_settings(Recipe(), [f"estimator.epsilon={epsilon}", "loop.seed=7"]), model, tuned)
    z = session.directions()
    found = session.estimate(batch(), z)
    plain = reference.plain_model(model).double()
    original = tuned.values.cpu().double()
    measured = []
    with torch.no_grad():
        for sign in (1, -1):
            reference.put(plain, model, tuned, original + sign * epsilon * z[0].cpu().double())
            measured.append(reference.loss(plain, batch()))
    projected_grad = float((measured[0] - measured[1]) / (2 * epsilon))
    # fp32 losses carry 1e-7 of noise each, which 1 / 2ε makes 1e-4.
    assert found.recorded[0] == pytest.approx(projected_grad, rel=1e-4, abs=2e-3)
    assert found.loss == pytest.approx(float(sum(measured) / 2), rel=1e-5)


@pytest.mark.slow
@families
def test_the_estimates_mean_is_the_gradient(frozen_tiny, family):
    """Over many seeds the mean of g·z is autograd's gradient within its standard error."""
    model, perturbations = frozen_tiny(family, 32), 32
    tuned = SparseValues(model, finish(Random(density=0.00025).find(model, SEARCH)))
    examples = batch()
    session = Session(with_settings(Recipe(), [f"estimator.directions={perturbations}"]), model, tuned)
    samples = []
    for session.step in range(10):
        z = session.directions()
        projected_grads = torch.tensor(session.estimate(examples, z).recorded)
        samples.append(projected_grads[:, None] * z.cpu())
    samples = torch.cat(samples).double()
    plain = reference.plain_model(model)
    reference.put(plain, model, tuned, tuned.values)
    reference.loss(plain, examples).backward()
    parts = [
        reference.oriented(model, name, plain.get_parameter(name).grad).reshape(-1)[tuned.indices[name].cpu().long()]
        for name in tuned.slices
    ]
    gradient = torch.cat(parts).double()
    error = samples.std(dim=0) / len(samples) ** 0.5
    assert ((samples.mean(dim=0) - gradient).abs() < 4.5 * error + 1e-4).all()
    assert torch.nn.functional.cosine_similarity(samples.mean(dim=0), gradient, dim=0) > 0.9


@families
@pytest.mark.parametrize("bits", [4, 32])
def test_streamed_squared_gradients_equal_autograd(frozen_tiny, family, bits, tmp_path, monkeypatch):
    monkeypatch.setattr(forward, "BACKWARD_LOGITS_BYTES", 7 * 4 * 288)  # logits of seven places at a time
    model = frozen_tiny(family, bits)
    draw = np.random.default_rng(3)
    sequences = [draw.integers(3, 288, length).tolist() for length in (20, 33)]
    selection = Selection(0.1, "global", model.spec.linears)
    # Several layers a pass, several passes a block.
    passages = [Passage(tuple(tokens), tuple(range(len(tokens) - 1))) for tokens in sequences]
    streamed = fisher.squared_gradients(model, passages, Unfinished(tmp_path), selection, budget=70_000)
    found = dict(item for item in streamed if not isinstance(item, Progress))
    plain = reference.plain_model(model)
    expected = dict.fromkeys(model.layers, 0.0)
    for tokens in sequences:
        plain.zero_grad()
        ids = torch.tensor([tokens])
        plain(ids, labels=ids).loss.backward()
        for name in expected:
            expected[name] = expected[name] + reference.oriented(model, name, plain.get_parameter(name).grad) ** 2
    assert found.keys() == model.layers.keys()
    for name, scores in expected.items():
        assert torch.allclose(found[name].cpu(), scores, rtol=2e-3, atol=1e-5 * float(scores.max()))


@families
def test_sides_one_at_a_time_measure_the_same(frozen_tiny, family):
    """Where memory is tight; the last bits may differ, since other rows go through together."""
    model = frozen_tiny(family, 4)
    tuned = SparseValues(model, finish(Random(density=0.05).find(model, SEARCH)))
    session = Session(with_settings(Recipe(), ["estimator.directions=2"]), model, tuned)
    z, found = session.directions(), []
    usual = model.pack_rows
    for rows in (10_000, 200, 1):
        model.pack_rows = rows
        found.append(session.estimate(batch(), z))
    model.pack_rows = usual
    for each in found[1:]:
        assert each.loss == pytest.approx(found[0].loss, rel=1e-6)
        assert each.recorded == pytest.approx(found[0].recorded, rel=1e-3, abs=2e-3)


@families
@pytest.mark.parametrize("points", [1, 3])
def test_a_common_beginning_is_computed_once(frozen_tiny, family, points, monkeypatch):
    """As an instruction before every example; also where some of it is scored."""
    model, seen = frozen_tiny(family, 4), []
    draw = np.random.default_rng(5)
    start = draw.integers(3, 288, 40).tolist()
    plain_text = example([*start, 7, 8], range(30, 42), [*start[31:], 7, 8, 9])
    examples = [*(shifted(each, start) for each in batch()), plain_text]
    monkeypatch.setattr(model, "pack_rows", 10_000)
    tuned = SparseValues(model, finish(Random(density=0.05).find(model, SEARCH)))
    moved = 0.05 * torch.randn(points, tuned.mask.size, generator=torch.Generator().manual_seed(1))
    values = tuned.values + moved.to(model.device)
    monkeypatch.setattr(objective, "log_probabilities", lambda module, pack, points: seen.append(pack) or
                        log_probabilities(module, pack, points))  # fmt: skip
    with tuned.applied(values):
        found = measure(model, examples, points).loss
    assert [(pack.prefix, len(pack.tokens)) for pack in seen] == [(40, sum(map(count_tokens, examples)) - 8 * 40)]
    expected = []
    for side in values:
        plain = reference.plain_model(model)
        reference.put(plain, model, tuned, side)
        with torch.no_grad():
            expected.append(reference.loss(plain, examples).double())
    assert torch.allclose(found, torch.stack(expected), rtol=1e-5, atol=0)


def test_a_beginning_is_shared_where_it_pays():
    def shared(*lengths, alike):
        return objective._shared([Row((*range(alike), *range(1000 * n, 1000 * n + size)), (), (), ())
                                  for n, size in enumerate(lengths, 1)])  # fmt: skip

    assert shared(5, 5, 5, alike=6) == 6
    assert shared(50, 50, 50, alike=6) == 0
    assert shared(5, alike=6) == 0, "there is nothing to share with"
    assert objective._shared([Row((1, 2, 3), (), (), ())] * 3) == 2, "something must be left of every row"
    assert objective._shared([Row((1, 2, 3, 4), (), (), (), (2, 1))] * 3) == 1, "branches stay apart"


def test_packs_are_cut_by_rows():
    examples = batch()  # of 51, 15, 15, 7, 12, 8, 45 and 7 tokens with their branches
    sizes = [count_tokens(each) for each in examples]
    assert [points_at_once(4, max(sizes), rows, "auto") for rows in (1, 51, 102, 153, 204, 1000)] == [1, 1, 2, 3, 4, 4]
    for rows, points in ((60, 1), (120, 2), (1, 1), (10_000, 4)):
        packs = list(packs_of(examples, rows, points))
        assert [each for pack in packs for each in pack] == examples
        assert all(len(pack) == 1 or points * sum(map(count_tokens, pack)) <= rows for pack in packs)
    assert next(packs_of(examples, 2 * max(sizes), 2)) == examples[:1]


def test_candidates_share_their_prompt():
    shared = batch()[0]
    (row,) = shared.joined
    assert (len(row.tokens), row.trunk, row.branches) == (45 + 2 + 3 + 1, 45, (2, 3, 1))
    assert row.tokens[45:] == (5, 6, 8, 9, 10, 5) and row.places[44:] == [44, 45, 46, 45, 46, 47, 45]
    assert row.positions == (44, 45, 46, 44, 47, 48, 49, 44, 44, 50)
    assert row.targets == (5, 6, 7, 8, 9, 10, 11, 12, 5, 9) and row.choices == (0, 0, 0, 1, 1, 1, 1, 2, 3, 3)


@families
def test_packed_rows_equal_single_rows(frozen_tiny, family):
    """No pack, no order and no neighbour changes a loss."""
    model = frozen_tiny(family, 4)
    together = measure(model, batch())
    alone = [measure(model, [each]) for each in batch()]
    assert torch.allclose(together.sums, torch.cat([each.sums for each in alone], dim=1), rtol=1e-5)
    shuffled = measure(model, batch()[::-1])
    assert torch.allclose(together.sums.flip(1), shuffled.sums, rtol=1e-5)
