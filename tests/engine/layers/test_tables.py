"""Embeddings and head in the checkpoint's own 16 bits: the same numbers as whole ones, in half the memory."""

from __future__ import annotations

import pytest
import torch

from sparsezo_gui.engine import frozen
from sparsezo_gui.engine.generate import complete
from sparsezo_gui.engine.layers import tables
from sparsezo_gui.engine.pretrained.weights import Checkpoint
from sparsezo_gui.recipe.recipe import ModelTable
from tests.engine.conftest import finish
from tests.models import FAMILIES, VOCABULARY, tiny


@pytest.fixture
def pair(tmp_path, monkeypatch):
    """``pair(family, dtype, bits)``: the model with its tables whole, and with those that have 16 bits in the file."""

    def load(family, dtype="bfloat16", bits=4):
        folder, found = tiny(family, tmp_path / "model", dtype=dtype), []
        for large in (2**60, 0):
            monkeypatch.setattr(tables, "LARGE", large)
            found.append(finish(frozen.load(ModelTable(id=str(folder), bits=bits, device="cpu"))))
        return found

    return load


def ends(model):
    return model.module.get_input_embeddings(), model.module.get_output_embeddings()


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_gradients_are_those_of_whole_tables(pair, family, monkeypatch):
    monkeypatch.setattr("sparsezo_gui.engine.layers.linear.LARGE_BYTES", 0)
    monkeypatch.setattr("sparsezo_gui.engine.layers.linear.SPAN_BYTES", 50 * 4 * 64)  # spans of fifty tokens
    whole, own = pair(family)
    ids = torch.tensor([[5, 6, 7, 200, 287]])
    found = []
    for model in (whole, own):
        norm = next(each for each in model.module.parameters() if each.dim() == 1).requires_grad_()
        logits = model.module(ids).logits
        (gradient,) = torch.autograd.grad(logits.log_softmax(-1)[..., 3].sum(), norm)
        found.append((logits.detach(), gradient))
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-5 * float(one.abs().max()))
    assert [type(end).__name__ for end in ends(whole)][1] == "Linear"
    assert all(end.table.dtype == torch.bfloat16 for end in ends(own))
    tied = len({end.table.data_ptr() for end in ends(own)}) == 1
    assert tied == own.spec.tied and len(own.spec.tables) == 2 - tied


def test_what_has_32_bits_in_the_file_keeps_them(pair):
    _, model = pair("llama", "float32")
    assert all(end.weight.dtype == torch.float32 and len(end.weight) == VOCABULARY for end in ends(model))


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_any_number_of_bits_holds_them_so(pair, bits):
    whole, own = pair("qwen3", "float16", bits)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        assert torch.allclose(whole.module(ids).logits, own.module(ids).logits, rtol=1e-5, atol=1e-5)
    assert own.vocabulary == whole.vocabulary == VOCABULARY
    assert own.module.get_input_embeddings().table.dtype == torch.float16


def test_small_tables_other_devices_and_other_types_stay_as_they_are(pair):
    _, own = pair("llama")
    assert tables.narrow(own.spec, torch.float32, "cpu") == own.spec.tables
    assert not tables.narrow(own.spec, torch.bfloat16, "cpu")
    assert not tables.narrow(own.spec, torch.float32, "cuda")
    assert set(tables.own_types(Checkpoint(own.source), own.spec.tables).values()) == {torch.bfloat16}


def test_no_row_gives_no_logit(pair):
    _, own = pair("llama")
    assert ends(own)[1](torch.zeros(1, 0, 64)).shape == (1, 0, VOCABULARY)


def test_text_is_written_as_with_whole_tables(pair):
    whole, own = pair("gemma3")
    found = [list(complete(model, [[5, 6, 7], [9, 8]], 4)) for model in (whole, own)]
    assert found[0] == found[1]
