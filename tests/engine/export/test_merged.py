"""The merged model is the original, but for the tuned places."""

from __future__ import annotations

import json
from collections import namedtuple

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from sparsezo_gui.engine import drafts
from sparsezo_gui.engine.export import merged
from sparsezo_gui.engine.export.merged import export_merged
from sparsezo_gui.engine.pretrained import folder
from sparsezo_gui.engine.pretrained.source import inspect
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.recipe import ModelTable
from tests.engine.conftest import finish
from tests.models import FAMILIES, tiny


def source_of(folder):
    return inspect(folder, ModelTable(id=str(folder)))


def some_changes(source, share=0.01, seed=0):
    """Random places of every eligible weight, with values far from the original."""
    generator = torch.Generator().manual_seed(seed)
    changes = {}
    for name, (rows, columns) in source.spec.linears.items():
        count = max(1, round(share * rows * columns))
        indices = torch.randperm(rows * columns, generator=generator)[:count].sort().values.int()
        changes[name] = indices, 3 + torch.randn(count, generator=generator)
    return changes


def loaded(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()


@pytest.mark.parametrize(("dtype", "shard"), [("float32", "5GB"), ("bfloat16", "60KB")])
@pytest.mark.parametrize("family", FAMILIES)
def test_it_loads_in_transformers_and_differs_only_where_it_was_tuned(family, dtype, shard, tmp_path):
    base = tiny(family, tmp_path / "base", dtype=dtype, shard=shard)
    source = source_of(base)
    changes = some_changes(source)
    done = finish(export_merged(source, changes, tmp_path / "out"))
    assert done.tuned == done.moved == sum(len(indices) for indices, _ in changes.values())
    before, after = loaded(base).state_dict(), loaded(tmp_path / "out").state_dict()
    assert before.keys() == after.keys()
    for name, tensor in after.items():
        wanted = before[name].clone()
        assert tensor.dtype == wanted.dtype
        if name in changes:
            indices, values = changes[name]
            wanted = wanted.T.contiguous() if name in source.spec.transposed else wanted
            wanted.view(-1)[indices.long()] = values.to(wanted.dtype)
            wanted = wanted.T if name in source.spec.transposed else wanted
        assert torch.equal(tensor, wanted), name


def test_files_names_and_layout_are_those_of_the_base(tmp_path):
    base = tiny("llama", tmp_path / "base", shard="60KB")
    (base / "LICENSE").write_text("do as you like")
    (base / "README.md").write_text("the base's card")
    (base / "pytorch_model.bin").touch()
    (base / "training_args.bin").touch()
    source = source_of(base)
    finish(export_merged(source, some_changes(source), tmp_path / "out", {"README.md": "# Card"}))
    names = {path.name for path in base.iterdir()} - {"pytorch_model.bin", "training_args.bin"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    assert (tmp_path / "out" / "README.md").read_text() == "# Card"
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == (base / "chat_template.jinja").read_text()
    for path in base.glob("*.safetensors"):
        with safe_open(path, "pt") as first, safe_open(tmp_path / "out" / path.name, "pt") as second:
            assert list(first.keys()) == list(second.keys()) and first.metadata() == second.metadata()
    text = "the cat sat"
    base_ids, ids = (AutoTokenizer.from_pretrained(place)(text).input_ids for place in (base, tmp_path / "out"))
    assert base_ids == ids


def test_a_tied_head_stays_tied(tmp_path):
    base = tiny("qwen3", tmp_path / "base")
    source = source_of(base)
    finish(export_merged(source, some_changes(source), tmp_path / "out"))
    assert "lm_head.weight" not in load_file(tmp_path / "out" / "model.safetensors")
    model = loaded(tmp_path / "out")
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_no_change_gives_the_same_bytes(tmp_path):
    base = tiny("llama", tmp_path / "base", dtype="float16")
    finish(export_merged(source_of(base), {}, tmp_path / "out"))
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (base / "model.safetensors").read_bytes()


def test_changes_lost_to_rounding_are_counted(tmp_path):
    source = source_of(tiny("llama", tmp_path / "base", dtype="bfloat16"))
    name = next(iter(source.spec.linears))
    weight = load_file(tmp_path / "base" / "model.safetensors")[name].view(-1)[:4].float()
    values = weight * torch.tensor([1.0, 1 + 1e-5, 2.0, 2.0])
    done = finish(export_merged(source, {name: (torch.arange(4, dtype=torch.int32), values)}, tmp_path / "out"))
    assert (done.tuned, done.moved) == (4, 2)


def test_an_empty_folder_will_do_and_a_full_one_will_not(tmp_path):
    source = source_of(tiny("llama", tmp_path / "base"))
    (tmp_path / "out").mkdir()
    finish(export_merged(source, {}, tmp_path / "out"))
    with pytest.raises(UserError, match="already exists"):
        finish(export_merged(source, {}, tmp_path / "out"))
    with pytest.raises(UserError, match="already exists"):
        finish(export_merged(source, {}, tmp_path / "base" / "config.json"))


def test_cancelling_leaves_nothing_behind(tmp_path):
    source = source_of(tiny("llama", tmp_path / "base"))
    work = export_merged(source, some_changes(source), tmp_path / "out")
    stages = set()
    while len(stages) < 3:
        stages.add(next(work).stage)
    assert any(path.name.startswith(drafts.PREFIX) for path in tmp_path.iterdir())
    work.close()
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []


def test_a_disk_too_small(tmp_path, monkeypatch):
    source = source_of(tiny("llama", tmp_path / "base"))
    monkeypatch.setattr(folder.shutil, "disk_usage", lambda _: namedtuple("Usage", "free")(1000))
    with pytest.raises(UserError, match="only 1 KiB are free"):
        finish(export_merged(source, {}, tmp_path / "out"))


def test_a_disk_that_fills_up(tmp_path, monkeypatch):
    source = source_of(tiny("llama", tmp_path / "base"))

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder, "sync", full)
    with pytest.raises(UserError, match="the disk is full"):
        finish(export_merged(source, {}, tmp_path / "out"))
    assert not any("out" in path.name for path in tmp_path.iterdir())


def test_changes_of_another_model(tmp_path):
    source = source_of(tiny("llama", tmp_path / "base"))
    with pytest.raises(UserError, match=r"has no weight 'transformer\.h'"):
        finish(export_merged(source, {"transformer.h": (torch.tensor([0]), torch.tensor([1.0]))}, tmp_path / "out"))


@pytest.mark.filterwarnings("ignore")
def test_a_quantised_base_is_refused(tmp_path):
    base = tiny("llama", tmp_path / "base")
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    AutoModelForCausalLM.from_pretrained(base, quantization_config=config, device_map="cpu").save_pretrained(
        tmp_path / "quantised"
    )
    with pytest.raises(UserError, match="no original weights to merge into"):
        finish(export_merged(source_of(tmp_path / "quantised"), {}, tmp_path / "out"))


def test_a_copy_that_went_wrong_never_appears(tmp_path, monkeypatch):
    source = source_of(tiny("llama", tmp_path / "base"))
    copy = merged.copy_companions

    def spoil(folder, draft, *rest):
        copy(folder, draft, *rest)
        path = draft / "model.safetensors"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)

    monkeypatch.setattr(merged, "copy_companions", spoil)
    with pytest.raises(RuntimeError, match="differs"):
        finish(export_merged(source, some_changes(source), tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_the_index_is_carried_over(tmp_path):
    base = tiny("llama", tmp_path / "base", shard="60KB")
    finish(export_merged(source_of(base), {}, tmp_path / "out"))
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == {path.name for path in (tmp_path / "out").glob("*.safetensors")}
