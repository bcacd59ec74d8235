"""GGUF files as models: the same numbers, tokens and templates as the models that they were written from."""

import json

import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from sparsezo_gui.engine import device as devices
from sparsezo_gui.engine import frozen
from sparsezo_gui.engine.hub.cache import find
from sparsezo_gui.engine.hub.library import spec_of, summary
from sparsezo_gui.engine.pretrained.ends import end_tokens
from sparsezo_gui.engine.pretrained.gguf import tensors
from sparsezo_gui.engine.pretrained.tokenizer import load_tokenizer
from sparsezo_gui.engine.pretrained.weights import Checkpoint
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.recipe import ModelTable
from tests import gguf_files
from tests.engine.conftest import finish
from tests.models import tiny

FAMILIES = ("llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "phi3", "gpt2", "stablelm", "starcoder2")
TALK = [{"role": "user", "content": "is it warm today?"}, {"role": "assistant", "content": "yes"}]
TEXTS = ("the cat sat  on 12 mats,\n\tit's", " leading", "naïve 日本", "<s>question: is it?</s>")
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


def logits(module):
    with torch.no_grad():
        return module(IDS).logits


def assert_equals_original(folder, file, exactly=True):
    expected = logits(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))
    assert expected.std() > 0.1
    torch.testing.assert_close(logits(load(file, bits=32).module), expected, rtol=0, atol=0 if exactly else 2e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_the_original(models, family):
    """Only norms stored as 1 + w, and matrices that lie the other way, are rounded in other places."""
    assert_equals_original(*models(family), exactly=not family.startswith(("gemma", "gpt2")))


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_are_the_original_ones(models, family):
    folder, file = models(family)
    source, original = (finish(find(ModelTable(id=str(place)))) for place in (file, folder))
    assert source.spec.linears == original.spec.linears and source.spec.shapes == original.spec.shapes
    assert (source.place, source.revision, source.prequantised) == (file, "", True)
    read, expected = Checkpoint(source), Checkpoint(original)
    for name in source.spec.shapes:
        torch.testing.assert_close(read.read(name), expected.read(name), rtol=0, atol=1e-7)


@pytest.mark.parametrize("kind", [Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0, Kind.Q5_1])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_quantised_weights_are_made_dense(models, tmp_path, monkeypatch, family, kind):
    monkeypatch.setattr(tensors, "_SPAN", 1000)  # several spans for each matrix, of which the last is shorter
    folder, _ = models(family)
    file = gguf_files.write(folder, tmp_path / "m.gguf", kind)
    source = finish(find(ModelTable(id=str(file))))
    checkpoint = Checkpoint(source)
    expected = gguf_files.dequantised(folder, family, kind)
    for name in (*source.spec.linears, *source.spec.tables):
        found = checkpoint.read(name)
        wanted = expected[name].T if name in source.spec.transposed else expected[name]
        half = torch.bfloat16 if kind == Kind.BF16 else torch.float16
        table = kind in (Kind.F16, Kind.BF16) or name in source.spec.tables
        assert found.dtype == (half if table else torch.float32), name
        assert torch.equal(found, wanted.to(found.dtype)), name


def test_quantised_as_any_other_model(models, tmp_path):
    """In 4 and 8 bits, the same numbers as from a folder with the dense weights; 16 bits are those of fp16."""
    folder, _ = models("llama")
    file = gguf_files.write(folder, tmp_path / "m.gguf", Kind.Q8_0)
    dense = tiny("llama", tmp_path / "dense")
    whole = load_file(dense / "model.safetensors") | gguf_files.dequantised(folder, "llama", Kind.Q8_0)
    whole |= {name: whole[name].half().float() for name in ("model.embed_tokens.weight", "lm_head.weight")}
    save_file(whole, dense / "model.safetensors", {"format": "pt"})
    integers = [{"bits": 8, "compute": "int8"}] if devices.has_int8() else []
    for options in ({"bits": 4}, {"bits": 4, "block": 64}, {"bits": 8}, *integers):
        found, expected = load(file, **options), load(dense, **options)
        for name, layer in found.layers.items():
            assert torch.equal(layer.frozen.dense(torch.float32), expected.layers[name].frozen.dense(torch.float32))
        assert torch.equal(logits(found.module), logits(expected.module))
    half = load(file, bits=16)
    assert {layer.frozen.tensors[0].dtype for layer in half.layers.values()} == {torch.float16}


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma3"])
def test_as_transformers_loads_it(models, tmp_path, family):
    """Weights, and logits where transformers' own reading is right: it leaves out the windows of Gemma 3."""
    folder, _ = models(family)
    file = gguf_files.write(folder, tmp_path / "m.gguf", Kind.Q8_0)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=file.name, dtype=torch.float32)
    with torch.no_grad():
        for table in {plain.get_input_embeddings(), plain.get_output_embeddings()}:
            table.weight.copy_(table.weight.half())
    found = load(file, bits=32)
    state = plain.state_dict()
    for name, parameter in found.checkpoint.spec.shapes.items():
        torch.testing.assert_close(found.checkpoint.read(name).float(), state[name], rtol=0, atol=1e-6)
        assert tuple(state[name].shape) == parameter
    if family != "gemma3":
        torch.testing.assert_close(logits(found.module), logits(plain), rtol=0, atol=2e-5)


def rope(folder, **parameters):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["rope_parameters"] |= parameters
    path.write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("parameters", "more"),
    [
        (
            {"rope_type": "linear", "factor": 4.0},
            {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0},
        ),
        ({"rope_type": "linear", "factor": 4.0}, {"llama.rope.scale_linear": 4.0}),
        (
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256},
            {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 4.0,
             "llama.rope.scaling.original_context_length": 256},
        ),
    ],
)  # fmt: skip
def test_scaled_positions(tmp_path, parameters, more):
    folder = rope(tiny("llama", tmp_path / "llama"), **parameters)
    assert_equals_original(folder, gguf_files.write(folder, tmp_path / "m.gguf", more=more))


def test_positions_of_llama_3(tmp_path):
    """The file has the factor of each frequency; another set of them is refused."""
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 8192, "rope_theta": 500_000.0}  # fmt: skip
    folder = rope(tiny("llama", tmp_path / "llama"), **scaling)
    frequencies, _ = ROPE_INIT_FUNCTIONS["llama3"](AutoConfig.from_pretrained(folder))
    factors = (500_000.0 ** (-torch.arange(0, 16, 2) / 16) / frequencies).tolist()
    assert min(factors) == pytest.approx(1) and max(factors) == pytest.approx(8) and len(set(factors)) > 2
    more = {"llama.rope.freq_base": 500_000.0}
    file = gguf_files.write(folder, tmp_path / "m.gguf", more=more, tensors={"rope_freqs.weight": factors})
    assert_equals_original(folder, file, exactly=False)
    other = gguf_files.write(folder, tmp_path / "n.gguf", more=more, tensors={"rope_freqs.weight": [2.0] * 8})
    with pytest.raises(UserError, match="scales positions in a way of its own"):
        load(other)


def test_positions_of_long_phi(tmp_path):
    short, long = [1.0 + 0.1 * i for i in range(8)], [2.0 + i for i in range(8)]
    scaling = {"rope_type": "longrope", "short_factor": short, "long_factor": long}
    folder = rope(tiny("phi3", tmp_path / "phi3", original_max_position_embeddings=512), **scaling)
    factors = {"rope_factors_short.weight": short, "rope_factors_long.weight": long}
    more = {"phi3.rope.scaling.original_context_length": 512, "phi3.attention.sliding_window": 0}
    file = gguf_files.write(folder, tmp_path / "m.gguf", more=more, tensors=factors)
    assert_equals_original(folder, file, exactly=False)


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2", "gemma3"])
def test_tokens_and_chat_template_are_those_of_the_original(models, family):
    folder, file = models(family)
    original, found = load_tokenizer(folder), load_tokenizer(file)
    for text in TEXTS:
        assert found(text).input_ids == original(text).input_ids
        assert found.decode(found(text).input_ids) == text
    for options in ({}, {"add_generation_prompt": True}):
        rendered = found.apply_chat_template(TALK, tokenize=False, **options)
        assert rendered == original.apply_chat_template(TALK, tokenize=False, **options) and "warm today" in rendered
    assert (found.bos_token, found.eos_token, found.pad_token) == ("<s>", "</s>", "<|endoftext|>")


@pytest.mark.parametrize("family", ["llama", "gemma3", "phi3"])
def test_a_sentencepiece_tokenizer(models, tmp_path, family):
    """As transformers converts it; a beginning is added unless the file says otherwise."""
    pieces = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁",
        "a",
        "t",
        "c",
        "▁c",
        "at",
        "▁cat",
    ]
    kinds = [2, 3, 3, *[6] * 256, *[1] * 7]
    more = {"tokenizer.ggml.model": "llama", "tokenizer.ggml.pre": "default", "tokenizer.ggml.tokens": pieces,
            "tokenizer.ggml.token_type": kinds, "tokenizer.ggml.scores": [-float(i) for i in range(len(pieces))],
            "tokenizer.ggml.merges": None, "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2,
            "tokenizer.ggml.unknown_token_id": 0, "tokenizer.ggml.add_bos_token": None}  # fmt: skip
    file = gguf_files.write(models(family)[0], tmp_path / "m.gguf", more=more)
    found, plain = load_tokenizer(file), AutoTokenizer.from_pretrained(tmp_path, gguf_file=file.name)
    for text in ("cat cat", "  a cat\n", "é</s> cat"):
        assert found(text).input_ids == plain(text).input_ids
    assert found("a cat").input_ids[0] == 1 and found("a cat").input_ids[-1] == pieces.index("▁cat")
    if family != "gemma3":  # which never adds one
        bare = load_tokenizer(gguf_files.write(models(family)[0], tmp_path / "n.gguf", more=more | {
            "tokenizer.ggml.add_space_prefix": False}))  # fmt: skip
        assert bare.tokenize("a cat") == ["a", "▁cat"] != found.tokenize("a cat")
        assert bare.decode(bare(" a cat", add_special_tokens=False).input_ids) == " a cat"


def test_digits_of_smollm_and_unknown_splits(models, tmp_path):
    folder, _ = models("llama")
    merges = {"tokenizer.ggml.pre": "smollm"}
    found = load_tokenizer(gguf_files.write(folder, tmp_path / "m.gguf", more=merges))
    split = found.backend_tokenizer.pre_tokenizer.pre_tokenize_str("in 345")
    assert [piece for piece, _ in split] == ["in", "Ġ", "3", "4", "5"]
    with pytest.raises(UserError, match="splits text in the way 'qzxv'"):
        load_tokenizer(gguf_files.write(folder, tmp_path / "n.gguf", more={"tokenizer.ggml.pre": "qzxv"}))


def test_what_the_conversion_leaves_out(models, tmp_path):
    """Qwen composes characters; Llama 3 adds a beginning, and takes a word that is a token whole."""
    folder, _ = models("llama")
    table = gguf_files.vocabulary(folder)
    tokens = [*table["tokenizer.ggml.tokens"][:-1], "qzxv"]
    merges = [merge for merge in table["tokenizer.ggml.merges"] if merge.replace(" ", "") in tokens]
    more = {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.merges": merges, "tokenizer.ggml.add_bos_token": None}
    found = {}
    for name in ("qwen2", "llama-bpe"):
        file = gguf_files.write(folder, tmp_path / f"{name}.gguf", more=more | {"tokenizer.ggml.pre": name})
        found[name] = load_tokenizer(file)
    assert found["qwen2"]("e\u0301").input_ids == found["qwen2"]("\u00e9").input_ids
    assert len(found["qwen2"]("qzxv").input_ids) == 4
    assert found["llama-bpe"]("qzxv").input_ids == [0, len(tokens) - 1]
    assert found["llama-bpe"]("e\u0301").input_ids != found["llama-bpe"]("\u00e9").input_ids


def test_all_tokens_that_end_a_text(models, tmp_path):
    file = gguf_files.write(models("llama")[0], tmp_path / "m.gguf", more={"tokenizer.ggml.eot_token_id": 7})
    assert end_tokens(finish(find(ModelTable(id=str(file))))) == [1, 7]
    assert end_tokens(finish(find(ModelTable(id=str(models("llama")[1]))))) == [1]


def test_what_is_known_from_the_header_alone(models, home):
    folder, file = models("qwen3")
    found, original = summary(str(file)), summary(str(folder))
    assert (found.kind, found.title, found.licence, found.problem) == ("file", "model", "mit", "")
    assert (found.architecture, found.parameters) == (original.architecture, original.parameters)
    assert found.bytes == file.stat().st_size
    table = ModelTable(id=str(file))
    assert spec_of(table).shapes == spec_of(ModelTable(id=str(folder))).shapes
    assert not (home / "gguf").exists()


def test_the_fingerprint_is_that_of_the_weights(models, tmp_path):
    _, file = models("llama")
    moved, other = tmp_path / "moved", gguf_files.write(tiny("llama", tmp_path / "x", seed=1), tmp_path / "o.gguf")
    moved.write_bytes(file.read_bytes())  # as a file of Ollama, it has no suffix
    one, same, another = (Checkpoint(finish(find(ModelTable(id=str(p))))).fingerprint() for p in (file, moved, other))
    assert one == same != another
