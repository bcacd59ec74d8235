"""Tensors by parameter name, headers that lie, and fingerprints."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from sparsezo_gui.engine.pretrained.source import inspect
from sparsezo_gui.engine.pretrained.weights import Checkpoint, read_header
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.recipe import ModelTable
from tests.models import FAMILIES, module, tiny


def opened(folder):
    return Checkpoint(inspect(folder, ModelTable(id=str(folder))))


@pytest.mark.parametrize("shard", ["5GB", "60KB"])
@pytest.mark.parametrize("family", FAMILIES)
def test_read_gives_the_parameter_of_the_plain_model(family, shard, tmp_path):
    checkpoint = opened(tiny(family, tmp_path, shard=shard))
    assert (len(checkpoint.files) > 1) == (shard == "60KB")
    model = module(family)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        wanted = parameter.T if name in checkpoint.spec.transposed else parameter
        assert torch.equal(checkpoint.read(name), wanted), name
        assert checkpoint.shape(name) == tuple(wanted.shape)


@pytest.mark.parametrize(("family", "prefix"), [("gpt2", "transformer."), ("opt", "model."), ("llama", "model.")])
def test_names_without_the_base_models_prefix(family, prefix, tmp_path):
    path = tiny(family, tmp_path) / "model.safetensors"
    save_file({name.removeprefix(prefix): tensor for name, tensor in load_file(path).items()}, path)
    checkpoint = opened(tmp_path)
    for name, parameter in module(family).named_parameters():
        assert not checkpoint.key(name).startswith(prefix)
        assert torch.equal(checkpoint.read(name), parameter.T if name in checkpoint.spec.transposed else parameter)


def test_of_two_tied_tensors_either_will_do(tmp_path):
    path = tiny("qwen3", tmp_path) / "model.safetensors"
    tensors = load_file(path)
    table = tensors.pop("model.embed_tokens.weight")
    save_file({**tensors, "lm_head.weight": table}, path)
    checkpoint = opened(tmp_path)
    assert checkpoint.key("model.embed_tokens.weight") == checkpoint.key("lm_head.weight") == "lm_head.weight"
    assert torch.equal(checkpoint.read("model.embed_tokens.weight"), table)


def test_the_original_dtype_is_kept(tmp_path):
    assert opened(tiny("llama", tmp_path, dtype="bfloat16")).read("model.norm.weight").dtype == torch.bfloat16


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("bits", [4, 8])
def test_a_quantised_checkpoint_reads_as_what_it_stands_for(family, bits, tmp_path):
    config = BitsAndBytesConfig(load_in_4bit=bits == 4, load_in_8bit=bits == 8, bnb_4bit_quant_type="nf4",
                                bnb_4bit_use_double_quant=True)  # fmt: skip
    base = tiny(family, tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(base, quantization_config=config, device_map="cpu")
    model.save_pretrained(tmp_path / "quantised")
    source = inspect(tmp_path / "quantised", ModelTable(id="quantised"))
    assert source.prequantised
    checkpoint, plain = Checkpoint(source), opened(base)
    for name, shape in source.spec.linears.items():
        found, wanted = checkpoint.read(name), plain.read(name)
        assert checkpoint.shape(name) == tuple(found.shape) == shape
        assert found.dtype == torch.float32
        assert (found - wanted).norm() < (0.12 if bits == 4 else 0.01) * wanted.norm()
    assert torch.equal(checkpoint.read("lm_head.weight"), plain.read("lm_head.weight"))


def test_the_fingerprint_tells_models_apart_and_does_not_mind_how_they_are_cut(tmp_path):
    whole = opened(tiny("llama", tmp_path / "whole")).fingerprint()
    assert len(whole) == 64
    assert opened(tiny("llama", tmp_path / "cut", shard="60KB")).fingerprint() == whole
    assert opened(tiny("llama", tmp_path / "other", seed=1)).fingerprint() != whole
    assert opened(tiny("llama", tmp_path / "half", dtype="bfloat16")).fingerprint() != whole


def test_the_fingerprint_sees_a_sparse_change(tmp_path):
    path = tiny("llama", tmp_path) / "model.safetensors"
    before, tensors = opened(tmp_path).fingerprint(), load_file(path)
    generator = torch.Generator().manual_seed(0)
    for tensor in tensors.values():
        if tensor.dim() > 1:
            tensor.view(-1)[torch.randint(tensor.numel(), (tensor.numel() // 100,), generator=generator)] += 0.01
    save_file(tensors, path)
    assert opened(tmp_path).fingerprint() != before


def test_a_missing_weight_is_named(tmp_path):
    path = tiny("llama", tmp_path) / "model.safetensors"
    save_file({name: tensor for name, tensor in load_file(path).items() if "layers.1.mlp.up" not in name}, path)
    with pytest.raises(UserError, match=r"lacks the weight 'model\.layers\.1\.mlp\.up_proj\.weight'"):
        opened(tmp_path)


def test_a_weight_of_another_shape_is_named(tmp_path):
    path = tiny("llama", tmp_path) / "model.safetensors"
    save_file({**load_file(path), "model.norm.weight": torch.ones(63)}, path)
    with pytest.raises(UserError, match=r"'model\.norm\.weight' has the shape \[63\], .* requires \[64\]"):
        opened(tmp_path)


def raw(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "header claims"),
        (b"\x05\0\0", "header claims"),
        (raw({}, length=2**63), "header claims"),
        (raw(b"{nonsense"), "not valid JSON"),
        (raw(b"\xff\xfe"), "not valid JSON"),
        (raw(b"[" * 100_000), "not valid JSON"),
        (raw(b'{"a": 1, "a": 2}'), "not valid JSON"),
        (raw([1]), "not a table"),
        (raw({"a": 7}), "not described by"),
        (raw({"a": {**entry(), "more": 1}}, bytes(8)), "not described by"),
        (raw({"a": entry("F4")}, bytes(8)), "number format 'F4'"),
        (raw({"a": entry(shape=(-2,))}, bytes(8)), "whole numbers"),
        (raw({"a": entry(shape=(True, 2))}, bytes(8)), "whole numbers"),
        (raw({"a": entry(shape=(2**62,) * 100_000)}, bytes(8)), "a few whole numbers"),
        (raw({"a": entry(shape=(2**62, 2**62))}, bytes(8)), "does not match its number of bytes"),
        (raw({"a": entry(offsets=(8, 0))}, bytes(8)), "does not match its number of bytes"),
        (raw({"a": entry(offsets=(8, 16))}, bytes(16)), "do not start where"),
        (raw({"a": entry(), "b": entry(offsets=(4, 12))}, bytes(12)), "do not start where"),
        (raw({"a": entry()}, bytes(7)), "need"),
        (raw({"a": entry()}, bytes(9)), "need"),
    ],
)
def test_a_header_that_lies_is_refused(content, reason, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=reason) as error:
        read_header(path)
    assert str(path) in str(error.value)


@given(data=st.data())
@settings(max_examples=200)
def test_any_damage_gives_a_sentence_or_a_readable_file(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "model.safetensors"
    save_file({"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}, path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    try:
        entries = read_header(path)
    except UserError:
        return
    for each in entries.values():
        tensor = each.read()
        assert tensor.shape == each.shape and tensor.dtype == each.dtype


def test_a_file_that_shrinks_under_the_reader(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(1000)}, path)
    found = read_header(path)["a"]
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UserError, match="became shorter"):
        dataclasses.replace(found).read()
