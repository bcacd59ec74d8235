"""Runs that continue from something tuned: the result is one tuning after the other."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from sparsezo_gui.engine import training
from sparsezo_gui.engine.export import export_run
from sparsezo_gui.engine.export.overlay_file import read_overlay
from sparsezo_gui.engine.hub.cache import find
from sparsezo_gui.engine.hub.library import local_models, summary
from sparsezo_gui.engine.pretrained.gguf.header import read_gguf
from sparsezo_gui.engine.pretrained.weights import Checkpoint
from sparsezo_gui.engine.runs.folder import open_run
from sparsezo_gui.engine.session.opening import open_session
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import paths
from sparsezo_gui.recipe.recipe import ModelTable
from tests import gguf_files
from tests.engine.conftest import finish
from tests.models import tiny

pytestmark = pytest.mark.filterwarnings(  # what peft 0.21 uses
    "ignore:.is_gradient_checkpointing:FutureWarning", "ignore:Sparse invariant checks:UserWarning"
)
TOKENS = torch.tensor([[10, 20, 30, 40]])
MASKS = {"entries": {"rule": "random", "density": 0.02}, "lora": {"rule": "lora", "rank": 2}}
FAR = {"rule": "scalar-normalised", "learning_rate": 0.05}
EXPORTS = {"entries": ("overlay", "peft", "hf"), "lora": ("peft", "hf")}


@pytest.fixture
def first(trained):
    """``first(kind, family)``: a run of 'entries' or 'lora' that moved far, in the folder 'run'."""

    def made(kind, family="llama"):
        return trained(
            f"{family} {kind}", family=family, mask=MASKS[kind], model={"bits": 32}, loop={"steps": 4},
            update=FAR, data={"test": 2, "validation": 2},
        )  # fmt: skip

    return made


def logits_of(run):
    session = finish(open_session(run))
    with torch.no_grad(), session.tuned.applied():
        return session.model.module(TOKENS).logits


def weights_of(run):
    """The weights of a run, fp32, by name: those of the model with the run's changes."""
    session = finish(open_session(run))
    found = {name: session.model.checkpoint.read(name).float() for name in session.model.source.spec.shapes}
    for name, (indices, values) in session.tuned.changes().items():
        found[name].view(-1)[indices.long()] = values
    return found


def plain(folder, bottom=None):
    """Weights of an exported folder in plain transformers; with ``bottom``, of an adapter on it."""
    if bottom is None:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    peft = pytest.importorskip("peft")
    return peft.PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(bottom, dtype=torch.float32), folder
    ).merge_and_unload()


def loaded(id):
    """The weights of the model ``id``, as a run starts with them, by name."""
    source = finish(find(ModelTable(id=str(id))))
    checkpoint = Checkpoint(source)
    return {name: checkpoint.read(name) for name in source.spec.shapes}


def alike(found, expected, tolerance=2e-6):
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert torch.allclose(found[name], weight, atol=tolerance), name


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("kind", MASKS)
def test_every_export_and_every_step_is_the_same_model_again(first, tmp_path, kind, family):
    run = first(kind, family)
    expected = weights_of(run)
    base = loaded(tmp_path / family)
    assert max(float((base[name] - expected[name]).abs().max()) for name in base) > 1e-2
    alike(loaded(f"run:{run.path}@4"), expected, 0 if kind == "entries" else 2e-6)
    alike(loaded(f"run:{run.path}@0"), base, 0)
    for form in EXPORTS[kind]:
        if (form, kind, family) == ("peft", "entries", "gpt2"):
            continue  # which PEFT does not have
        out = tmp_path / f"out.{form}" if form != "overlay" else tmp_path / "out.safetensors"
        finish(export_run(run.path, form, out))
        alike(loaded(out), expected)


@pytest.mark.parametrize("bits", [4, pytest.param(8, marks=pytest.mark.slow), pytest.param(16, marks=pytest.mark.slow)])
def test_what_is_loaded_is_the_merged_model_in_so_many_bits(first, tmp_path, bits):
    """The bits are those of the exported merged folder."""
    from sparsezo_gui.engine import frozen

    run = first("lora")
    finish(export_run(run.path, "hf", tmp_path / "merged"))
    models = [
        finish(frozen.load(ModelTable(id=id, bits=bits, device="cpu")))
        for id in (f"run:{run.path}@4", str(tmp_path / "merged"))
    ]
    for name in models[0].layers:
        first_, second = (model.layers[name].frozen.dense(torch.float32) for model in models)
        assert (first_ != second).float().mean() < 0.005, (
            name
        )  # B·A is summed in another order, so a last bit may differ
    with torch.no_grad():
        found, expected = (model.module(TOKENS).logits for model in models)
    assert torch.allclose(found, expected, atol={4: 0.2, 8: 0.05, 16: 0.05}[bits])


@pytest.fixture
def second(first, make, tmp_path):
    """``second(below, above)``: a run of one kind, continued from one of the other kind, resumed once."""

    def made(below, above):
        run = first(below)
        chosen = make(
            mask=MASKS[above], model={"id": f"run:{run.path}@4", "bits": 32}, loop={"steps": 4, "seed": 8}, update=FAR,
            data={"test": 2, "validation": 2},
        )  # fmt: skip
        folder = tmp_path / "second"
        list(training.train(chosen, folder=folder))
        return open_run(folder)

    return made


@pytest.mark.parametrize(
    ("below", "above", "forms"),
    [
        ("entries", "entries", ("overlay", "peft", "hf")),
        pytest.param("lora", "lora", ("peft", "hf"), marks=pytest.mark.slow),
        pytest.param("lora", "entries", ("hf",), marks=pytest.mark.slow),
        pytest.param("entries", "lora", ("hf",), marks=pytest.mark.slow),
    ],
)
def test_an_export_contains_both_tunings(second, tmp_path, below, above, forms):
    run = second(below, above)
    expected, logits = weights_of(run), logits_of(run)
    before = weights_of(open_run(tmp_path / "run"))
    assert max(float((before[name] - expected[name]).abs().max()) for name in before) > 1e-2
    for form in ("overlay", "peft", "hf"):
        out = tmp_path / f"both-{form}{'.safetensors' if form == 'overlay' else ''}"
        if form not in forms:
            with pytest.raises(UserError, match=r"cannot hold both|stores single weights"):
                finish(export_run(run.path, form, out))
            assert not out.exists()
            continue
        finish(export_run(run.path, form, out))
        if form == "overlay":
            overlay, model = read_overlay(out), plain(tmp_path / "llama")
            for name, (indices, values) in overlay.changes.items():
                model.get_parameter(name).data.view(-1)[indices.long()] = values
            card = overlay.card
        else:
            model = plain(out, tmp_path / "llama" if form == "peft" else None)
            card = (out / "README.md").read_text()
        found = {name: model.get_parameter(name).detach() for name in expected}
        alike(found, expected)
        with torch.no_grad():
            assert torch.allclose(model.eval()(TOKENS).logits, logits, atol=1e-4)
        assert "`./llama` fine-tuned" in card and str(tmp_path) not in card
        assert "It started from step 4 of the run tiny, on top of that model; the result contains both." in card


def test_a_run_on_a_run_resumes_and_verifies(second, tmp_path, home):
    run = second("lora", "entries")
    values = finish(open_session(run)).tuned.hash()
    shutil.rmtree(home / "tuned")  # may be removed: it is rebuilt
    assert finish(open_session(run)).tuned.hash() == values
    assert finish(open_session(run, from_checkpoints=False)).tuned.hash() == values
    list(training.resume(run.path))
    other = finish(find(ModelTable(id=f"run:{tmp_path / 'run'}@3")))
    assert Checkpoint(other).fingerprint() != run.facts.fingerprint
    three = open_run(tmp_path / "second")
    assert loaded(f"run:{three.path}@4").keys() == weights_of(three).keys()
    alike(loaded(f"run:{three.path}@4"), weights_of(three))  # three deep


def test_only_the_weights_of_the_base_are_on_top_of(first, tmp_path):
    run = first("entries")
    finish(export_run(run.path, "overlay", tmp_path / "o.safetensors"))
    tiny("llama", tmp_path / "llama2", seed=1)
    for name in ("model.safetensors",):
        shutil.copy(tmp_path / "llama2" / name, tmp_path / "llama" / name)
    for id in (tmp_path / "o.safetensors", f"run:{run.path}@4"):
        with pytest.raises(UserError, match=r"weights of that model on this computer are others|not the weights that"):
            loaded(id)


@pytest.mark.parametrize("kind", MASKS)
def test_gguf_files_contain_both_tunings(second, tmp_path, kind):
    run = second(kind, kind)
    finish(export_run(run.path, "gguf", tmp_path / "both.gguf", kind="f32"))
    alike(loaded(tmp_path / "both.gguf"), weights_of(run))
    if kind == "lora":
        finish(export_run(run.path, "gguf-lora", tmp_path / "lora.gguf"))
        header = read_gguf(tmp_path / "lora.gguf")
        assert header.tensors["blk.0.attn_q.weight.lora_a"].shape[0] == 4  # the ranks of both


def test_a_gguf_file_as_it_came_with_both_tunings(make, tmp_path):
    """What an earlier run tuned is not taken from the file again."""
    file = gguf_files.write(Path(make().model.id), tmp_path / "came.gguf")
    common = {"update": FAR, "data": {"test": 2, "validation": 2}, "mask": MASKS["entries"]}
    list(
        training.train(make(model={"id": str(file), "bits": 32}, loop={"steps": 2}, **common), folder=tmp_path / "one")
    )
    on_top = make(model={"id": f"run:{tmp_path / 'one'}@2", "bits": 32}, loop={"steps": 2, "seed": 9}, **common)
    list(training.train(on_top, folder=tmp_path / "two"))
    finish(export_run(tmp_path / "two", "gguf", tmp_path / "out.gguf", kind="same"))
    alike(loaded(tmp_path / "out.gguf"), weights_of(open_run(tmp_path / "two")), 2e-3)  # of rounding to 16 bits


# Adapters of other programs


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """``theirs(**config)``: base folder, the folder of a LoRA adapter as PEFT writes it, and PEFT's merged weights."""
    peft = pytest.importorskip("peft")
    root = tmp_path_factory.mktemp("peft")

    @cache
    def base(family):
        return tiny(family, root / family)

    def made(name, family="llama", **config):
        torch.manual_seed(0)
        model = peft.get_peft_model(
            AutoModelForCausalLM.from_pretrained(base(family)), peft.LoraConfig(task_type="CAUSAL_LM", **config)
        )
        for key, parameter in model.named_parameters():
            if "lora_" in key:
                parameter.data = 0.1 * torch.randn(parameter.shape)
        model.save_pretrained(root / name, save_embedding_layers=False)
        return root / name, model.merge_and_unload()

    return made


@pytest.mark.parametrize(
    ("name", "family", "config"),
    [
        ("plain", "llama", {"r": 4, "target_modules": ["q_proj", "down_proj"]}),
        ("rs", "llama", {"r": 4, "use_rslora": True, "lora_alpha": 3, "target_modules": "all-linear"}),
        ("patterns", "llama", {"r": 4, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {r"layers\.1\..*q_proj": 5},
                               "target_modules": ["q_proj", "v_proj"]}),
        ("head", "llama", {"r": 2, "target_modules": ["lm_head", "o_proj"]}),
        ("conv", "gpt2", {"r": 3, "fan_in_fan_out": True, "target_modules": ["c_attn", "c_proj"]}),
    ],
)  # fmt: skip
def test_adapters_of_peft_are_merged_as_peft_does(theirs, name, family, config):
    folder, merged = theirs(name, family, **config)
    found = loaded(folder)
    conv = finish(find(ModelTable(id=str(folder)))).spec.transposed
    assert bool(conv) == (family == "gpt2")
    expected = {key: merged.get_parameter(key).detach() for key in found}
    alike(found, {key: weight.T if key in conv else weight for key, weight in expected.items()})


def adapter(tmp_path, change=None, tensors=None, **config):
    """The folder of a small LoRA adapter with some fields or tensors changed."""
    base, out = tmp_path / "base", tmp_path / "adapter"
    if not base.exists():
        tiny("llama", base)
    out.mkdir(exist_ok=True)
    table = {"peft_type": "LORA", "base_model_name_or_path": "./base", "r": 2, "lora_alpha": 4, **config}
    (out / "adapter_config.json").write_text(json.dumps(table))
    layer = "base_model.model.model.layers.0.self_attn.q_proj"
    made = {f"{layer}.lora_A.weight": torch.ones(2, 64), f"{layer}.lora_B.weight": torch.ones(64, 2)}
    made |= tensors or {}
    save_file({key: tensor for key, tensor in made.items() if tensor is not None}, out / "adapter_model.safetensors")
    return out


Q = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("tensors", "config", "sentence"),
    [
        ({}, {"peft_type": "IA3"}, "is an adapter of kind 'IA3', not LoRA or SHiRA"),
        ({}, {"use_dora": True}, "with 'use_dora'"),
        ({}, {"modules_to_save": ["lm_head"]}, "with 'modules_to_save'"),
        ({}, {"init_lora_weights": "pissa"}, "started from changed weights"),
        ({}, {"base_model_name_or_path": None}, "does not say which model"),
        ({}, {"base_model_name_or_path": "/nowhere/model"}, "'/nowhere/model', which is not on this computer"),
        ({}, {"base_model_name_or_path": "./adapter"}, "names another"),
        ({}, {"lora_alpha": "x"}, "has no valid scale"),
        ({}, {"alpha_pattern": {r"(\w|[a-z]|[_.\d])+[^\w]": 8}}, "timed out"),
        ({f"{Q}.lora_magnitude_vector": torch.ones(64)}, {}, "more than LoRA of linear layers"),
        ({f"{Q}.lora_B.weight": None}, {}, "lacks a tensor for"),
        ({f"{Q}.lora_B.weight": torch.ones(64, 3)}, {}, "do not fit together"),
        ({f"{Q}.lora_B.weight": torch.ones(65, 2)}, {}, "has it as [64, 64]"),
        ({f"{Q}.lora_B.weight": torch.full((64, 2), torch.nan)}, {}, "contain NaN or infinity"),
        ({"base_model.model.other.lora_A.weight": torch.ones(2, 64), "base_model.model.other.lora_B.weight":
          torch.ones(64, 2)}, {}, "has no such weight"),
        ({f"{Q}.shira_indices": torch.tensor([[0], [64]]), f"{Q}.shira_weight": torch.ones(1),
          f"{Q}.lora_A.weight": None, f"{Q}.lora_B.weight": None}, {"peft_type": "SHIRA"}, "are not those of a weight"),
    ],
)  # fmt: skip
def test_adapters_that_cannot_be_merged(tmp_path, tensors, config, sentence):
    folder = adapter(tmp_path, tensors=tensors, **config)
    (tmp_path / "adapter" / "adapter").mkdir()  # "./adapter" of the adapter's folder is itself one
    shutil.copy(folder / "adapter_config.json", folder / "adapter")
    shutil.copy(folder / "adapter_model.safetensors", folder / "adapter")
    with pytest.raises(UserError) as error:
        loaded(folder)
    assert sentence in str(error.value)


def test_damaged_files(tmp_path, first):
    folder = adapter(tmp_path)
    assert torch.equal(
        loaded(folder)["model.layers.0.self_attn.q_proj.weight"],
        loaded(tmp_path / "base")["model.layers.0.self_attn.q_proj.weight"] + 4,
    )  # α/r · 2 ones
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(UserError, match="broken or incomplete"):
        loaded(folder)
    weights.rename(folder / "adapter_model.bin")
    with pytest.raises(UserError, match="a format that can run code"):
        loaded(folder)
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(UserError, match="is not the config of an adapter"):
        loaded(folder)
    finish(export_run(first("entries").path, "overlay", tmp_path / "o.safetensors"))
    (tmp_path / "o.safetensors").write_bytes((tmp_path / "o.safetensors").read_bytes()[:-10])
    with pytest.raises(UserError, match="broken or incomplete"):
        loaded(tmp_path / "o.safetensors")


# Names


def test_names_of_runs(first, home, tmp_path):
    run = first("entries")
    for id, sentence in (
        (f"run:{run.path}", rf"which step. Write run:{run.path}@4"), (f"run:{run.path}@9", "there is no step 9"),
        ("run:nothing@3", "There is no run folder"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=sentence):
            loaded(id)
        assert summary(id).problem
    (home / "runs").mkdir(parents=True)
    shutil.move(run.path, home / "runs" / "mine")
    listed = [each for each in local_models() if each.kind == "run"]
    assert [(each.id, each.title, each.problem) for each in listed] == [("run:mine@4", "mine@4", "")]
    assert listed[0].parameters == summary(str(tmp_path / "llama")).parameters > 0
    assert loaded("run:mine@4").keys() == loaded(tmp_path / "llama").keys()


def test_a_run_that_tuned_all_weights_is_exported_first(trained):
    run = trained("dense", mask={"rule": "all"}, model={"bits": 32}, loop={"steps": 2}, data={"test": 2})
    with pytest.raises(UserError, match="Export it with --format hf, and continue with that folder"):
        loaded(f"run:{run.path}@2")


def test_recipes_name_runs_by_relative_paths(make, tmp_path):
    tables = {"model": {"id": "run:./a@3"}}
    paths.resolve(tables, tmp_path, "recipe")
    assert tables["model"]["id"] == f"run:{tmp_path}/a@3"
    whole = make(model={"id": f"run:{tmp_path}/a@3"})
    assert paths.portable(whole).model.id == "run:./a@3"
    for id in ("run:mine@3", "run:mine"):
        assert paths.portable(make(model={"id": id})).model.id == id


def test_an_adapter_of_shira_equals_the_overlay(first, tmp_path):
    run = first("entries")
    finish(export_run(run.path, "peft", tmp_path / "adapter"))
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["peft_type"] == "SHIRA" and load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert summary(str(tmp_path / "adapter")).kind == "adapter"
