"""Private steps: what each example can do, the noise, the batches, and what is told of them."""

from __future__ import annotations

import math
import sys
from queue import SimpleQueue
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sparsezo_gui.engine import training
from sparsezo_gui.engine.data.encode import encode
from sparsezo_gui.engine.export import export_run
from sparsezo_gui.engine.privacy import gaussian
from sparsezo_gui.engine.privacy.accounting import epsilon, spent
from sparsezo_gui.engine.privacy.gaussian import Gaussian
from sparsezo_gui.engine.runs import journal
from sparsezo_gui.engine.runs.branch import branch
from sparsezo_gui.engine.runs.folder import open_run
from sparsezo_gui.engine.runs.listing import summary
from sparsezo_gui.engine.session.opening import open_session
from sparsezo_gui.engine.zo.estimators.two_sided import TwoSided
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import Recipe, load, with_settings
from sparsezo_gui.recipe import events as e
from tests.engine.conftest import finish, of
from tests.engine.data.test_tasks import made
from tests.engine.test_correctness import example
from tests.engine.test_objectives import session_of

pytest.importorskip("dp_accounting")
ANSWERS = {"answers": ("no", "yes")}
PRIVATE = {"data": ANSWERS, "privacy": {"rule": "gaussian", "noise": 0.5}}


def probe_of(projected_grads):
    """A probe whose examples have these ``projected_grads`` (directions, examples)."""
    projected_grads = torch.tensor(projected_grads, dtype=torch.float64)
    return SimpleNamespace(isolated_losses=lambda offsets: 2.0 + offsets.double() @ projected_grads)


def measured(projected_grads, **fields):
    rule = Gaussian(**{"clip": 2.0, "noise": 1e-9, **fields})
    return rule.estimate(TwoSided(directions=len(projected_grads)), probe_of(projected_grads), None, 4)


def test_each_example_counts_for_no_more_than_the_clip():
    found = measured([[0.5, -1.0, 7.0, -300.0]])
    assert found.recorded == pytest.approx([(0.5 - 1.0 + 2.0 - 2.0) / 4], abs=1e-6)
    assert math.isnan(found.loss)
    several = measured([[3.0, 0.3], [4.0, -0.4]])  # lengths 5 and 0.5
    assert several.recorded == pytest.approx([(1.2 + 0.3) / 4, (1.6 - 0.4) / 4], abs=1e-6)
    assert measured([[1.0, float("nan"), float("inf")]]).recorded == pytest.approx([0.25], abs=1e-6)
    assert measured([[]]).recorded == pytest.approx([0.0], abs=1e-6)


def test_noise_has_the_size_that_is_accounted_for():
    count = 4000
    found = np.array([measured([[0.0]], clip=3.0, noise=0.7).recorded[0] for _ in range(count)])
    size = 0.7 * 3.0 / 4
    assert abs(found.mean()) < 5 * size / count**0.5
    assert found.std() == pytest.approx(size, rel=5 / (2 * count) ** 0.5)
    assert (np.abs(found) > 2 * size).mean() == pytest.approx(0.0455, abs=0.017)
    assert np.abs(np.corrcoef(found[:-1], found[1:])[0, 1]) < 5 / count**0.5
    both = np.array([measured([[0.0], [0.0]], noise=1.0).recorded for _ in range(1000)])
    assert abs(np.corrcoef(both.T)[0, 1]) < 0.16


def test_an_empty_batch_and_one_of_long_texts(frozen_tiny):
    """What an example counts for does not depend on those beside it, however long they are."""
    session = session_of(frozen_tiny("llama", 32), "data.task=pairs", "privacy.rule=gaussian")
    rows = [{"prompt": "the cat", "answer": answer} for answer in ("sat", "sat on the mat and on the log today")]
    short, long = (encode(one, session.model.tokenizer, 64) for one in made("pairs", *rows))
    z, offsets = session.directions(), torch.tensor([[0.01], [-0.01]])
    both = session.probe([short, long], z).isolated_losses(offsets)
    one = session.probe([short], z).isolated_losses(offsets)
    assert both[:, 0].tolist() == pytest.approx(one[:, 0].tolist(), rel=1e-5)
    assert both[:, 0].tolist() != pytest.approx(session.probe([short, long], z).examples(offsets)[:, 0].tolist())
    empty = session.estimate([], z)
    assert math.isfinite(empty.recorded[0]) and empty.recorded[0] != 0


def test_batches_are_poisson_samples():
    settings = ["loop.batch_size=4", "data.task=sst2", "privacy.rule=gaussian"]
    session = SimpleNamespace(recipe=with_settings(Recipe(), settings))
    examples = [example([5, 9, 7 + i], [2], [8], [0], 0, 0) for i in range(40)]
    batches = [session.recipe.privacy.choose(session, examples).examples for _ in range(3000)]
    sizes = np.array([len(batch) for batch in batches])
    assert sizes.mean() == pytest.approx(4, abs=5 * (3.6 / 3000) ** 0.5)
    assert sizes.var() == pytest.approx(3.6, rel=0.15)  # binomial: n·p·(1 − p)
    assert (sizes == 0).mean() == pytest.approx(0.9**40, abs=0.012)
    each = np.array([sum(one in batch for batch in batches) for one in examples])
    assert abs(each / 3000 - 0.1).max() < 5 * (0.09 / 3000) ** 0.5
    few = session.recipe.privacy.choose(session, examples[:3])
    assert few.examples == examples[:3], "a batch size above the number of examples takes all"


def test_a_private_run_is_replayed_and_another_one_is_not_the_same(make, tmp_path):
    chosen = make(**PRIVATE, loop={"steps": 8})
    runs = [list(training.train(chosen, folder=tmp_path / name)) for name in ("one", "other")]
    hashes = [events[-1].hash for events in runs]
    assert hashes[0] != hashes[1]
    assert finish(open_session(open_run(tmp_path / "one"), from_checkpoints=False)).tuned.hash() == hashes[0]
    steps = of(e.Step, runs[0])
    assert all(math.isnan(step.loss) and step.tokens == 0 and step.projected_gradient != 0 for step in steps)
    records = journal.read(tmp_path / "one" / "journal.bin").records
    assert np.isnan(records["loss"]).all() and not records["tokens"].any()
    assert not any("finite loss" in notice.text for notice in of(e.Notice, runs[0]))


def test_what_is_spent_is_told_before_and_after(make, tmp_path):
    chosen = make(**PRIVATE, loop={"steps": 8})
    commands: SimpleQueue = SimpleQueue()
    events = []
    for event in training.train(chosen, commands, folder=tmp_path / "run"):
        events.append(event)
        if isinstance(event, e.Step) and event.step == 5:
            commands.put(e.Stop())
    planned = epsilon([(4 / 24, 0.5, 8)], 1e-5)
    assert f"after all 8 steps: (ε, δ) = ({planned:.3g}, 1e-05)" in of(e.Notice, events)[0].text
    (first,) = of(e.Spent, events)
    assert (first.steps, first.epsilon) == (5, pytest.approx(epsilon([(4 / 24, 0.5, 5)], 1e-5)))
    run = open_run(tmp_path / "run")
    assert (run.facts.examples, summary(run.path).epsilon) == (24, first.epsilon)
    commands.put(e.GoBack(2))
    again = list(training.resume(tmp_path / "run", commands))
    assert again[-1].step == 8
    assert of(e.Spent, again)[-1].steps == 5 + 6, "steps that were gone back over are spent too"
    made = branch(run, 4, ["privacy.noise=0.8"])
    list(training.resume(made.path))
    both = spent(made)
    assert both.steps == 11 + 4
    assert both.epsilon == pytest.approx(epsilon([(4 / 24, 0.5, 11), (4 / 24, 0.8, 4)], 1e-5))
    finish(export_run(run.path, "hf", tmp_path / "out"))
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"training example: (ε, δ) = ({spent(run).epsilon:.3g}, 1e-05), for 11 steps" in card


def test_steps_without_privacy_take_it_away_from_a_branch(make, tmp_path):
    list(training.train(make(loop={"steps": 3}), folder=tmp_path / "run"))
    asked = ["privacy.rule=gaussian", "data.answers=['no', 'yes']", "loop.steps=5"]
    made = branch(open_run(tmp_path / "run"), 3, asked)
    events = list(training.resume(made.path))
    assert not of(e.Spent, events)
    assert any("no privacy, because some" in notice.text for notice in of(e.Notice, events))
    assert summary(made.path).epsilon is None


@pytest.mark.parametrize(("rate", "noise", "steps"), [(0.016, 1.0, 1000), (0.064, 2.0, 500), (0.01, 0.7, 1000)])
def test_accounting_equals_the_closed_form(rate, noise, steps):
    """RDP of the sampled Gaussian at whole orders (Mironov et al., arXiv 1908.10530), turned into (ε, δ)."""
    delta, found = 1e-5, []
    for order in range(2, 257):
        logs = [
            math.lgamma(order + 1) - math.lgamma(k + 1) - math.lgamma(order - k + 1) + (order - k) * math.log1p(-rate)
            + k * math.log(rate) + (k * k - k) / (2 * noise**2)
            for k in range(order + 1)
        ]  # fmt: skip
        rdp = np.logaddexp.reduce(logs) / (order - 1)
        found.append(steps * rdp + math.log1p(-1 / order) - math.log(delta * order) / (order - 1))
    assert epsilon([(rate, noise, steps)], delta) == pytest.approx(min(found), rel=1e-9)
    halves = [(rate, noise, steps // 2), (rate, noise, steps - steps // 2)]
    assert epsilon(halves, delta) == pytest.approx(min(found), rel=1e-9)


def test_without_its_package_it_says_what_to_install(make, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(UserError, match=r"pip install 'sparsezo-gui\[privacy\]'"):
        list(training.train(make(**PRIVATE), folder=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_delta_that_is_too_large_is_told(make, tmp_path):
    events = list(training.train(make(data=ANSWERS, privacy={"rule": "gaussian", "delta": 0.1}, loop={"steps": 1}),
                                 folder=tmp_path / "run"))  # fmt: skip
    assert any("not below 1 / 24" in notice.text for notice in of(e.Notice, events))


def test_randomness_is_the_systems():
    drawn = {gaussian.secret_normal() for _ in range(100)}
    assert len(drawn) == 100
    with pytest.raises(NotImplementedError):
        gaussian._system.getstate()  # it has no state that could be kept


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["data.task=pairs", "objective.rule=f1", "privacy.rule=gaussian"], "a separate loss for each example"),
        (["selection.rule=coreset", "privacy.rule=gaussian"], "chooses them by their content"),
        (["mask.text=task", "privacy.rule=gaussian"], r"Set \[mask\] text = 'general'"),
        (["mask.text=mine.jsonl", "data.source=mine.jsonl", "privacy.rule=gaussian"], "chooses weights from them"),
        (["mask.rule=multi-task", "privacy.rule=gaussian"], r"Set \[mask\] texts = \['general'\]"),
        (["privacy.rule=gaussian"], r"List the answers in \[data\] answers"),
    ],
)
def test_what_would_tell_of_examples_is_refused(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        with_settings(Recipe(), settings)


def test_a_mask_is_not_found_on_private_examples_under_another_name(tmp_path):
    """The folder, a file in it, and the long way round."""
    (tmp_path / "train.jsonl").write_text("{}")
    other = tmp_path.parent / f"{tmp_path.name}-other"
    link = tmp_path.parent / f"{tmp_path.name}-link"
    link.symlink_to(tmp_path)
    private = [f"data.source={tmp_path}", "data.answers=['yes', 'no']", "privacy.rule=gaussian"]
    for text in (tmp_path / "train.jsonl", tmp_path.parent, tmp_path / ".." / tmp_path.name, link / "train.jsonl"):
        with pytest.raises(UserError, match="chooses weights from them"):
            with_settings(Recipe(), [*private, f"mask.text={text}"])
    assert with_settings(Recipe(), [*private, f"mask.text={other}"])


def test_the_bundled_recipe_can_be_private():
    assert with_settings(load("starter"), ["privacy.rule=gaussian"]).privacy.private, "its text is not its data"
