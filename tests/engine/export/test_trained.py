"""The model as trained: plain transformers computes what the run computes."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from sparsezo_gui.engine import frozen
from sparsezo_gui.engine.export.trained import INDEX, export_trained
from sparsezo_gui.engine.generate import stream
from sparsezo_gui.engine.masks.random import Random
from sparsezo_gui.engine.masks.rule import Search
from sparsezo_gui.engine.spaces.sparse import SparseValues
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.recipe import DataTable, ModelTable
from tests.engine.conftest import finish
from tests.models import FAMILIES, tiny

PROMPT = torch.tensor([[10, 20, 30, 40]])


def tuned(folder, bits):
    """A frozen model of ``folder`` and an overlay on it whose values are far from where they started."""
    model = finish(frozen.load(ModelTable(id=str(folder), bits=bits, device="cpu")))
    overlay = SparseValues(model, finish(Random(density=0.05).find(model, Search(0, DataTable()))))
    overlay.values += 0.5 * torch.randn(overlay.values.shape, generator=torch.Generator().manual_seed(0))
    return model, overlay


def same(model, overlay, out):
    """Logits to rounding, and greedy tokens exactly."""
    plain = AutoModelForCausalLM.from_pretrained(out).eval()
    assert plain.dtype == torch.float32
    with torch.no_grad(), overlay.applied():
        assert torch.allclose(plain(PROMPT).logits, model.module(PROMPT).logits, rtol=1e-4, atol=1e-5)
        expected = list(stream(model, PROMPT, 12))
    options = {"attention_mask": torch.ones_like(PROMPT), "max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    assert plain.generate(PROMPT, **options)[0, 4:].tolist()[: len(expected)] == expected
    return plain


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("family", FAMILIES)
def test_plain_transformers_gives_the_same_tokens(family, bits, tmp_path):
    model, overlay = tuned(tiny(family, tmp_path / "base"), bits)
    finish(export_trained(model, overlay.changes(), tmp_path / "out"))
    plain = same(model, overlay, tmp_path / "out").state_dict()
    for name, layer in model.layers.items():
        with overlay.applied():
            wanted = layer.weight(torch.float32)
        assert torch.equal(plain[name].T if name in model.spec.transposed else plain[name], wanted), name


def test_shards_and_half_precision(tmp_path):
    base = tiny("qwen3", tmp_path / "base", dtype="bfloat16", shard="60KB")
    model, overlay = tuned(base, 4)
    finish(export_trained(model, overlay.changes(), tmp_path / "out", {"README.md": "# Card"}))
    same(model, overlay, tmp_path / "out")
    shards = {path.name for path in base.glob("*.safetensors")}
    assert {path.name for path in (tmp_path / "out").glob("*.safetensors")} == shards and len(shards) > 1
    index = json.loads((tmp_path / "out" / INDEX).read_text())
    assert index["weight_map"] == json.loads((base / INDEX).read_text())["weight_map"]
    assert (tmp_path / "out" / "README.md").read_text() == "# Card"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("bits", [4, 8])
def test_a_quantised_base_becomes_whole(bits, tmp_path):
    config = BitsAndBytesConfig(load_in_4bit=bits == 4, load_in_8bit=bits == 8, bnb_4bit_quant_type="nf4")
    base = AutoModelForCausalLM.from_pretrained(
        tiny("llama", tmp_path / "whole"), quantization_config=config, device_map="cpu"
    )
    base.save_pretrained(tmp_path / "base")
    for path in (tmp_path / "whole").glob("token*"):
        (tmp_path / "base" / path.name).write_bytes(path.read_bytes())
    model, overlay = tuned(tmp_path / "base", bits)
    finish(export_trained(model, overlay.changes(), tmp_path / "out"))
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text())
    same(model, overlay, tmp_path / "out")


def test_cancelling_leaves_nothing_behind(tmp_path):
    model, overlay = tuned(tiny("llama", tmp_path / "base"), 4)
    for pulls in (1, 8, 2 * len(model.spec.shapes) - 1):
        work = export_trained(model, overlay.changes(), tmp_path / "out")
        for _ in range(pulls):
            next(work)
        work.close()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "home"]


def test_a_full_folder_is_refused(tmp_path):
    model, overlay = tuned(tiny("llama", tmp_path / "base"), 4)
    with pytest.raises(UserError, match="already exists"):
        finish(export_trained(model, overlay.changes(), tmp_path / "base"))
