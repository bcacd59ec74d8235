"""Every estimator: its mean against autograd or its bias in closed form, its noise, its replay, and every family."""

from __future__ import annotations

import math
from functools import cache, cached_property

import pytest
import torch

from sparsezo_gui.engine import training
from sparsezo_gui.engine.runs import checkpoints
from sparsezo_gui.engine.runs.folder import open_run
from sparsezo_gui.engine.session import Session, State
from sparsezo_gui.engine.session.opening import open_session
from sparsezo_gui.engine.spaces.sparse import SparseValues
from sparsezo_gui.engine.spaces.values import last_blocks
from sparsezo_gui.engine.zo.estimators.bszo import BSZO
from sparsezo_gui.engine.zo.estimators.conmezo import ConMeZO
from sparsezo_gui.engine.zo.estimators.curvzo import CurvZO
from sparsezo_gui.engine.zo.estimators.forward_gradient import ForwardGradient
from sparsezo_gui.engine.zo.estimators.fzoo import FZOO, in_spreads
from sparsezo_gui.engine.zo.estimators.grzo import GRZO
from sparsezo_gui.engine.zo.estimators.hizoo import LEAST, MOST, HiZOO
from sparsezo_gui.engine.zo.estimators.loren import Loren
from sparsezo_gui.engine.zo.estimators.two_sided import TwoSided
from sparsezo_gui.engine.zo.generator import Source
from sparsezo_gui.engine.zo.sums import total
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.registry import ESTIMATORS
from sparsezo_gui.recipe.tables import build
from tests.engine import plain as reference
from tests.engine.conftest import finish
from tests.engine.test_correctness import SEARCH, batch
from tests.models import FAMILIES

INPUTS, HIDDEN, EXAMPLES = 5, 4, 6
SIZE = INPUTS * HIDDEN + 2 * HIDDEN + 1
SAMPLES = 1500
OWN = {"fzoo": {"losses": 2}}  # settings of a rule where its own take long
rules = pytest.mark.parametrize("rule", list(ESTIMATORS))


class Quick:
    """Random numbers as a `Source` gives them, many times as fast for a few values."""

    def __init__(self, seed, size=SIZE):
        self.size, self.generator = size, torch.Generator().manual_seed(seed)

    def normal(self, perturbations):
        return torch.randn(perturbations, self.size, generator=self.generator)

    def signs(self, perturbations):
        return torch.randint(0, 2, (perturbations, self.size), generator=self.generator) * 2.0 - 1

    def uniform(self, perturbations):
        return torch.rand(perturbations, self.size, generator=self.generator)


class Toy:
    """A small network in fp64 as a `Probe`; ``alike`` makes all its examples the same."""

    def __init__(self, seed=0, alike=False):
        generator = torch.Generator().manual_seed(seed)
        self.values = torch.randn(SIZE, generator=generator, dtype=torch.float64)
        self.inputs = torch.randn(EXAMPLES, INPUTS, generator=generator, dtype=torch.float64)
        self.outputs = torch.randn(EXAMPLES, generator=generator, dtype=torch.float64)
        if alike:
            self.inputs, self.outputs = self.inputs[:1].repeat(EXAMPLES, 1), self.outputs[:1].repeat(EXAMPLES)
        self.directions = None

    def network(self, values):
        """Losses (sides, examples) of values (sides, 1 or examples, n)."""
        first, bias, second, last = values.split([INPUTS * HIDDEN, HIDDEN, HIDDEN, 1], dim=-1)
        hidden = torch.einsum("sehi,ei->seh", first.unflatten(-1, (HIDDEN, INPUTS)).expand(-1, EXAMPLES, -1, -1),
                              self.inputs)  # fmt: skip
        found = ((hidden + bias).tanh() * second).sum(-1) + last[..., 0]
        return (found - self.outputs).square()

    def examples(self, offsets):
        return self.network((self.values + offsets.double() @ self.directions.double())[:, None])

    def losses(self, offsets):
        return self.examples(offsets).mean(1)

    def own_losses(self, offsets):
        return self.network(self.values + offsets.double()[:, None, None] * self.directions.double())

    def gradient(self):
        return self.exact

    @cached_property
    def exact(self):
        values = self.values.clone().requires_grad_()
        loss = self.network(values[None, None]).mean()
        loss.backward()
        return values.grad, loss.item()

    def each(self):
        """Gradients of the examples (examples, n)."""
        return torch.func.jacrev(lambda values: self.network(values[None, None])[0])(self.values)

    def sample(self, estimator, state=None, steps=SAMPLES):
        """Estimates (steps, n), the state staying as it is, and what was measured (steps, scalars)."""
        state = estimator.start(self.values.float(), Source(0, 0, SIZE)) if state is None else state
        found, measured = [], []
        source = Quick(7)
        for _ in range(steps):
            self.directions = estimator.shape(estimator.draw(source, EXAMPLES), state)
            recorded = estimator.estimate(self, state).recorded
            grads, _ = estimator.projected_grads(self.directions, recorded, state)
            found.append(torch.tensor(grads, dtype=torch.float64) @ self.directions.double() / len(grads))
            measured.append(recorded)
        return torch.stack(found), torch.tensor(measured, dtype=torch.float64)


def uneven(seed=3, low=0.5):
    """Positive numbers (n,)."""
    return low + 2 * torch.rand(SIZE, generator=torch.Generator().manual_seed(seed))


CASES = {
    "two-sided": (TwoSided(), None),
    "two-sided, 4 directions": (TwoSided(directions=4), None),
    "forward-gradient": (ForwardGradient(), None),
    "fzoo, 8 directions": (FZOO(), None),
    "fzoo, not normalised": (FZOO(normalise=False), None),
    "grzo, 6 examples": (GRZO(), None),
    "grzo, not normalised": (GRZO(normalise=False), None),
    "hizoo, at H = 1": (HiZOO(), None),
    "conmezo, without m": (ConMeZO(), None),
    "conmezo, m along the gradient": (ConMeZO(), (Toy().gradient()[0].float(), 10)),
    "conmezo, m at random": (ConMeZO(), (uneven() - 1.5, 10)),
    "bszo, 2 directions": (BSZO(), None),
    "loren, 6 losses": (Loren(), None),
    "curvzo, at equal scores": (CurvZO(), None),
    "curvzo, at uneven scores": (CurvZO(share=0.3), (uneven() ** 4, 1.0, 5)),
}


@cache
def sampled(name):
    return Toy().sample(*CASES[name])[0]


def is_mean(samples, expected):
    """Whether ``expected`` is the samples' mean within its standard error."""
    error = samples.std(dim=0) / len(samples) ** 0.5
    return bool(((samples.mean(dim=0) - expected).abs() < 4.5 * error + 1e-5).all())


@pytest.mark.parametrize(
    "name",
    ["two-sided", "two-sided, 4 directions", "forward-gradient", "fzoo, not normalised", "grzo, not normalised",
     "hizoo, at H = 1", "conmezo, without m", "curvzo, at equal scores", "curvzo, at uneven scores"],
)  # fmt: skip
def test_the_mean_is_the_gradient(name):
    assert is_mean(sampled(name), Toy().gradient()[0])


def test_hizoo_is_the_gradient_over_the_curvature():
    toy, curvature = Toy(), uneven()
    samples, _ = toy.sample(HiZOO(), (curvature,))
    assert is_mean(samples, toy.gradient()[0] / curvature)


@pytest.mark.parametrize("angle", [0.7, 1.35])
def test_conmezo_leans_as_told(angle):
    toy, momentum = Toy(), torch.randn(SIZE, generator=torch.Generator().manual_seed(1))
    samples, _ = toy.sample(ConMeZO(angle=angle), (momentum, 10))
    along, (gradient, _) = momentum.double() / momentum.double().norm(), toy.gradient()
    mean = SIZE * math.cos(angle) ** 2 * along * (along @ gradient) + math.sin(angle) ** 2 * gradient
    assert is_mean(samples, mean)
    assert toy.directions.norm() == pytest.approx(SIZE**0.5, rel=0.3), "as long as a normal direction"


def test_bszo_is_the_gradient_drawn_towards_zero():
    """By Stein's identity γ = E[f(y)·y]/E[y²] for a slope f(y) of a measurement y."""
    toy, estimator = Toy(), BSZO(directions=1)
    size = float(toy.gradient()[0].norm())
    state = (size**2 * (1 - 0.99**50), 0.8 * size**2, 50)
    samples, measured = toy.sample(estimator, state)
    y = torch.linspace(-8, 8, 20001, dtype=torch.float64)
    f = y * 1 / (1 + 0.9 * 0.8 + 0.1 * y * y)
    gamma = float((f * y * (-y * y / 2).exp()).sum() / (y * y * (-y * y / 2).exp()).sum())
    assert gamma == pytest.approx(0.5, abs=0.05)
    assert is_mean(samples, gamma * toy.gradient()[0])
    assert measured.square().mean().sqrt() == pytest.approx(size, rel=0.1)


def expected_in_spreads(count):
    """E[Σy²/(N·s)] of N normal y of variance one, s their standard deviation."""
    half = (count - 1) / 2
    deviation = math.exp(math.lgamma(half + 0.5) - math.lgamma(half)) / half**0.5
    inverse = half**0.5 * math.exp(math.lgamma(half - 0.5) - math.lgamma(half))
    return (count - 1) / count * deviation + inverse / count


@pytest.mark.parametrize(
    ("estimator", "alike"), [(FZOO(), False), (GRZO(), True)], ids=lambda item: getattr(item, "rule", "")
)
def test_normalised_slopes_point_along_the_gradient_at_a_known_length(estimator, alike):
    toy = Toy(alike=alike)
    samples = toy.sample(estimator)[0] if alike else sampled("fzoo, 8 directions")
    mean, (gradient, _) = samples.mean(dim=0), toy.gradient()
    assert torch.nn.functional.cosine_similarity(mean, gradient, dim=0) > 0.98
    length = float(mean @ gradient / gradient.norm())
    count = EXAMPLES if alike else 8
    assert length == pytest.approx(expected_in_spreads(count), rel=0.07)


def test_grzo_points_along_the_mean_of_the_examples_gradients():
    mean = sampled("grzo, 6 examples").mean(dim=0)
    assert torch.nn.functional.cosine_similarity(mean, Toy().gradient()[0], dim=0) > 0.9


def noise():
    """Variance of each estimate in units of its mean squared, and its passes, on the toy; `pytest -s` shows it."""
    found = {}
    for name, (estimator, _) in CASES.items():
        samples = sampled(name)
        mean, variance = samples.mean(dim=0), float(samples.var(dim=0).sum())
        # The mean's own sampling error is taken off its square.
        found[name] = variance / float(mean @ mean - variance / len(samples)), estimator.cost
    return found


def test_the_noise_is_what_theory_says():
    found = noise()
    for name, (variance, passes) in found.items():
        print(f"| {name} | {passes} | {variance:.1f} | {variance * passes:.0f} |")
    toy = Toy()
    each, (gradient, _) = toy.each(), toy.gradient()
    theory = {
        "two-sided": SIZE + 1,
        "two-sided, 4 directions": (SIZE + 1) / 4,
        "forward-gradient": SIZE + 1,
        "fzoo, not normalised": (SIZE - 1) / 8,
        "grzo, not normalised": (SIZE + 1) * float(each.square().sum() / gradient.square().sum()) / EXAMPLES**2,
        "hizoo, at H = 1": SIZE + 1,
        # Σ over values of E[g²z²m]/π² at π = 0.4 for all.
        "curvzo, at equal scores": SIZE + 2 / 0.4 - 1,
    }
    for name, expected in theory.items():
        assert found[name][0] == pytest.approx(expected, rel=0.2), name


def test_slopes_in_units_of_their_spread():
    assert in_spreads([1.0, 3.0]) == pytest.approx([0.5**0.5, 3 * 0.5**0.5])
    assert in_spreads([2.0, 2.0, 2.0]) == [0.0, 0.0, 0.0]
    assert (in_spreads([-3.0]), in_spreads([0.0])) == ([-1.0], [0.0])


def test_hizoo_finds_the_curvature():
    """On a quadratic with two kinds of curvature; the mean of 1/H stays one, and H within its bounds."""
    estimator, curved = HiZOO(smoothing=1e-3), torch.tensor([20.0] * 4 + [1.0] * 12, dtype=torch.float64)
    state = estimator.start(torch.zeros(16), None)
    source = Quick(1, 16)
    for _ in range(3000):
        directions = estimator.shape(estimator.draw(source, 1), state)
        second = float(directions[0].double().square() @ curved)
        _, state = estimator.projected_grads(directions, (0.5, second), state)
    curvature = state[0]
    assert curvature[:4].mean() > 1.5 * curvature[4:].mean()
    assert total(curvature.reciprocal()) / 16 == pytest.approx(1.0, rel=0.2)
    _, (extreme,) = estimator.projected_grads(directions, (0.5, 1e300), state)
    assert extreme.isfinite().all() and extreme.min() >= LEAST and extreme.max() <= MOST
    assert estimator.projected_grads(directions, (0.0, 0.0), state)[1] is state


def test_conmezo_follows_the_estimates_and_warms_up():
    estimator = ConMeZO(memory=0.9, warm_up=100)
    betas = [estimator.memory_at(step) for step in (1, 10, 11, 50, 100, 101)]
    assert betas == pytest.approx([0.1, 0.1, 0.1 + 0.8 * (1 - 1 / (1 + 8 * (1 / 90) ** 1.8) ** 3),
                                   0.9 - 0.8 / (1 + 8 * (40 / 90) ** 1.8) ** 3, 0.9 - 0.8 / 9**3, 0.9])  # fmt: skip
    assert betas == sorted(betas) and ConMeZO(warm_up=0).memory_at(1) == 0.99
    direction = torch.randn(1, 8)
    _, (momentum, count) = estimator.projected_grads(direction, (2.0,), (torch.ones(8), 4))
    assert torch.allclose(momentum, 0.1 * torch.ones(8) + 0.9 * 2.0 * direction[0]) and count == 5


def test_bszo_draws_outliers_in():
    estimator = BSZO()
    (usual, outlier), state = estimator.projected_grads(None, (1.0, 30.0), (1 - 0.99**9, 1.0, 9))
    assert usual == pytest.approx(1 / (1 + 1.0)) and outlier == pytest.approx(30 / (1 + 0.9 * 1.0 + 90))
    assert state[1] == pytest.approx(90.9) and state[2] == 10
    first, _ = estimator.projected_grads(None, (2.0, 0.0), estimator.start(torch.zeros(3), None))
    assert first == pytest.approx([2 * 2 / (2 + (0.9 * 2 + 0.1 * 4)), 0.0])


def test_curvzo_takes_steep_values_more_often():
    """Where one value holds half of the squared gradient."""
    estimator, gradient = CurvZO(memory=0.995), torch.tensor([3.0] + [1.0] * 9, dtype=torch.float64)
    state = estimator.start(torch.zeros(10), None)
    assert torch.allclose(estimator.chances(state[0]), torch.full((10,), 0.4))
    source, taken = Quick(2, 10), torch.zeros(10)
    for _ in range(2000):
        directions = estimator.shape(estimator.draw(source, 1), state)
        taken += directions[0] != 0
        _, state = estimator.projected_grads(directions, (float(directions[0].double() @ gradient),), state)
    chances = estimator.chances(state[0])
    assert chances[0] > 1.2 * chances[1:].mean() and taken[0] > 1.2 * taken[1:].mean()
    assert chances.min() >= 0.1 and chances.max() <= 1.0
    assert torch.equal(directions[0] != 0, directions[1] != 0)


# Replays


def started(model, rule, **tables):
    """A session of ``rule`` at its beginning, on one value in fifty."""
    chosen = build({"mask": {"rule": "random", "density": 0.02}, "estimator": {"rule": rule, **OWN.get(rule, {})},
                    "update": {"learning_rate": 1e-2}, "loop": {"seed": 5, "batch_size": 4}, **tables})  # fmt: skip
    session = Session(chosen, model, SparseValues(model, finish(chosen.mask.find(model, SEARCH))))
    session.begin()
    return session


def few():
    """A choice of two, a completion, a choice of three single tokens, and a choice in two rows."""
    return [batch()[place] for place in (1, 3, 4, 5)]


def same(one, other):
    """Whether two states have the same bits."""
    if not isinstance(one, tuple):
        return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
    return len(one) == len(other) and all(map(same, one, other))


@rules
def test_a_replay_gives_the_same_bits(frozen_tiny, rule, tmp_path):
    """From the scalars alone, and from a key frame on."""
    session = started(frozen_tiny("llama", 32), rule)
    tuned, known, told = session.tuned, (session.tuned.mask.hash, "ef" * 32), []
    for step in range(1, 9):
        directions = session.directions()
        found = session.estimate(few(), directions, 1e-2)
        assert len(found.recorded) == session.recipe.recorded
        assert len(directions) == session.recipe.estimator.perturbations(4)
        told.append((found.recorded, found.exact))
        session.advance(directions, found.recorded, 1e-2, found.exact)
        if step == 4:
            checkpoints.write(tmp_path, 4, 4, tuned.start, tuned.values, session.state, *known)
    assert tuned.values.isfinite().all() and not torch.equal(tuned.values, tuned.start)
    (frame,) = checkpoints.listed(tmp_path)
    for first in (0, 4):
        again = started(session.model, rule)
        if first:
            states = checkpoints.read(frame, tuned.start, again.tuned.values, *known)
            again.step, again.state = 4, State(*states)
        for recorded, exact in told[first:]:
            again.advance(again.directions(), recorded, 1e-2, exact)
        assert again.tuned.hash() == tuned.hash()
        assert same(tuple(again.state), tuple(session.state))


@rules
def test_zeros_move_nothing(frozen_tiny, rule):
    """What was not finite is recorded as zeros: at the first step, and later."""
    session = started(frozen_tiny("llama", 32), rule)
    zeros = (0.0,) * session.recipe.recorded
    for step in range(4):
        directions = session.directions()
        if step == 1:
            found = session.estimate(few(), directions)
            session.advance(directions, found.recorded, 1e-2, found.exact)
            continue
        values, state = session.tuned.values.clone(), session.state.estimator
        session.advance(directions, zeros, 1e-2)
        assert torch.equal(session.tuned.values, values)
        assert same(session.state.estimator, state)


@pytest.mark.parametrize("estimator", [HiZOO(smoothing=1e-3), ConMeZO(), CurvZO()], ids=lambda item: item.rule)
def test_threads_change_no_bit(estimator):
    """Of directions and states of long vectors, whose sums torch would split by threads."""

    def ran():
        state = estimator.start(torch.zeros(100_003), None)
        for step in range(1, 4):
            directions = estimator.shape(estimator.draw(Source(3, step, 100_003), 1), state)
            _, state = estimator.projected_grads(directions, (0.3, 40.0)[: estimator.recorded(1)], state)
        return directions, *state

    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(ran())
    finally:
        torch.set_num_threads(before)
    assert same(found[0], found[1]) and same(found[0], found[2])


@pytest.mark.parametrize("size", [0, 1, 2, 3, 1000, 4097])
def test_a_sum_is_exact(size):
    values = torch.randn(size)
    assert total(values) == pytest.approx(math.fsum(values.tolist()), abs=1e-10)


@pytest.mark.parametrize("rule", ["grzo", "hizoo", "curvzo", "first-order"])
def test_a_run_is_rebuilt_from_its_journal(make, tmp_path, rule):
    chosen = make(estimator={"rule": rule}, loop={"evaluate_every": 0}, data={"validation": 2, "test": 2})
    ended = list(training.train(chosen, folder=tmp_path / "run"))[-1]
    session = finish(open_session(open_run(tmp_path / "run"), from_checkpoints=False))
    assert (session.step, session.tuned.hash()) == (6, ended.hash)


# Models


class Plain:
    """A `Probe` on a plain transformers model in fp64, an example and a side at a time."""

    def __init__(self, model, tuned, examples, directions):
        self.model, self.tuned, self.batch, self.directions = model, tuned, examples, directions
        self.module = reference.plain_model(model).double()
        self.forward_passes = 0

    def _at(self, values, examples):
        reference.put(self.module, self.model, self.tuned, values)
        return reference.loss(self.module, examples)

    @torch.no_grad()
    def losses(self, offsets):
        self.forward_passes += len(offsets)
        return torch.stack([self._at(values, self.batch) for values in self._moved(offsets)])

    @torch.no_grad()
    def examples(self, offsets):
        self.forward_passes += len(offsets)
        return torch.stack([
            torch.stack([self._weighted(values, each) for each in self.batch]) for values in self._moved(offsets)
        ])  # fmt: skip

    @torch.no_grad()
    def own_losses(self, offsets):
        self.forward_passes += len(offsets)
        values = self.tuned.values.double()
        return torch.stack([
            torch.stack([self._weighted(values + offset * direction.double(), each)
                         for each, direction in zip(self.batch, self.directions, strict=True)])
            for offset in offsets.tolist()
        ])  # fmt: skip

    def gradient(self, offsets=None, blocks=None):
        self.forward_passes += 1
        values = self.tuned.values.double() if offsets is None else self._moved(offsets[None])[0]
        loss = self._at(values, self.batch)
        self.module.zero_grad()
        loss.backward()
        kept = tuple(last_blocks(self.model, blocks)) if blocks else ("",)
        parts = [
            reference.oriented(self.model, name, self.module.get_parameter(name).grad).reshape(-1)[
                self.tuned.indices[name].long()
            ] * name.startswith(kept)
            for name in self.tuned.slices
        ]  # fmt: skip
        return torch.cat(parts).float(), loss.item()

    def part(self, chosen):
        return Plain(self.model, self.tuned, [self.batch[place] for place in chosen], self.directions)

    @property
    def lengths(self):
        return [example.length for example in self.batch]

    @property
    def weights(self):
        return [1 if each.choices else len(each.rows[0].targets) for each in self.batch]

    def _moved(self, offsets):
        return self.tuned.values.double() + offsets.double() @ self.directions.double()

    def _weighted(self, values, example):
        weights = self.weights
        own = 1 if example.choices else len(example.rows[0].targets)
        return self._at(values, [example]) * own * len(weights) / sum(weights)


@pytest.mark.parametrize("family", FAMILIES)
@rules
def test_a_step_measures_what_a_plain_model_does(frozen_tiny, family, rule):
    session = started(frozen_tiny(family, 32), rule)
    estimator = session.recipe.estimator
    if "epsilon" in type(estimator).model_fields:  # beside which the rounding of fp32 losses is small
        estimator = estimator.model_copy(update={"epsilon": 0.02})
    directions, state = session.directions(), session.state.estimator
    mine = estimator.estimate(session.probe(few(), directions), state)
    plain = Plain(session.model, session.tuned, few(), directions)
    theirs = estimator.estimate(plain, state)
    assert mine.loss == pytest.approx(theirs.loss, rel=1e-5)
    assert mine.recorded == pytest.approx(theirs.recorded, rel=2e-3, abs=5e-3)
    if estimator.exact:
        assert torch.allclose(mine.exact, theirs.exact, rtol=1e-3, atol=1e-4 * float(theirs.exact.abs().max()))
    else:
        assert plain.forward_passes == estimator.forward_passes
    session.advance(directions, mine.recorded, 1e-2, mine.exact)
    assert session.tuned.values.isfinite().all() and not torch.equal(session.tuned.values, session.tuned.start)


@rules
def test_where_every_weight_is_tuned_only_plain_directions_go(rule):
    """Others need vectors as long as the model."""
    tables = {"model": {"bits": 32}, "mask": {"rule": "all"}, "estimator": {"rule": rule}}
    if rule in ("two-sided", "fzoo", "bszo", "auto"):
        build(tables)
    else:
        with pytest.raises(UserError, match="every weight is tuned"):
            build(tables)
