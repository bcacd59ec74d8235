"""GGUF files of a step: what transformers' own loader makes of them, and this program's."""

from __future__ import annotations

import os
import shutil
from functools import partial
from types import SimpleNamespace

import gguf
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from sparsezo_gui.engine import frozen
from sparsezo_gui.engine.export import export_run
from sparsezo_gui.engine.export.gguf import file, making, metadata, same, written
from sparsezo_gui.engine.export.gguf.model import KIND
from sparsezo_gui.engine.export.gguf.plan import Weights, copied_pairs, in_kind, packed_pairs
from sparsezo_gui.engine.export.gguf.vocabulary import SPLITS, vocabulary
from sparsezo_gui.engine.pretrained.gguf.header import read_gguf
from sparsezo_gui.engine.pretrained.gguf.tokenizer import splitter, tokenizer_of
from sparsezo_gui.engine.pretrained.tokenizer import load_tokenizer
from sparsezo_gui.engine.runs.folder import open_run
from sparsezo_gui.engine.session.opening import open_session
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.recipe import ModelTable
from tests import gguf_files
from tests.engine.conftest import finish
from tests.models import CHAT_TEMPLATE, tiny, tokenizer

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "phi3", "gpt2", "stablelm", "starcoder2")
SIZES_UNREAD = (
    "qwen3",
    "gemma2",
    "gemma3",
)  # whose sizes of heads, caps and windows transformers leaves at its defaults
IDS = torch.tensor([[5, 70, 9, 200, 33, 4, 120, 287]])
TEXTS = ("the cat sat  on 12 mats,\n\tit's", " leading", "naïve 日本", "question: is it?")
FAR = {"rule": "scalar-normalised", "learning_rate": 0.05}


def tuned(folder):
    """A stand-in for a session: the model in ``folder`` with every tenth weight changed."""
    model = finish(frozen.load(ModelTable(id=str(folder), bits=32, device="cpu")))
    changes = {}
    for number, (name, (rows, columns)) in enumerate(model.spec.linears.items()):
        indices = torch.arange(number, rows * columns, 10, dtype=torch.int32)
        changes[name] = indices, torch.linspace(-0.3, 0.3, len(indices))
    return SimpleNamespace(model=model, tuned=SimpleNamespace(changes=lambda: changes))


def expected(session, folder):
    """The plain model with the changes."""
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for name, (indices, values) in session.tuned.changes().items():
        weight = plain.get_parameter(name).data
        flat = (weight.T if name in session.model.spec.transposed else weight).contiguous().clone().view(-1)
        flat[indices.long()] = values
        rows, columns = session.model.spec.linears[name]
        turned = flat.view(rows, columns)
        weight.copy_(turned.T if name in session.model.spec.transposed else turned)
    return plain


def write(session, path, kind):
    weights = Weights(session)
    sizes = metadata.sizes(session.model.source.config, weights.layout.family)
    rows, family = session.model.spec.vocabulary, weights.layout.family
    general = {"general.name": "x", **vocabulary(session.model.tokenizer, rows, [1], partial(made_from, path=path))}
    plan = in_kind(weights, kind, packed_pairs(family, general, sizes))
    written.begin(path, plan, session.model.source)
    finish(written.fill(path, plan))
    return plan


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """``made(family)``: folder and session of a tiny model."""
    found = {}

    def make(family):
        if family not in found:
            folder = tiny(family, tmp_path_factory.mktemp("models") / family)
            found[family] = folder, tuned(folder)
        return found[family]

    return make


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_as_others_read_it(made, tmp_path, family):
    """In transformers' own loader, the logits of the tuned model to the precision of f16, and in 32 bits to the bit."""
    folder, session = made(family)
    wanted = logits(expected(session, folder))
    for kind, close in ((Kind.F32, 2e-5), (Kind.F16, 0.02), (Kind.Q8_0, 0.5)):
        plan, path = write(session, tmp_path / "m.gguf", kind), tmp_path / "m.gguf"
        assert path.stat().st_size == plan.length
        rounding = finish(written.read_back(path, plan)).relative
        assert rounding == 0 if kind == Kind.F32 else 1e-5 < rounding < {Kind.F16: 1e-3, Kind.Q8_0: 1e-2}[kind]
        ours = written.model_in(path)
        assert written.same_logits(ours, session.model.source, IDS.tolist()) < 1e-5
        torch.testing.assert_close(logits(ours), wanted, rtol=0, atol=close)
        if family == "gemma":  # which transformers does not read
            continue
        own = {"config": session.model.source.config} if family in SIZES_UNREAD else {}
        theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="m.gguf", dtype=torch.float32, **own).eval()
        torch.testing.assert_close(logits(theirs), wanted, rtol=0, atol=close)


def test_the_kinds_offered_are_those_that_the_library_writes():
    for name in KIND.choices:
        if name != "same":
            block, width = gguf.GGML_QUANT_SIZES[Kind[name.upper()]]
            assert len(file.packed(torch.ones(1, 256), Kind[name.upper()]).reshape(-1)) == 256 // block * width
    assert next(iter(KIND.choices)) == "f16"


def test_16_bits_are_rounded_as_torch_does_and_quantised_as_the_library_does():
    rows = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.from_numpy(file.packed(rows, Kind.F16)).view(torch.float16), rows.half())
    assert torch.equal(torch.from_numpy(file.packed(rows, Kind.BF16)).view(torch.bfloat16), rows.bfloat16())
    for kind in (Kind.Q8_0, Kind.Q4_0):
        assert (file.packed(rows, kind) == gguf.quantize(rows.numpy(), kind)).all()


def test_small_kinds_keep_tables_and_odd_matrices_in_more_bits(made, tmp_path):
    folder = tiny("llama", tmp_path / "odd", intermediate_size=80)
    plan = write(tuned(folder), tmp_path / "m.gguf", Kind.Q4_0)
    kinds = {each.name: each.kind for each in plan.tensors}
    assert kinds["token_embd.weight"] == kinds["output.weight"] == Kind.Q8_0
    assert kinds["blk.0.ffn_down.weight"] == Kind.F16 and kinds["blk.0.ffn_up.weight"] == Kind.Q4_0
    assert kinds["blk.0.attn_norm.weight"] == Kind.F32
    reader = gguf.GGUFReader(tmp_path / "m.gguf")  # the library's own
    assert {each.name: each.tensor_type for each in reader.tensors} == kinds
    assert reader.fields["general.file_type"].contents() == gguf.LlamaFileType.MOSTLY_Q4_0
    positions = write(made("gpt2")[1], tmp_path / "n.gguf", Kind.Q4_0)
    assert next(each for each in positions.tensors if each.name == "position_embd.weight").kind == Kind.F32


def test_weights_too_large_for_f16_are_refused(tmp_path):
    session = tuned(tiny("llama", tmp_path / "llama"))
    session.tuned.changes()["model.layers.0.mlp.up_proj.weight"][1][7] = 1e5
    with pytest.raises(
        UserError, match=r"'blk\.0\.ffn_up\.weight' are too large for f16\. Export them with --kind bf16"
    ):
        write(session, tmp_path / "m.gguf", Kind.F16)
    write(session, tmp_path / "m.gguf", Kind.BF16)


def test_a_wrong_byte_is_found(made, tmp_path):
    _, session = made("llama")
    for kind in (Kind.F32, Kind.F16, Kind.Q8_0):
        plan, path = write(session, tmp_path / "m.gguf", kind), tmp_path / "m.gguf"
        place = read_gguf(path).tensors["blk.1.attn_q.weight"]
        with path.open("r+b") as target:
            target.seek(place.begin)
            target.write(bytes([97, 98] * ((place.end - place.begin) // 2)))
        with pytest.raises(RuntimeError, match=r"'blk\.1\.attn_q\.weight' is not what was written"):
            finish(written.read_back(path, plan))


@pytest.mark.parametrize("parameters", [
    {"rope_type": "linear", "factor": 4.0},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256},
    {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
     "original_max_position_embeddings": 8192, "rope_theta": 500_000.0},
])  # fmt: skip
def test_scaled_positions(tmp_path, parameters):
    folder = tiny("llama", tmp_path / "llama", rope_parameters={"rope_theta": 10_000.0, **parameters})
    session = tuned(folder)
    write(session, tmp_path / "m.gguf", Kind.F32)
    ours = written.model_in(tmp_path / "m.gguf")
    torch.testing.assert_close(logits(ours), logits(expected(session, folder)), rtol=0, atol=2e-5)


def test_positions_of_long_phi(tmp_path):
    short, long = [1.0 + 0.1 * i for i in range(8)], [2.0 + i for i in range(8)]
    scaling = {"rope_type": "longrope", "short_factor": short, "long_factor": long, "rope_theta": 10_000.0}
    folder = tiny("phi3", tmp_path / "phi3", original_max_position_embeddings=512, rope_parameters=scaling)
    session = tuned(folder)
    write(session, tmp_path / "m.gguf", Kind.F32)
    ours = written.model_in(tmp_path / "m.gguf")
    torch.testing.assert_close(logits(ours), logits(expected(session, folder)), rtol=0, atol=2e-5)


def test_what_no_file_can_describe(made, tmp_path):
    dynamic = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}
    for change, told in (
        ({"rope_parameters": dynamic}, "scales positions by 'dynamic'"),
        ({"hidden_act": "relu"}, "its 'hidden_act' would be 'silu' instead of 'relu'"),
    ):
        session = tuned(tiny("llama", tmp_path / told[:9], **change))
        with pytest.raises(UserError, match=told):
            write(session, tmp_path / "m.gguf", Kind.F32)
    session = tuned(tiny("neox", tmp_path / "neox"))
    with pytest.raises(UserError, match=r"cannot write GGUF files of 'gpt_neox' models, only of gemma, .*--format hf"):
        Weights(session)


def test_a_sliding_window_ends_the_context(tmp_path):
    """llama.cpp reads no windows of Mistral's, so the file must not claim texts that are longer."""
    session = tuned(tiny("mistral", tmp_path / "mistral", sliding_window=64))
    assert metadata.sizes(session.model.source.config, "llama")["context_length"] == 64


def made_from(vocabulary, path, family="llama"):
    pairs = {key: file.value(value) for key, value in {"general.architecture": family, **vocabulary}.items()}
    path.write_bytes(file.head(pairs, []))
    return tokenizer_of(read_gguf(path))


@pytest.mark.parametrize("split", SPLITS)
def test_the_tokenizer_survives_with_its_way_to_split(tmp_path, split):
    original = tokenizer()
    original.backend_tokenizer.pre_tokenizer = splitter(split)
    if split in ("qwen2", "qwen35"):
        original.backend_tokenizer.normalizer = normalizers.NFC()
    if split in ("llama-bpe", "tekken"):
        original.backend_tokenizer.model.ignore_merges = True
    found = vocabulary(original, 300, [1], lambda found: made_from(found, tmp_path / "m.gguf"))
    assert found["tokenizer.ggml.pre"] == split and found["tokenizer.ggml.model"] == "gpt2"
    made = made_from(found, tmp_path / "n.gguf")
    for text in TEXTS:
        assert made(text).input_ids == original(text).input_ids and made.decode(made(text).input_ids) == text
    assert (made.bos_token, made.eos_token, made.pad_token) == ("<s>", "</s>", "<|endoftext|>")
    assert made.chat_template == CHAT_TEMPLATE and found["tokenizer.ggml.tokens"][299] == "[PAD299]"
    assert found["tokenizer.ggml.token_type"][[0, 1, 2, 3, 299]].tolist() == [3, 3, 3, 1, 5]
    theirs = AutoTokenizer.from_pretrained(
        tmp_path, gguf_file=shutil.copy(tmp_path / "n.gguf", tmp_path / "o.gguf").name
    )
    if split not in ("smollm", "qwen2", "qwen35", "llama-bpe", "tekken"):  # of which transformers leaves something out
        assert all(theirs(text).input_ids == original(text).input_ids for text in TEXTS)


@pytest.mark.parametrize("ends", [[1], [7, 1], [1, 7, 9], [7]])
def test_all_tokens_that_end_an_answer_are_written(tmp_path, ends):
    """The tokenizer's own first; a run's learned one among them."""
    found = vocabulary(tokenizer(), 288, ends, lambda found: made_from(found, tmp_path / "m.gguf"))
    written = [found.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom")]
    assert written == [*sorted(ends, key=lambda end: end != 1), None, None][:3]


@pytest.mark.parametrize("learned", [None, 1, 7])
def test_a_gguf_model_gets_the_end_that_the_run_learned(tmp_path, learned):
    file_ = gguf_files.write(tiny("llama", tmp_path / "llama"), tmp_path / "m.gguf")
    session = tuned(file_)
    session.model.learned_end = learned
    before = copied_pairs(read_gguf(file_))
    added = {"tokenizer.ggml.eot_token_id": file.value(7)} if learned == 7 else {}
    assert making._with_end(session, before) == before | added


@pytest.mark.parametrize("family", ["llama", "phi3", "gemma3"])
def test_a_sentencepiece_tokenizer_survives(tmp_path, family):
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    merges = [("▁", "c"), ("a", "t"), ("▁c", "at"), ("▁cat", "s"), ("t", "h"), ("▁", "▁")]
    pieces += ["▁", "a", "t", "c", "s", "h", *("".join(pair) for pair in merges), "\n\n"]
    bpe = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges, unk_token="<unk>",
                               byte_fallback=True, fuse_unk=True))  # fmt: skip
    before = {"gemma3": [], "phi3": [normalizers.Prepend("▁")], "llama": []}[family]
    bpe.normalizer = normalizers.Sequence([*before, normalizers.Replace(" ", "▁")])
    bpe.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    original = PreTrainedTokenizerFast(tokenizer_object=bpe, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    original.add_tokens([AddedToken("\n\n", normalized=False)])
    found = vocabulary(original, len(pieces), [2], lambda found: made_from(found, tmp_path / "m.gguf", family))
    assert found["tokenizer.ggml.model"] == "llama" and "tokenizer.ggml.merges" not in found
    kinds = found["tokenizer.ggml.token_type"]
    assert kinds[[0, 1, 2, 3, 259, len(pieces) - 1]].tolist() == [2, 3, 3, 6, 1, 4]
    scores = found["tokenizer.ggml.scores"]
    ranks = [scores[pieces.index("".join(pair))] for pair in merges]
    assert ranks == sorted(ranks, reverse=True) and len(set(ranks)) == len(ranks)
    made = made_from(found, tmp_path / "n.gguf", family)
    for text in ("cat cats", "  a cat\n\nhat", "é</s> cat"):
        assert made(text).input_ids == original(text).input_ids


def test_a_tokenizer_that_no_file_can_describe(tmp_path):
    original = tokenizer()
    original.backend_tokenizer.normalizer = normalizers.Lowercase()
    with pytest.raises(UserError, match="splits text in a way that GGUF files have no name for"):
        vocabulary(original, 300, [1], lambda found: made_from(found, tmp_path / "m.gguf"))
    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, "a")))
    with pytest.raises(UserError, match="merges no byte pairs"):
        vocabulary(words, 300, [1], lambda found: made_from(found, tmp_path / "m.gguf"))


@pytest.fixture
def run_of(trained, tmp_path):
    """``run_of(name, kind, …)``: a run on a tiny llama, or on a GGUF file of it in ``kind``."""

    def made(name, kind=None, bits=32, mask=None, **model):
        folder = tmp_path / "llama"
        if not folder.exists():
            tiny("llama", folder)
        if kind is not None:
            more = {"general.quantization_version": 2}
            model["id"] = str(gguf_files.write(folder, tmp_path / "base.gguf", kind, more=more))
        return trained(
            name, mask=mask or {"rule": "random", "density": 0.01}, model={"bits": bits, **model}, update=FAR,
            loop={"steps": 3, "evaluate_every": 0}, data={"test": 2, "validation": 2},
        )  # fmt: skip

    return made


def export(run, out, form="gguf", **options):
    return finish(export_run(run.path, form, out, **options))["told"]


def test_a_run_is_exported_with_its_size_told_before(run_of, tmp_path):
    run, out = run_of("folder"), tmp_path / "tuned.gguf"
    events = list(export_run(run.path, "gguf", out))
    told = next(event.text for event in events if getattr(event, "text", "").startswith("The GGUF file will take"))
    assert told == "The GGUF file will take 224 KiB." and out.stat().st_size // 1024 in (223, 224)
    session = finish(open_session(run))
    model = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="tuned.gguf", dtype=torch.float32).eval()
    with session.tuned.applied(), torch.no_grad():
        torch.testing.assert_close(logits(model), session.model.module(IDS).logits, rtol=0, atol=0.02)
    with session.tuned.base(), torch.no_grad():
        assert (logits(model) - session.model.module(IDS).logits).abs().max() > 0.05
    fields = {key: each.contents() for key, each in gguf.GGUFReader(out).fields.items()}
    assert fields["general.name"] == "tiny" and fields["general.type"] == "model"
    assert fields["general.description"] == "./llama, tuned with SparseZO for 3 steps"
    assert fields["tokenizer.ggml.eos_token_id"] == 1 and "tokenizer.ggml.eot_token_id" not in fields
    modelfile = (tmp_path / "tuned.Modelfile").read_text()
    assert modelfile == 'FROM ./tuned.gguf\nTEMPLATE """{{ .Prompt }} is it good?"""\nPARAMETER stop "</s>"\n'


def test_what_is_told(run_of, tmp_path):
    told = export(run_of("folder"), tmp_path / "a.gguf", kind="f32")
    assert told[0] == "440 KiB; matrices: 16 f32. Rounding changed the newly written ones by 0 %."
    assert told[1].startswith("Read back, it gives the same logits as its weights in transformers")
    assert told[2] == "In plain transformers, 2 of 2 prompts give the same tokens as in the run."
    assert told[3] == "Answers end at '</s>'."
    shutil.rmtree(tmp_path / "run")
    told = export(run_of("4 bits", bits=4), tmp_path / "b.gguf", kind="q4_0")
    assert "14 q4_0, 2 q8_0" in told[0] and "because the run used 4-bit weights" in told[2]


@pytest.mark.parametrize("kind", [Kind.Q4_0, Kind.Q8_0, Kind.F16])
def test_as_it_came_only_tuned_matrices_change(run_of, tmp_path, kind):
    run, out = (
        run_of(f"gguf {kind.name}", kind, mask={"rule": "random", "density": 0.01, "blocks": 1}),
        tmp_path / "out.gguf",
    )
    export(run, out, kind="same")
    session = finish(open_session(run))
    before, after = read_gguf(tmp_path / "base.gguf"), read_gguf(out)
    assert list(before.tensors) == list(after.tensors) and list(before.spans) == list(after.spans)
    assert all(before.raw(key) == after.raw(key) for key in before.spans)
    names = Weights(session).layout.names
    touched = {names[name] for name in session.tuned.changes()}
    assert 0 < len(touched) < len(before.tensors)
    for key, one in before.tensors.items():
        other = after.tensors[key]
        content = [path.read_bytes()[each.begin : each.end] for path, each in ((before.path, one), (out, other))]
        assert (content[0] == content[1]) == (key not in touched), key
        assert same.bits(other.kind) >= same.bits(one.kind)
    model = written.model_in(out)
    with session.tuned.applied(), torch.no_grad():
        wanted = session.model.module(IDS).logits
    with session.tuned.base(), torch.no_grad():
        moved = (session.model.module(IDS).logits - wanted).abs().max()
    assert (logits(model) - wanted).abs().max() < 0.3 * moved


def test_the_smallest_kind_that_keeps_what_was_tuned():
    base = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    base = torch.from_numpy(gguf.dequantize(gguf.quantize(base.numpy(), Kind.Q4_0), Kind.Q4_0))
    noise = torch.randn(64, 64, generator=torch.Generator().manual_seed(1))
    few = torch.rand(64, 64, generator=torch.Generator().manual_seed(2)) < 0.02
    scales = (1.0, 0.1, 0.03, 1e-4)
    found = [same.smallest(Kind.Q4_0, base, base + scale * noise * few) for scale in scales]
    assert found == [Kind.Q8_0, Kind.Q5_0, Kind.Q8_0, Kind.F32]
    for scale, kind in zip(scales, found, strict=True):
        tuned = base + scale * noise * few
        rounded = torch.from_numpy(gguf.dequantize(gguf.quantize(tuned.numpy(), kind), kind)) if kind else tuned
        kept = float(((rounded - base) * (tuned - base)).sum() / (tuned - base).square().sum())
        assert abs(kept - 1) <= same.SHARE and float((rounded - tuned).norm() / tuned.norm()) <= same.NOISE
    one = base.clone()
    one[:, :32] = -one[:, :32]  # which Q4_0 holds as it is
    assert same.smallest(Kind.Q4_0, base, one) == Kind.Q4_0
    assert same.smallest(Kind.F16, base, base + noise) == Kind.F16  # never smaller than it came


def test_a_folder_has_no_kind_to_keep(run_of, tmp_path):
    with pytest.raises(UserError, match="did not come as a GGUF file, so there is no kind to keep"):
        export(run_of("folder"), tmp_path / "out.gguf", kind="same")
    assert not (tmp_path / "out.gguf").exists()


@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_a_gguf_model_in_another_kind_keeps_its_metadata(run_of, tmp_path, kind):
    run, out = run_of("gguf Q4_0", Kind.Q4_0), tmp_path / "out.gguf"
    export(run, out, kind=kind)
    before, after = read_gguf(tmp_path / "base.gguf"), read_gguf(out)
    assert {key for key in before.spans if before.raw(key) != after.raw(key)} == set()
    assert {each.kind for each in after.tensors.values()} == {Kind.F32, Kind[kind.upper()]}
    for text in TEXTS:
        assert load_tokenizer(out)(text).input_ids == load_tokenizer(tmp_path / "llama")(text).input_ids


def test_the_same_step_is_the_same_file(run_of, tmp_path):
    run = run_of("folder")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        export(run, tmp_path / name / "out.gguf", kind="q8_0")
    files = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("a", "b")]
    assert files[0] == files[1] and files[0].keys() == {"out.gguf", "out.Modelfile"}


def test_cancelling_leaves_nothing(run_of, tmp_path):
    run = run_of("folder")
    stages = [
        event.stage for event in export_run(run.path, "gguf", tmp_path / "all" / "out.gguf") if hasattr(event, "stage")
    ]
    for stage in ("Describing the model", "Writing the GGUF file", "Checking the GGUF file", "Comparing logits"):
        assert stage in stages
        work = export_run(run.path, "gguf", tmp_path / "new" / "out.gguf")
        while getattr(next(work), "stage", "") != stage:
            pass
        work.close()
        assert list((tmp_path / "new").iterdir()) == []


def test_a_disk_that_is_too_small(run_of, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=64 * 2**20 + 1000))
    with pytest.raises(UserError, match=r"The model needs 64\.2 MiB .* only 64\.0 MiB are free"):
        export(run_of("folder"), tmp_path / "new" / "out.gguf")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_modelfile_is_never_overwritten(run_of, tmp_path, monkeypatch):
    run = run_of("folder")
    (tmp_path / "out.Modelfile").write_text("precious")
    with pytest.raises(UserError, match=r"out\.Modelfile: already exists\. Choose another name, such as 'out-2"):
        export(run, tmp_path / "out.gguf")
    assert not (tmp_path / "out.gguf").exists() and (tmp_path / "out.Modelfile").read_text() == "precious"


def test_a_model_that_memory_does_not_hold_is_told(run_of, tmp_path, monkeypatch):
    monkeypatch.setattr(written, "fits", lambda source: False)
    told = export(run_of("folder"), tmp_path / "out.gguf")
    assert told[1] == "Its logits were not compared: too little free memory to load the whole model."
    assert os.path.exists(tmp_path / "out.gguf")


def test_a_file_that_describes_another_model_never_appears(run_of, tmp_path, monkeypatch):
    monkeypatch.setattr(metadata, "head_size", lambda text: 8)
    run = run_of("folder")
    with pytest.raises((UserError, RuntimeError)):
        export(run, tmp_path / "new" / "out.gguf")
    assert list((tmp_path / "new").iterdir()) == []


def test_as_the_last_step_or_an_earlier_one(run_of, tmp_path):
    run = run_of("folder")
    export(run, tmp_path / "out.gguf", kind="f32", step=1)
    session = finish(open_session(open_run(run.path), 1))
    model = written.model_in(tmp_path / "out.gguf")
    with session.tuned.applied(), torch.no_grad():
        torch.testing.assert_close(logits(model), session.model.module(IDS).logits, rtol=0, atol=2e-5)
