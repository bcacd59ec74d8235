"""Updates against other implementations: torch's optimizers, and closed forms in fp64."""

from __future__ import annotations

import pytest
import torch

from sparsezo_gui.engine.masks.rule import Search
from sparsezo_gui.engine.session import Session
from sparsezo_gui.engine.spaces.sparse import SparseValues
from sparsezo_gui.engine.zo.updates import Gradient
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.registry import UPDATES
from sparsezo_gui.recipe.tables import build
from tests.engine.conftest import finish

SIZE, STEPS, RATE = 50, 7, 0.02
REFERENCES = {
    "sgd": lambda values: torch.optim.SGD([values], lr=RATE),
    "momentum": lambda values: torch.optim.SGD([values], lr=RATE, momentum=0.9),
    "adam": lambda values: torch.optim.Adam([values], lr=RATE),
}
CASES = {"one direction": (1, False), "three directions": (3, False), "with an exact part": (2, True),
         "exact alone": (0, True)}  # fmt: skip


def gradients(case):
    """A few made-up estimates."""
    directions, exact = CASES[case]
    chance = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        z = torch.randn(directions, SIZE, generator=chance)
        projected_grads = (3 * torch.randn(directions, generator=chance)).tolist()
        yield Gradient(z, projected_grads, torch.randn(SIZE, generator=chance) if exact else None)


def plainly(gradient):
    """The estimate in fp64, written down from its definition."""
    found = torch.zeros(SIZE, dtype=torch.float64) if gradient.exact is None else gradient.exact.double()
    if grads := gradient.projected_grads:
        found = found + torch.tensor(grads, dtype=torch.float64) @ gradient.directions.double() / len(grads)
    return found


def taken(update, case, values, asked=()):
    state = update.start(values)
    for gradient in gradients(case):
        state = update.apply(values, gradient, RATE, state, asked)
    return values


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("rule", REFERENCES)
def test_steps_are_those_of_torchs_optimizers(rule, case):
    values = torch.randn(SIZE, generator=torch.Generator().manual_seed(2))
    theirs = values.double().clone().requires_grad_()
    optimizer = REFERENCES[rule](theirs)
    for gradient in gradients(case):
        theirs.grad = plainly(gradient)
        optimizer.step()
    before = values.clone()
    mine = taken(UPDATES[rule](), case, values)
    assert (mine.double() - theirs.detach()).norm() < 1e-5 * (mine - before).norm()


@pytest.mark.parametrize("case", CASES)
def test_scalar_normalised_steps_are_those_of_adam_with_one_second_moment(case):
    """θ ← θ − η·g/√v̂ with v̂ = v/(1 − βᵗ), v ← βv + (1 − β)(mean of squared slopes + mean square of the exact part)."""
    values = torch.randn(SIZE, generator=torch.Generator().manual_seed(2))
    expected, moment = values.double(), 0.0
    for step, gradient in enumerate(gradients(case), 1):
        square = sum(grad**2 for grad in gradient.projected_grads) / max(1, len(gradient.projected_grads))
        if gradient.exact is not None:
            square += float(gradient.exact.double().pow(2).mean())
        moment = 0.9 * moment + 0.1 * square
        expected = expected - RATE * plainly(gradient) / (moment / (1 - 0.9**step)) ** 0.5
    found = taken(UPDATES["scalar-normalised"](memory=0.9), case, values.clone())
    assert (found.double() - expected).norm() < 1e-5 * (expected - values).norm()


@pytest.mark.parametrize("case", CASES)
def test_sign_steps_are_of_one_length(case):
    values, expected = torch.zeros(SIZE), torch.zeros(SIZE, dtype=torch.float64)
    for gradient in gradients(case):
        expected -= RATE * plainly(gradient).sign()
    assert torch.allclose(taken(UPDATES["sign"](), case, values).double(), expected, atol=1e-6)
    assert (values / RATE - (values / RATE).round()).abs().max() < 1e-4


def each_its_rate(rule, times):
    """The moves, in fp64 and written down anew, of 30 values along directions and of 20 with exact gradients, whose
    rate is ``times`` as high; and what an update makes of the same."""
    chance = torch.Generator().manual_seed(6)
    apart = torch.arange(SIZE) >= 30
    rates = torch.where(apart, RATE * times, RATE).double()
    update, values = UPDATES[rule](), torch.zeros(SIZE)
    state, moved = update.start(values), torch.zeros(SIZE, dtype=torch.float64)
    first, second, moment = torch.zeros(3, SIZE, dtype=torch.float64)
    for step in range(1, STEPS + 1):
        z, slope = torch.randn(1, SIZE, generator=chance), 3 * torch.randn((), generator=chance).item()
        z, exact = z.masked_fill(apart, 0), torch.randn(SIZE, generator=chance).masked_fill(~apart, 0)
        state = update.apply(values, Gradient(z, [slope], exact, times), RATE, state)
        gradient = slope * z[0].double() + exact.double()
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        moment = 0.99 * moment + 0.01 * torch.where(apart, exact[apart].double().square().mean(), slope**2)
        match rule:
            case "sgd":
                taken = gradient
            case "sign":
                taken = gradient.sign()
            case "momentum":
                taken = 10 * first
            case "adam":
                taken = first / (1 - 0.9**step) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
            case "scalar-normalised":
                taken = gradient / (moment / (1 - 0.99**step)) ** 0.5
        moved -= rates * taken
    return values.double(), moved, apart


@pytest.mark.parametrize("times", [1.0, 9.0])
@pytest.mark.parametrize("rule", [rule for rule in UPDATES if rule != "conservative"])
def test_exact_gradients_have_a_rate_of_their_own(rule, times):
    found, expected, apart = each_its_rate(rule, times)
    for part in (apart, ~apart):
        assert (found[part] - expected[part]).norm() < 1e-5 * expected[part].norm()


@pytest.mark.parametrize("move", [0.0, 1.0, -1.0])
@pytest.mark.parametrize("case", ["one direction", "three directions"])
def test_a_conservative_step_goes_where_it_was_asked_to(case, move):
    values = taken(UPDATES["conservative"](), case, torch.zeros(SIZE), (move,))
    assert torch.equal(values, move * taken(UPDATES["sgd"](), case, torch.zeros(SIZE)))


class Bowl:
    """L(θ) = ½·a·|θ|² as a probe; ``jumps`` replaces measured losses."""

    def __init__(self, values, directions, curvature=1.0, jumps=()):
        self.values, self.directions, self.curvature, self.jumps = values, directions, curvature, jumps

    def losses(self, offsets):
        found = (self.values + offsets @ self.directions).double().square().sum(dim=1) * self.curvature / 2
        return torch.tensor(self.jumps, dtype=torch.float64) if self.jumps else found


@pytest.mark.parametrize(
    ("projected_grad", "expected"),
    [(1.0, 1.0), (-1.0, -1.0), (1e6, 0.0), (0.0, 0.0)],
    ids=["downhill", "uphill, as of a noisy slope", "too far", "nothing measured"],
)
def test_a_conservative_update_keeps_the_best_of_three(projected_grad, expected):
    update = UPDATES["conservative"]()
    values = torch.ones(4)
    gradient = Gradient(torch.ones(1, 4), [projected_grad])
    assert update.measure(Bowl(values, gradient.directions), gradient, 0.1, None) == (expected,)


@pytest.mark.parametrize(
    ("losses", "expected"), [((1, 1, 1), 0.0), ((2, 1, 1), 1.0), ((float("nan"), 2, 1), -1.0),
                             ((1, float("nan"), float("-inf")), 0.0), ((float("nan"),) * 3, 0.0)]
)  # fmt: skip
def test_of_equal_losses_the_values_stay_and_what_is_not_finite_never_wins(losses, expected):
    gradient = Gradient(torch.ones(1, 4), [1.0])
    probe = Bowl(torch.ones(4), gradient.directions, jumps=losses)
    assert UPDATES["conservative"]().measure(probe, gradient, 0.1, None) == (expected,)


def test_a_conservative_update_never_climbs_a_batch_and_reaches_the_bottom():
    """With a rate at which plain steps explode, it still goes down at every step."""
    update, chance = UPDATES["conservative"](), torch.Generator().manual_seed(3)
    values = torch.ones(10)
    before, plain = values.square().sum().item(), torch.ones(10)
    for _ in range(400):
        z = torch.randn(1, 10, generator=chance)
        gradient = Gradient(z, [(z @ values).item()])
        asked = update.measure(Bowl(values, z), gradient, 0.3, None)
        update.apply(values, gradient, 0.3, None, asked)
        UPDATES["sgd"]().apply(plain, Gradient(z, [(z @ plain).item()]), 0.3, None)
        now = values.square().sum().item()
        assert now <= before * (1 + 1e-6)
        before = now
    assert before < 0.1 and not plain.square().sum().item() < 1e3


@pytest.mark.parametrize("rule", list(UPDATES))
def test_a_step_without_a_slope_moves_nothing_and_forgets_nothing(rule):
    update = UPDATES[rule]()
    values = torch.randn(SIZE, generator=torch.Generator().manual_seed(4))
    asked = (0.0,) * update.recorded
    empty = Gradient(torch.randn(2, SIZE), [0.0, 0.0])
    before = values.clone()
    state = update.apply(values, empty, RATE, update.start(values), asked)
    assert torch.equal(values, before)
    for gradient in gradients("one direction"):
        state = update.apply(values, gradient, RATE, state, (1.0,) * update.recorded)
    before = values.clone()
    update.apply(values, empty, RATE, state, asked)
    assert torch.equal(values, before) and torch.isfinite(values).all()


@pytest.mark.parametrize("rule", ["momentum", "adam"])
def test_what_is_remembered_is_as_long_as_told_and_never_changed_in_place(rule):
    update, values = UPDATES[rule](), torch.zeros(SIZE)
    state = update.start(values)
    tensors = [part for part in state if isinstance(part, torch.Tensor)]
    assert [part.shape for part in tensors] == [values.shape] * update.state_vectors
    for gradient in gradients("one direction"):
        kept = [part.clone() if isinstance(part, torch.Tensor) else part for part in state]
        after = update.apply(values, gradient, RATE, state, ())
        assert all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in zip(kept, state, strict=True))
        state = after


@pytest.fixture
def session(frozen_tiny):
    def made(**update):
        chosen = build({"mask": {"rule": "random", "density": 0.01}, "update": {"rule": "sgd", **update}})
        model = frozen_tiny("llama", 32)
        session = Session(chosen, model, SparseValues(model, finish(chosen.mask.find(model, Search(0, chosen.data)))))
        session.begin()
        return session

    return made


def test_decay_pulls_towards_the_start(session):
    """θ' = θ₀ + (1 − ηλ)(θ − ηg·z − θ₀), step after step."""
    decaying = session(decay=0.5)
    start = decaying.tuned.start.double()
    away = torch.zeros_like(start)
    for projected_grad in (2.0, -1.0, 0.5):
        z = decaying.directions()
        decaying.advance(z, [projected_grad], 0.1)
        away = (away - 0.1 * projected_grad * z[0].double()) * (1 - 0.1 * 0.5)
        assert torch.allclose(decaying.tuned.values.double() - start, away, atol=1e-6)
    # All of the way back at rate · decay = 1, and nowhere in a step that was skipped.
    before = decaying.tuned.values.clone()
    decaying.advance(decaying.directions(), [0.0], 0.1)
    assert torch.equal(decaying.tuned.values, before)
    whole = session(decay=1.0)
    whole.advance(whole.directions(), [1.0], 1.0)
    assert torch.allclose(whole.tuned.values, whole.tuned.start, atol=1e-6)


def test_a_step_that_is_not_taken_does_not_decay_either(session):
    cautious = session(rule="conservative", decay=0.5)
    cautious.advance(cautious.directions(), [1.0, 1.0], 0.1)
    before = cautious.tuned.values.clone()
    cautious.advance(cautious.directions(), [1.0, 0.0], 0.1)
    assert torch.equal(cautious.tuned.values, before)


def test_what_cannot_be_told_beforehand_is_not_tried(monkeypatch):
    from sparsezo_gui.engine.zo.estimators.two_sided import TwoSided

    monkeypatch.setattr(TwoSided, "exact", True)
    with pytest.raises(UserError, match="tries each step along random directions"):
        build({"update": {"rule": "conservative"}})
