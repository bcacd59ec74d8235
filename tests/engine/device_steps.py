"""Steps on a device that is not the CPU: nothing is made on the wrong one, and the numbers are the CPU's.

`tests/engine/test_devices.py` runs this file in a process of its own, on a device that is pretended (see
`tests.engine.pretend`); on a real one, tests/gpu.
"""

from __future__ import annotations

import pytest
import torch

from sparsezo_gui import recipe
from sparsezo_gui.engine import device as devices
from sparsezo_gui.engine import frozen
from sparsezo_gui.engine.evaluate import BATCH, evaluate
from sparsezo_gui.engine.forward import BACKWARD_ROWS
from sparsezo_gui.engine.masks.rule import Search
from sparsezo_gui.engine.runs import checkpoints
from sparsezo_gui.engine.session import Session
from sparsezo_gui.engine.spaces.pieces import PIECE
from sparsezo_gui.engine.spaces.values import tuned_values
from sparsezo_gui.recipe.recipe import DataTable, ModelTable
from sparsezo_gui.recipe.registry import ESTIMATORS, MASKS, SELECTIONS, UPDATES
from tests.engine.conftest import finish
from tests.engine.layers.test_streamed import losses
from tests.engine.test_correctness import SEARCH, batch, example, families
from tests.engine.test_exact import MASKS as SPACES
from tests.engine.test_exact import found as exact_of
from tests.engine.test_exact import values_of
from tests.models import FAMILIES

EXAMPLES = batch()[1:6]
SETTINGS = {"addax": {"short": 20}, "hizoo": {"epsilon": 0.02}}
FOUND = {"sequences": 2, "tokens": 24, "threshold": 1.5}


@pytest.fixture
def gpu(monkeypatch):
    """`tests.engine.pretend`, whose `GPU` is there, also to those who ask for its memory."""
    from tests.engine import pretend  # changes PyTorch, so that a real GPU would be another one

    for by_kind in (PIECE, BACKWARD_ROWS):
        monkeypatch.setitem(by_kind, pretend.GPU.type, by_kind["cuda"])
    for name in ("memory_free", "memory_used", "memory_total"):
        asked = getattr(devices, name)
        monkeypatch.setattr(devices, name, lambda _device, asked=asked: asked(torch.device("cpu")))
    with pretend.PretendGpu():
        yield pretend


def test_the_pretended_gpu_refuses_what_a_real_one_does(gpu):
    there = torch.tensor([1.0, 2.0], device=gpu.GPU)
    assert isinstance(there, gpu.OnGpu) and there.device == gpu.GPU and (there + 1).tolist() == [2, 3]
    assert there.cpu().device.type == "cpu" and there[torch.tensor([1])].tolist() == [2]
    with pytest.raises(RuntimeError, match="on the CPU and on the GPU"):
        there + torch.tensor([1.0, 2.0])
    with pytest.raises(RuntimeError, match="on the CPU and on the GPU"):
        torch.searchsorted(there, torch.tensor([1.0, 2.0]))
    with pytest.raises((RuntimeError, TypeError)):
        there.numpy()


@families
@pytest.mark.parametrize("bits", [4, 8, 32])
def test_a_forward_pass_stays_on_its_device(frozen_tiny, family, bits, gpu):
    model = frozen_tiny(family, bits)
    assert torch.allclose(losses(gpu.moved(model)), losses(model), rtol=1e-5)


@families
@pytest.mark.parametrize("bits", [4, 8])
def test_blocks_come_forward_to_their_device_and_go_again(frozen_tiny, family, bits, gpu):
    resident, streamed = (gpu.moved(frozen_tiny(family, bits)) for _ in range(2))
    for layer in streamed.layers.values():
        layer.hold(layer.frozen.to(torch.device("cpu")))
    frozen.stream(streamed)
    assert torch.equal(losses(streamed), losses(resident))
    assert {layer.frozen.device.type for layer in streamed.layers.values()} == {"cpu"}


CHOICES = [example([5, 9, 7 + i], [2, 2, 2], [8, 11, 30 + i], [0, 1, 2], 3, i % 3) for i in range(8)]


def steps(model, table, folder):
    """Losses and values of two steps, with all that a run does between them."""
    chosen, examples = recipe.build(table), CHOICES if "objective" in table else EXAMPLES
    mask = finish(chosen.mask.find(model, Search(5, DataTable(task="choice", source="starter"))))
    session = Session(chosen, model, tuned_values(model, mask))
    session.begin()
    losses = []
    for step in (1, 2):
        batch_now, _ = session.choose(examples)
        directions = session.directions()
        found = session.estimate(batch_now, directions, 1e-3)
        session.advance(directions, found.recorded, 1e-3, found.exact)
        losses.append(found.loss)
        checkpoints.write(folder, step, step, session.tuned.start, session.tuned.values, session.state, mask.hash, "")
    tuned, hash = session.tuned, session.tuned.hash()
    (_, frame) = sorted(checkpoints.listed(folder), key=lambda each: each.step)
    assert checkpoints.read(frame, tuned.start, tuned.values, mask.hash, "") is not None and tuned.hash() == hash
    with tuned.applied():
        finish(evaluate(model, CHOICES, "test", chosen.objective, session.base(CHOICES, BATCH)))
    assert tuned.changes()
    return losses, tuned.values.cpu().float()


@pytest.fixture
def alike(frozen_tiny, gpu, tmp_path):
    """``alike(**tables)``: two steps of such a recipe give the same on both devices."""

    def compare(bits=32, **tables):
        base = {"model": {"bits": bits}, "mask": {"rule": "random", "density": 0.02},
                "loop": {"batch_size": 5, "seed": 5, "steps": 4}}  # fmt: skip
        # A model of its own: what tunes every weight moves those of the model.
        folder = str(frozen_tiny("llama", bits).source.folder)
        model = finish(frozen.load(ModelTable(id=folder, bits=bits, device="cpu")))
        here, there = (steps(each, {**base, **tables}, tmp_path / name)
                       for each, name in ((model, "here"), (gpu.moved(model), "there")))  # fmt: skip
        assert there[0] == pytest.approx(here[0], rel=1e-4)
        assert torch.allclose(there[1], here[1], rtol=1e-3, atol=1e-4)

    return compare


@pytest.mark.parametrize("rule", [*ESTIMATORS])
def test_every_estimator_stays_on_its_device(alike, rule):
    alike(estimator={"rule": rule, **SETTINGS.get(rule, {})})


@pytest.mark.parametrize("rule", [*UPDATES])
def test_every_update_stays_on_its_device(alike, rule):
    alike(update={"rule": rule, "decay": 0.1})


def found(rule):
    """The table of a mask that is found quickly."""
    return {"rule": rule, **{key: value for key, value in FOUND.items() if key in MASKS[rule].model_fields}}


@pytest.mark.parametrize("rule", sorted({*MASKS} - {"saved"}))
def test_every_mask_stays_on_its_device(alike, rule):
    alike(mask=found(rule))


@pytest.mark.parametrize("rule", ["first-order", "loren", "elastic"])
def test_low_rank_values_stay_on_their_device(alike, rule):
    alike(mask=found("activation-subspace"), estimator={"rule": rule})


EXACT = {
    "random": {"density": 0.02}, "subspace": {"rank": 4, "refresh": 0}, "lora": {"rank": 3},
    "activation-subspace": {"sequences": 2, "tokens": 24},
}  # fmt: skip


@pytest.mark.parametrize("free", [2**40, 0], ids=["kept there", "kept in a file"])
@pytest.mark.parametrize("rule", EXACT)
def test_exact_steps_of_every_space_stay_on_their_device(alike, rule, free, monkeypatch):
    monkeypatch.setattr(devices, "memory_free", lambda device: free)
    alike(bits=4, mask={"rule": rule, **EXACT[rule]}, estimator={"rule": "first-order"})


@pytest.mark.parametrize(
    ("family", "space"), [*(("llama", space) for space in [*SPACES][1:]), *((family, "entries") for family in FAMILIES)]
)
def test_exact_gradients_of_streamed_blocks_are_the_cpus(frozen_tiny, family, space, gpu):
    there = gpu.moved(frozen_tiny(family, 4))
    for layer in there.layers.values():
        layer.hold(layer.frozen.to(torch.device("cpu")))
    frozen.stream(there)
    (mine, loss), (expected, told) = (exact_of(each, values_of(each, space), "mixed")
                                      for each in (there, frozen_tiny(family, 4)))  # fmt: skip
    assert mine.device == gpu.GPU and loss == pytest.approx(told, rel=1e-5)
    assert torch.dist(mine.cpu(), expected) < 1e-5 * expected.norm()
    assert {layer.frozen.device.type for layer in there.layers.values()} == {"cpu"}


@pytest.mark.parametrize("rule", [*SELECTIONS])
def test_every_selection_stays_on_its_device(alike, rule):
    alike(selection={"rule": rule})


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_a_step_of_few_bits_stays_on_its_device(alike, bits):
    alike(bits=bits, estimator={"rule": "elastic"})


def test_a_counted_objective_stays_on_its_device(alike):
    alike(objective={"rule": "accuracy", "mix": 0.5})


def test_private_steps_stay_on_their_device(frozen_tiny, gpu):
    """Their noise comes from the operating system, so that no two are alike."""
    table = {
        "mask": {"rule": "random", "density": 0.02},
        "privacy": {"rule": "gaussian"},
        "data": {"task": "choice", "answers": ["yes", "no"]},
    }
    chosen, model = recipe.build(table), gpu.moved(frozen_tiny("llama", 32))
    session = Session(chosen, model, tuned_values(model, finish(chosen.mask.find(model, SEARCH))))
    session.begin()
    directions = session.directions()
    found = session.estimate(CHOICES, directions)
    session.advance(directions, found.recorded, 1e-3)
    assert bool(session.tuned.values.isfinite().all())
