"""GGUF files as models: the same numbers, tokens and templates as the models that they were written from."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from sparsezo_gui.engine import frozen
from sparsezo_gui.engine.hub.cache import find
from sparsezo_gui.engine.pretrained.weights import Checkpoint
from sparsezo_gui.recipe.recipe import ModelTable
from tests import gguf_files
from tests.engine.conftest import finish
from tests.models import tiny

FAMILIES = ("llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "phi3", "gpt2", "stablelm", "starcoder2")
TALK = [{"role": "user", "content": "is it warm today?"}, {"role": "assistant", "content": "yes"}]
IDS = torch.tensor([[5, 70, 9, 200, 33, 4, 120, 287]])


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """``models(family)``: folder of a tiny model, and a GGUF file of it in fp32."""
    found = {}

    def made(family):
        if family not in found:
            folder = tiny(family, tmp_path_factory.mktemp("models") / family)
            found[family] = folder, gguf_files.write(folder, folder.parent / "model.gguf")
        return found[family]

    return made


def load(path, **options):
    return finish(frozen.load(ModelTable(id=str(path), device="cpu", **options)))


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_the_original(models, family):
    folder, file = models(family)
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    found = load(file, bits=32)
    with torch.no_grad():
        expected, logits = plain(IDS).logits, found.module(IDS).logits
    assert expected.std() > 0.1
    torch.testing.assert_close(logits, expected, rtol=0, atol=2e-6 if family.startswith(("gemma", "gpt2")) else 0)


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_are_the_original_ones(models, family):
    folder, file = models(family)
    source, original = (finish(find(ModelTable(id=str(place)))) for place in (file, folder))
    assert source.spec.linears == original.spec.linears and source.spec.shapes == original.spec.shapes
    assert (source.place, source.revision, source.prequantised) == (file, "", False)
    read, expected = Checkpoint(source), Checkpoint(original)
    for name in source.spec.shapes:
        torch.testing.assert_close(read.read(name), expected.read(name), rtol=0, atol=1e-7)
