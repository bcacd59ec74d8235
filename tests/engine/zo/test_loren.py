"""LOREN: its covariance, the mean of its estimate, and how its state moves, against closed forms and autograd."""

from __future__ import annotations

import pytest
import torch

from sparsezo_gui.engine.masks.rule import Search
from sparsezo_gui.engine.session import Session
from sparsezo_gui.engine.spaces.values import tuned_values
from sparsezo_gui.engine.zo.estimators.loren import Loren
from sparsezo_gui.engine.zo.generator import Source
from sparsezo_gui.recipe import build
from tests.engine.conftest import finish
from tests.engine.test_correctness import example


class Function:
    """A function in fp64 as a probe."""

    def __init__(self, function, values, directions):
        self.function, self.values, self.directions = function, values, directions

    def losses(self, offsets):
        return self.function(self.values + offsets.double() @ self.directions)


def curvature(a, damping, block):
    """H = ρI + a·aᵀ of each block, written down in full."""
    whole = torch.zeros(len(a), len(a), dtype=torch.float64)
    for first in range(0, len(a), block):
        part = slice(first, first + block)
        whole[part, part] = torch.outer(a[part], a[part])
    return whole + damping * torch.eye(len(a), dtype=torch.float64)


@pytest.mark.parametrize(("size", "block"), [(8, 8), (8, 1024), (13, 5), (12, 4), (7, 2)])
def test_directions_have_the_covariance_of_the_paper(size, block):
    estimator = Loren(block=block, damping=0.3)
    a = torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    root = torch.stack([estimator.shaped(row, a) for row in torch.eye(size, dtype=torch.float64)])
    assert torch.allclose(root, root.t())
    assert torch.linalg.eigvalsh(root).min() > 0
    assert torch.allclose(root @ root, 0.3 * torch.linalg.inv(curvature(a, 0.3, block)), atol=1e-12)


def test_no_curvature_leaves_directions_as_drawn():
    u = torch.randn(9)
    assert torch.equal(Loren(block=4).shaped(u, torch.zeros(9)), u)


def test_the_mean_of_the_estimate_is_the_preconditioned_gradient():
    """Σ∇L with a fixed, of a quadratic function, which smoothing leaves the gradient it has."""
    draw = torch.Generator().manual_seed(0)
    size, block = 6, 3
    values, a, tilt = torch.randn(3, size, dtype=torch.float64, generator=draw)
    matrix = torch.randn(size, size, dtype=torch.float64, generator=draw)

    def function(x):
        return x @ tilt + 0.5 * ((x @ (matrix + matrix.t())) * x).sum(-1)

    estimator = Loren(losses=8, block=block, epsilon=0.05)
    point = values.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(point), point)
    covariance = estimator.damping * torch.linalg.inv(curvature(a, estimator.damping, block))
    samples = []
    for step in range(1, 601):
        directions = estimator.shape(estimator.draw(Source(5, step, size), 1), (a.float(),)).double()
        found = estimator.estimate(Function(function, values, directions), (a,))
        projected_grads, _ = estimator.projected_grads(directions, found.recorded, (a,))
        samples.append(torch.tensor(projected_grads, dtype=torch.float64) @ directions / len(projected_grads))
    samples = torch.stack(samples)
    error = samples.std(dim=0) / len(samples) ** 0.5
    assert ((samples.mean(dim=0) - covariance @ gradient).abs() < 4 * error).all()
    # So sharp a test that it tells the preconditioned gradient from the plain one.
    assert ((samples.mean(dim=0) - gradient).abs() > 4 * error).any()


def test_the_state_moves_against_the_score():
    """∇ₐ log p(w) of a normal w with covariance ρH⁻¹, by autograd."""
    estimator, draw = Loren(losses=5, block=4, damping=0.2, adaptation=1e-2), torch.Generator().manual_seed(2)
    a, *directions = torch.randn(6, 11, dtype=torch.float64, generator=draw)
    recorded = torch.randn(5, dtype=torch.float64, generator=draw)
    recorded -= recorded.mean()  # as measured: against the mean loss
    _, (moved,) = estimator.projected_grads(torch.stack(directions), recorded.tolist(), (a,))
    point, total = a.clone().requires_grad_(), 0.0
    precision = curvature(point, 0.2, 4) / 0.2
    for w, scalar in zip(directions, recorded, strict=True):
        total = total + scalar / recorded.std() * (0.5 * torch.logdet(precision) - 0.5 * w @ precision @ w) / 4
    (score,) = torch.autograd.grad(total, point)
    assert torch.allclose(moved, a - 1e-2 * score, rtol=1e-9)


def test_it_learns_where_a_function_is_sharp():
    """Of a long valley: the gain across it falls, so that steps go along it."""
    estimator, size = Loren(losses=8, adaptation=0.02, block=16), 16
    sharp = torch.full((size,), 0.25, dtype=torch.float64)

    def function(x):
        return 50 * (x @ sharp) ** 2

    a = estimator.start(torch.zeros(size), Source(0, 0, size))[0].double() * 0.1
    before = abs(sharp @ a) / a.norm()
    values = torch.zeros(size, dtype=torch.float64)
    for step in range(1, 151):
        directions = estimator.shape(estimator.draw(Source(1, step, size), 1), (a.float(),)).double()
        recorded = estimator.estimate(Function(function, values, directions), (a,)).recorded
        _, (a,) = estimator.projected_grads(directions, recorded, (a,))
    assert abs(sharp @ a) / a.norm() > 0.9 > before


def test_steps_that_measured_nothing_move_nothing():
    estimator = Loren()
    state = estimator.start(torch.zeros(3000), Source(0, 0, 3000))
    directions = estimator.shape(estimator.draw(Source(0, 1, 3000), 1), state)
    projected_grads, after = estimator.projected_grads(directions, (0.0,) * 6, state)
    assert not any(projected_grads) and torch.equal(after[0], state[0])


@pytest.mark.parametrize("mask", [{"rule": "random", "density": 0.02}, {"rule": "subspace", "rank": 4, "refresh": 2}])
def test_states_are_rebuilt_from_scalars(frozen_tiny, mask):
    model = frozen_tiny("llama", 4)
    chosen = build({"mask": mask, "estimator": {"rule": "loren", "losses": 3, "block": 100},
                         "update": {"rule": "sgd", "learning_rate": 1e-3}})  # fmt: skip
    tuned = tuned_values(model, finish(chosen.mask.find(model, Search(0, chosen.data))))
    session = Session(chosen, model, tuned)
    session.begin()
    batch, taken = [example([5, 9, 7], [2, 2], [8, 11], [0, 1], 2, 0)], []
    for _ in range(5):
        directions = session.directions()
        taken.append(session.estimate(batch, directions).recorded)
        session.advance(directions, taken[-1], 1e-3)
    values, (a,) = tuned.values.clone(), session.state.estimator
    assert not torch.equal(a, session.start(chosen).estimator[0])
    session.begin()
    for recorded in taken:
        session.advance(session.directions(), recorded, 1e-3)
    assert torch.equal(tuned.values, values) and torch.equal(session.state.estimator[0], a)
