"""The comparisons that the method stands on (see tests/engine/test_correctness.py), on every family, on the GPU."""

from __future__ import annotations

import pytest
import torch

from sparsezo_gui.engine.data.tokenise import prompt_tokens
from sparsezo_gui.engine.generate import stream
from sparsezo_gui.engine.masks.random import Random
from sparsezo_gui.engine.objective import measure
from sparsezo_gui.engine.runs.gradients import rounded
from sparsezo_gui.engine.spaces.sparse import SparseValues
from sparsezo_gui.engine.zo import generator
from tests.engine.conftest import finish
from tests.engine.test_correctness import (  # noqa: F401
    SEARCH,
    batch,
    families,
    test_a_common_beginning_is_computed_once,
    test_a_mask_of_ones_reproduces_mezo,
    test_overlay_forward_equals_dense_forward_with_edited_weights,
    test_packed_rows_equal_single_rows,
    test_streamed_squared_gradients_equal_autograd,
)
from tests.gpu.conftest import GPU


@families
def test_16_bits_are_near_fp32(frozen_tiny, family):
    """What a GPU computes in where nothing else is asked for."""
    model, exact = frozen_tiny(family, 4, "auto"), frozen_tiny(family, 4)
    assert model.dtype in (torch.bfloat16, torch.float16)
    overlays = [SparseValues(each, finish(Random(density=0.05).find(each, SEARCH))) for each in (model, exact)]
    losses = []
    for tuned in overlays:
        with tuned.applied():
            losses.append(measure(tuned.model, batch()).loss)
    assert torch.allclose(*losses, rtol=3e-2)


@families
def test_text_is_the_cpus(frozen_tiny, family):
    model = frozen_tiny(family, 32)
    module, ids = model.module, torch.tensor([prompt_tokens("the cat sat", model.tokenizer)])
    tokens, ids = list(stream(model, ids, 8)), ids.to(GPU)
    for token in tokens:
        assert int(module(input_ids=ids).logits[0, -1].argmax()) == token
        ids = torch.cat((ids, torch.tensor([[token]], device=GPU)), dim=1)


@pytest.mark.parametrize("draw", [generator.normal, generator.signs, generator.uniform])
def test_random_numbers_are_the_cpus_to_the_bit(draw):
    here, there = draw(2**40 + 7, 3, 1, 1_000_003), draw(2**40 + 7, 3, 1, 1_000_003, GPU)
    assert there.device == GPU and torch.equal(here, there.cpu())


def test_gradients_in_16_bits_are_the_cpus_to_the_bit():
    numbers = torch.randn(100_003) * torch.logspace(-45, 30, 100_003)
    here, there = rounded(numbers), rounded(numbers.to(GPU))
    assert here.exponent == there.exponent and here.numbers.tobytes() == there.numbers.tobytes()
    assert torch.equal(here.unpacked(numbers), there.unpacked(numbers.to(GPU)).cpu())


def test_rounding_by_chance_is_the_cpus_to_the_bit():
    assert torch.equal(generator.rounding(9, 4, 70_001), generator.rounding(9, 4, 70_001, GPU).cpu())
