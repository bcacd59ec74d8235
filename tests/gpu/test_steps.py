"""Two steps of every estimator, update, mask and selection on the GPU: those of the CPU but for rounding."""

from __future__ import annotations

import pytest
import torch

from sparsezo_gui.engine import frozen
from sparsezo_gui.recipe.recipe import ModelTable
from tests.engine.conftest import finish
from tests.engine.device_steps import (  # noqa: F401
    steps,
    test_a_counted_objective_stays_on_its_device,
    test_every_estimator_stays_on_its_device,
    test_every_mask_stays_on_its_device,
    test_every_selection_stays_on_its_device,
    test_every_update_stays_on_its_device,
    test_low_rank_values_stay_on_their_device,
)


@pytest.fixture
def alike(frozen_tiny, tmp_path):
    """``alike(**tables)``: two steps of such a recipe give nearly the same on both devices."""

    def compare(bits=32, **tables):
        base = {"mask": {"rule": "random", "density": 0.02}, "loop": {"batch_size": 5, "seed": 5, "steps": 4},
                "model": {"bits": bits, "compute": "float32"}}  # fmt: skip
        # Models of their own: what tunes every weight moves those of the model.
        table = ModelTable(id=str(frozen_tiny("llama").source.folder), bits=bits, compute="float32")
        there, here = (finish(frozen.load(table.model_copy(update={"device": device}))) for device in ("cuda", "cpu"))
        (losses, values), (expected, others) = (
            steps(model, {**base, **tables}, tmp_path / model.device.type) for model in (there, here)
        )
        assert losses == pytest.approx(expected, rel=1e-3)
        # A difference of two losses, over 2ε, carries their rounding.
        assert torch.allclose(values, others, rtol=1e-2, atol=5e-3)

    return compare
