"""Adapters that PEFT loads beside the base model, with the logits of the run."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from sparsezo_gui.engine.export import adapter, export_run
from sparsezo_gui.engine.session.opening import open_session
from sparsezo_gui.errors import UserError
from tests import gguf_files
from tests.engine.conftest import finish
from tests.models import tiny

pytestmark = pytest.mark.filterwarnings(  # what peft 0.21 uses
    "ignore:.is_gradient_checkpointing:FutureWarning", "ignore:Sparse invariant checks:UserWarning"
)
TOKENS = torch.tensor([[10, 20, 30, 40]])
RULES = {
    "lora": {"rule": "lora", "rank": 3},
    "lora on some layers": {"rule": "lora", "rank": 40, "targets": ["k_proj", "down_proj", "c_attn"]},
    "one subspace": {"rule": "subspace", "rank": 3, "refresh": 0},
    "several subspaces": {"rule": "subspace", "rank": 3, "refresh": 2, "subspaces": 3},
    "activation subspace": {"rule": "activation-subspace", "rank": 2, "sequences": 2, "tokens": 32},
    "entries": {"rule": "random", "density": 0.05},
}


def loaded(base, folder):
    """What PEFT makes of an export."""
    peft = pytest.importorskip("peft")
    return peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder).eval()


@pytest.fixture
def run_of(trained):
    """A run of four steps that move the values far."""

    def made(rule, family="llama", **tables):
        mask = {key: value for key, value in RULES[rule].items() if key != "targets"}
        if targets := RULES[rule].get("targets"):
            mask["targets"] = [target for target in targets if (target == "c_attn") == (family == "gpt2")]
        return trained(
            f"{family} {rule}", family=family, mask=mask, model={"bits": 32}, loop={"steps": 4},
            update={"rule": "scalar-normalised", "learning_rate": 0.05}, data={"test": 2, "validation": 2},
        )  # fmt: skip

    return made


@pytest.mark.parametrize(
    ("family", "rule"),
    [*(("llama", rule) for rule in RULES), ("gpt2", "lora on some layers"), ("gpt2", "one subspace")],
)
def test_peft_computes_what_the_run_does(run_of, tmp_path, family, rule):
    run = run_of(rule, family)
    report = finish(export_run(run.path, "peft", tmp_path / "out"))
    assert report["told"][-1] == "In plain transformers, 2 of 2 prompts give the same tokens as in the run."
    session = finish(open_session(run))
    model = loaded(tmp_path / family, tmp_path / "out")
    with torch.no_grad(), session.tuned.applied():
        expected = session.model.module(TOKENS).logits
        found = model(TOKENS).logits
        assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)
        with model.disable_adapter():
            assert (model(TOKENS).logits - expected).abs().max() > 1e-2


def test_the_files_are_in_peft_s_own_form(run_of, tmp_path):
    """`peft` itself writes the same names, shapes and types."""
    for rule in ("lora on some layers", "entries"):
        run, out = run_of(rule), tmp_path / rule
        finish(export_run(run.path, "peft", out))
        loaded(tmp_path / "llama", out).save_pretrained(tmp_path / "theirs", save_embedding_layers=False)
        ours, theirs = (load_file(folder / "adapter_model.safetensors") for folder in (out, tmp_path / "theirs"))
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
        assert all(ours[key].dtype == theirs[key].dtype for key in ours)
        shutil.rmtree(tmp_path / "run")


def test_ranks_and_scales_that_differ_are_listed_by_layer(run_of, tmp_path):
    told = finish(export_run(run_of("lora on some layers").path, "peft", tmp_path / "out"))["told"]
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    names = [f"model.layers.{block}.{kind}" for block in (0, 1) for kind in ("mlp.down_proj", "self_attn.k_proj")]
    assert config["target_modules"] == names and told[0].startswith("LoRA adapter of rank 32 to 40: ")
    ranks = {name: config["rank_pattern"].get(name, config["r"]) for name in names}
    assert list(ranks.values()) == [40, 32, 40, 32]  # a rank is at most the smaller side of a weight
    assert all(config["alpha_pattern"].get(name, config["lora_alpha"]) == 2 * ranks[name] for name in names)
    assert (config["task_type"], config["bias"], config["inference_mode"]) == ("CAUSAL_LM", "none", True)
    assert (config["base_model_name_or_path"], config["fan_in_fan_out"]) == ("./llama", False)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "library_name: peft" in card and 'from_pretrained("./llama")' in card and "| accuracy |" in card


def test_subspaces_used_so_far_are_one_adapter_of_all_their_ranks(run_of, tmp_path):
    run = run_of("several subspaces")  # of rank 3, for two steps each
    for step, rank in ((2, 3), (4, 6)):
        told = finish(export_run(run.path, "peft", tmp_path / str(step), step))["told"]
        assert told[0].startswith(f"LoRA adapter of rank {rank}: ")


def test_single_weights_are_padded_with_free_places(run_of, tmp_path):
    session = finish(open_session(run_of("entries")))
    told = finish(export_run(tmp_path / "run", "peft", tmp_path / "out"))["told"]
    tensors = load_file(tmp_path / "out" / "adapter_model.safetensors")
    rank = json.loads((tmp_path / "out" / "adapter_config.json").read_text())["r"]
    padded = 0
    for name, part in session.tuned.slices.items():
        rows, columns = session.model.spec.linears[name]
        key = f"base_model.model.{name.removesuffix('.weight')}.shira_"
        (row, column), values = tensors[f"{key}indices"].long(), tensors[f"{key}weight"]
        flat = row * columns + column
        assert len(flat) == rank * (rows + columns) == len(flat.unique()) and torch.equal(flat, flat.sort().values)
        change = torch.zeros(rows * columns)
        change[session.tuned.indices[name].long()] = session.tuned.values[part] - session.tuned.start[part]
        assert torch.equal(values, change[flat]) and change.count_nonzero() == values.count_nonzero()
        padded += len(flat)
    assert told[0].startswith(f"SHiRA adapter of {padded:,} values, {session.tuned.values.numel():,} of them tuned: ")


def test_what_an_adapter_cannot_hold(run_of, trained, tmp_path):
    with pytest.raises(UserError, match=r"'transformer\.h\.0\.attn\.c_attn' is a Conv1D\. Export the run with"):
        finish(export_run(run_of("entries", "gpt2").path, "peft", tmp_path / "out"))
    shutil.rmtree(tmp_path / "run")
    dense = trained("dense", mask={"rule": "all"}, model={"bits": 32}, loop={"steps": 1}, data={"test": 2})
    with pytest.raises(UserError, match=r"this run tuned all weights\. Export it with --format hf"):
        finish(export_run(dense.path, "peft", tmp_path / "out"))
    shutil.rmtree(tmp_path / "run")
    most = trained("most", mask={"rule": "random", "density": 0.6}, model={"bits": 32}, loop={"steps": 1})
    with pytest.raises(UserError, match=r"needs r = \d+, which is more than .* \(32 × 64\) has weights"):
        finish(export_run(most.path, "peft", tmp_path / "out"))
    shutil.rmtree(tmp_path / "run")
    wide = {"rule": "subspace", "rank": 24, "refresh": 1, "subspaces": 4}
    many = trained("many", mask=wide, model={"bits": 32}, loop={"steps": 4}, data={"test": 2})
    assert finish(export_run(many.path, "peft", tmp_path / "first", 1))["step"] == 1
    with pytest.raises(UserError, match="the 4 subspaces that this run has used have rank 96"):
        finish(export_run(many.path, "peft", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_damaged_adapter_never_appears(run_of, tmp_path, monkeypatch):
    def spoiled(path, tensors, metadata):
        save_file({key: tensor + 1 for key, tensor in tensors.items()}, path, metadata)

    monkeypatch.setattr(adapter, "write", spoiled)
    with pytest.raises(RuntimeError, match="is not what was written"):
        finish(export_run(run_of("lora").path, "peft", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_an_adapter_that_computes_something_else_is_told(run_of, tmp_path, monkeypatch):
    monkeypatch.setattr(adapter, "_low_rank", lambda a, b, scale: lambda _, inputs, named, output: -output)
    told = finish(export_run(run_of("lora").path, "peft", tmp_path / "out"))["told"]
    assert "0 of 2 prompts give the same tokens" in told[-1]


def test_a_4_bit_run_says_what_differs(trained, tmp_path):
    run = trained("4 bits", mask={"rule": "lora"}, loop={"steps": 1}, data={"test": 8})
    told = finish(export_run(run.path, "peft", tmp_path / "out"))["told"]
    assert "give the same tokens as in the run." in told[-1]
    assert "8 of 8" in told[-1] or "the run used 4-bit weights and the export has the original ones" in told[-1]


def test_a_run_on_a_gguf_file_gives_an_adapter_for_the_model_it_was_made_of(trained, tmp_path):
    file = gguf_files.write(tiny("llama", tmp_path / "llama"), tmp_path / "tiny.gguf")
    run = trained(
        "gguf", mask=RULES["lora"], model={"id": str(file), "bits": 32}, loop={"steps": 2}, data={"test": 2},
        update={"rule": "scalar-normalised", "learning_rate": 0.05},
    )  # fmt: skip
    told = finish(export_run(run.path, "peft", tmp_path / "out"))["told"]
    assert told[-1] == "In plain transformers, 2 of 2 prompts give the same tokens as in the run."
    session, model = finish(open_session(run)), loaded(tmp_path / "llama", tmp_path / "out")
    with torch.no_grad(), session.tuned.applied():
        assert torch.allclose(model(TOKENS).logits, session.model.module(TOKENS).logits, rtol=1e-5, atol=1e-5)
