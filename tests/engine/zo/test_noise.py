"""The noise of a loss against noise that was put there."""

from __future__ import annotations

import pytest
import torch

from sparsezo_gui.engine import device as devices
from sparsezo_gui.engine import training
from sparsezo_gui.engine.noise_probe import probe_noise
from sparsezo_gui.engine.runs.folder import open_run
from sparsezo_gui.engine.zo import generator
from sparsezo_gui.engine.zo.noise import probe, probes, until_clear
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import events as e
from sparsezo_gui.recipe.noise import NoiseProbed
from tests.engine.conftest import finish, of

N = 200


def curved(noise, directions, seed=0):
    """Losses along directions of a curved function with a gradient of norm one, and normal noise on top."""
    gradient = torch.ones(N, dtype=torch.float64) / N**0.5
    draw = torch.Generator().manual_seed(seed)

    def losses(direction):
        def of(offsets):
            along = offsets[:, 0].double() * (direction.double() @ gradient)
            return 2 + along + 3 * along**2 + noise * torch.randn(len(along), generator=draw, dtype=torch.float64)

        return of

    return [losses(direction) for direction in generator.Source(0, 1, N).normal(directions)]


@pytest.mark.parametrize("noise", [1e-5, 1e-3])
def test_noise_and_difference_are_those_put_in(noise):
    found = probe(1e-2, curved(noise, 200))
    assert found.rounding == pytest.approx(2**0.5 * noise, rel=0.1)
    assert found.difference == pytest.approx(((2 * 1e-2) ** 2 + 2 * noise**2) ** 0.5, rel=0.15)


@pytest.mark.parametrize(("noise", "epsilon"), [(1e-6, 1e-3), (5e-4, 3e-3), (1e-3, 1e-2), (1.0, 1e-2)])
def test_epsilon_is_the_first_that_is_clear(noise, epsilon):
    found = NoiseProbed.of(until_clear(probes(1e-3, curved(noise, 20))))
    assert found.epsilon == pytest.approx(epsilon) and found.chosen.clear == (noise < 1) and found.wanted == 1e-3
    assert found.trials[-1] == found.chosen, "larger ones are not measured by a run"
    assert found.epsilon == NoiseProbed.of(list(probes(1e-3, curved(noise, 20)))).epsilon
    assert f"psilon {found.epsilon:g}" in found.words or f"to {found.epsilon:g}: there," in found.words


def test_epsilon_never_leaves_what_is_a_slope():
    assert [noise.epsilon for noise in probes(2e-2, curved(1.0, 5))] == [2e-2]


@pytest.mark.skipif(not devices.has_int8(), reason="this processor has no VNNI instructions")
def test_integers_need_no_larger_epsilon(make, tmp_path):
    chosen = make(model={"bits": 8, "compute": "int8"}, estimator={"epsilon": 1e-4})
    events = list(training.train(chosen, folder=tmp_path / "run"))
    assert not [notice for notice in of(e.Notice, events) if "psilon" in notice.text]
    assert events[-1].reason == "done"


@pytest.mark.parametrize(("epsilon", "told"), [(1e-3, ()), (1e-7, ("close to rounding noise",))])
def test_a_tiny_epsilon_is_told_in_fp32_too(make, tmp_path, epsilon, told):
    chosen = make(estimator={"epsilon": epsilon}, mask={"density": 1e-3}, loop={"steps": 1})
    events = list(training.train(chosen, folder=tmp_path / "run"))
    texts = [notice.text for notice in of(e.Notice, events) if "rounding" in notice.text]
    assert all(any(part in text for text in texts) for part in told) and (told or not texts)


def test_coarse_numbers_get_a_larger_epsilon_and_keep_it(make, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    chosen = make(model={"compute": "bfloat16"}, estimator={"epsilon": 1e-4})
    events = training.train(chosen, folder=tmp_path / "run")
    begun = [event for event in events if not isinstance(event, e.Step) or event.step <= 3]
    assert [notice for notice in of(e.Notice, begun) if "raised from 0.0001 to" in notice.text]
    kept = open_run(tmp_path / "run")
    assert kept.recipe.estimator.epsilon == pytest.approx(1e-3)
    (found,) = of(NoiseProbed, begun)
    assert found.epsilon == kept.recipe.estimator.epsilon and [found] == of(NoiseProbed, kept.events())
    report = finish(probe_noise(chosen))
    assert (report.wanted, report.epsilon) == (found.wanted, found.epsilon)
    assert report.trials[: len(found.trials)] == found.trials
    assert list(training.resume(tmp_path / "run"))[-1].reason == "done"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"data": {"answers": ("no", "yes")}, "privacy": {"rule": "gaussian"}}, r"without the noise of \[privacy\]"),
        ({"estimator": {"rule": "first-order"}, "update": {"rule": "adam"}}, "has no epsilon"),
    ],
)
def test_no_noise_is_measured_of_what_is_private_or_exact(make, changes, told):
    with pytest.raises(UserError, match=told):
        finish(probe_noise(make(**changes)))
