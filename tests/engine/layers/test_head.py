"""Logits in chunks are those of the whole, for every architecture and whatever it does after its head."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from sparsezo_gui.engine import forward, frozen
from sparsezo_gui.engine.data.encode import Row
from sparsezo_gui.engine.forward import Pack, log_probabilities
from sparsezo_gui.engine.layers.head import split_pass
from sparsezo_gui.recipe.recipe import ModelTable
from tests.engine.conftest import finish
from tests.models import FAMILIES, VOCABULARY, tiny

AFTER = {  # families that do something after their head, and by which setting
    "gemma2": {"final_logit_softcapping": 3.0},
    "gemma3": {"final_logit_softcapping": 3.0},
    "cohere": {"logit_scale": 0.25},
    "granite": {"logits_scaling": 4.0},
    "opt": {"word_embed_proj_dim": 32},
}
MORE = {
    "cohere": {**FAMILIES["llama"], "model_type": "cohere", "tie_word_embeddings": True},
    "granite": {**FAMILIES["llama"], "model_type": "granite"},
}


@pytest.fixture
def model(tmp_path, monkeypatch):
    def load(family, **overrides):
        monkeypatch.setitem(FAMILIES, family, {**FAMILIES.get(family, {}), **MORE.get(family, {})})
        folder = tiny(family, tmp_path / family, **overrides)
        return finish(frozen.load(ModelTable(id=str(folder), bits=32, device="cpu")))

    return load


def pack(alike=0):
    """Three sequences of 7, 7 and 11 tokens after ``alike`` common ones, all of whose places are scored, some twice."""
    draw = torch.Generator().manual_seed(2)
    start = torch.randint(3, VOCABULARY, (alike,), generator=draw).tolist()
    rows = []
    for size in (7, 7, 11):
        tokens = (*start, *torch.randint(3, VOCABULARY, (size,), generator=draw).tolist())
        places = (*range(len(tokens)), len(tokens) - 1)
        rows.append(Row(tokens, places, tuple(9 + place for place in places), (0,) * len(places)))
    return Pack.of(rows, alike, torch.device("cpu")), rows


def expected(model, rows):
    """By transformers alone: one sequence at a time, all logits at once."""
    found = []
    for row in rows:
        logits = model.module(torch.tensor([row.tokens])).logits[0].float().log_softmax(-1)
        found.append(logits[list(row.positions), list(row.targets)])
    return torch.cat(found)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("family", [*FAMILIES, *AFTER])
@torch.no_grad()
def test_chunks_of_any_size_give_what_transformers_gives(model, family, padded, monkeypatch):
    loaded = model(family, **AFTER.get(family, {}))
    packed, rows = pack(0 if padded else 4)
    whole = expected(loaded, rows)
    if padded:
        monkeypatch.setattr(forward, "packs", lambda module: False)
    for places in (1000, 5, 1):
        monkeypatch.setattr(forward, "LOGITS_BYTES", places * 4 * VOCABULARY)
        assert torch.allclose(log_probabilities(loaded, packed, 1)[0], whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_in_chunks_are_those_of_the_whole(model, family, monkeypatch):
    loaded, (packed, rows) = model(family), pack()
    norm = next(each for each in loaded.module.parameters() if each.dim() == 1).requires_grad_()
    (whole,) = torch.autograd.grad(expected(loaded, rows).sum(), norm)
    for places in (1000, 5):
        monkeypatch.setattr(forward, "BACKWARD_LOGITS_BYTES", places * 4 * VOCABULARY)
        (found,) = torch.autograd.grad(log_probabilities(loaded, packed, 1).sum(), norm)
        assert torch.allclose(found, whole, rtol=1e-4, atol=1e-4 * float(whole.abs().max()))


@pytest.mark.parametrize("backwards", [False, True])
def test_no_more_than_a_chunk_of_logits_is_ever_made(model, backwards, monkeypatch):
    loaded, (packed, _) = model("llama"), pack()
    monkeypatch.setattr(forward, "BACKWARD_LOGITS_BYTES" if backwards else "LOGITS_BYTES", 5 * 4 * VOCABULARY)
    seen = []
    loaded.module.lm_head.register_forward_hook(lambda _head, _inputs, out: seen.append(out.shape[1]))
    with torch.set_grad_enabled(backwards):
        loaded.module.model.norm.weight.requires_grad_(backwards)
        found = log_probabilities(loaded, packed, 1)
        if backwards:
            found.sum().backward()
    assert max(seen) == 5 and sum(seen) == 25 * (1 + backwards), "on the way back they are made again"


@torch.no_grad()
def test_an_own_class_gives_its_logits_as_a_whole(model):
    loaded = model("llama")
    ids = torch.tensor([[5, 6, 7]])
    logits, head = split_pass(loaded.module, None, input_ids=ids)
    assert torch.equal(head(logits), loaded.module(ids).logits)


def test_the_body_is_what_calls_the_blocks(model):
    loaded = model("opt")
    assert loaded.body is loaded.module.model.decoder
    foreign = dataclasses.replace(loaded, source=dataclasses.replace(loaded.source, code=Own()))
    assert foreign.body is None


class Own:
    def has(self, _name):
        return True
