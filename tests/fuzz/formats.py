"""The formats that are fuzzed: whole files to begin with, and the very function of the program that reads them."""

from __future__ import annotations

import gzip
import json
import lzma
import shutil
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch

from sparsezo_gui import recipe
from sparsezo_gui.engine.data.chat import render
from sparsezo_gui.engine.data.conversations import conversation
from sparsezo_gui.engine.data.preview import preview
from sparsezo_gui.engine.data.template import Template
from sparsezo_gui.engine.export.overlay_file import OverlayFile, read_overlay, write_overlay
from sparsezo_gui.engine.hub import library
from sparsezo_gui.engine.pretrained.ends import end_tokens
from sparsezo_gui.engine.pretrained.source import inspect
from sparsezo_gui.engine.pretrained.tokenizer import load_tokenizer
from sparsezo_gui.engine.pretrained.weights import read_header
from sparsezo_gui.engine.runs import checkpoints, gradients, journal
from sparsezo_gui.engine.runs.facts import Branched, Facts
from sparsezo_gui.engine.runs.folder import create, open_run
from sparsezo_gui.engine.runs.journal_writer import JournalWriter
from sparsezo_gui.engine.runs.listing import summary
from sparsezo_gui.engine.runs.share import receive, share
from sparsezo_gui.engine.spaces import mask as masks
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe import events as e
from sparsezo_gui.recipe.recipe import DataTable, ModelTable
from tests.engine.data.conftest import byte_pairs
from tests.gguf_files import write as write_gguf
from tests.models import tiny

Opened = tuple[bytes, Callable[[bytes], bytes]]


@dataclass(frozen=True)
class Format:
    """``seeds`` writes what belongs beside the file into a folder and gives sound contents of ``file``; ``read`` reads
    it. ``open`` gives the text inside of a content and what packs a changed one again; ``words`` are tokens of the
    format; a sentence about the file must hold the file's name or one of ``named``."""

    file: str
    seeds: Callable[[Path], list[bytes]]
    read: Callable[[Path], Any]
    open: Callable[[bytes], Opened] = lambda content: (content, bytes)
    words: Sequence[bytes] = ()
    named: Sequence[str] = ()
    every: int = 1  # of so many inputs, one is tried: where each starts a process


def words(text: str) -> tuple[bytes, ...]:
    return tuple(text.encode().split())


# --- masks, overlays, models: safetensors and JSON ---

SHAPES, FINGERPRINT = {"a.weight": (3, 4), "b.weight": (2, 2)}, "f" * 64
INDICES = {"a.weight": torch.tensor([0, 3, 11], dtype=torch.int32), "b.weight": torch.tensor([], dtype=torch.int32)}
TENSORS = words("dtype shape data_offsets __metadata__ F32 F64 F8_E4M3 F4 BOOL I32 [] [0] [0,0] [2,2] hash eligible")


def header(content: bytes) -> Opened:
    """The header of a safetensors file."""
    end = 8 + int.from_bytes(content[:8], "little")
    return content[8:end], lambda text: len(text).to_bytes(8, "little") + text + content[end:]


def mask_files(folder: Path) -> list[bytes]:
    masks.Mask(INDICES, {"rule": "random", "density": 0.1}, FINGERPRINT, 16).save(folder / "m.safetensors")
    masks.Mask({}, {"rule": "all"}, FINGERPRINT, 16).save(folder / "n.safetensors")
    return [(folder / name).read_bytes() for name in ("m.safetensors", "n.safetensors")]


def read_mask(path: Path) -> None:
    assert 0 <= masks.share(path) <= 1
    found = masks.load(path, SHAPES, FINGERPRINT)
    assert dict(found.rule) is not None and 0 <= found.size <= found.eligible


def overlay_files(folder: Path) -> list[bytes]:
    changes = {name: (indices, torch.ones(len(indices))) for name, indices in INDICES.items()}
    write_overlay(folder / "seed", OverlayFile(changes, SHAPES, "some/model", "main", FINGERPRINT, 7, "[loop]\n"))
    return [(folder / "seed").read_bytes()]


def model(file: str) -> Callable[[Path], list[bytes]]:
    """Contents of one file of small models; the first model stays there for the other files."""

    def seeds(folder: Path) -> list[bytes]:
        small = {"num_hidden_layers": 1, "hidden_size": 16, "intermediate_size": 16, "head_dim": 4}
        tiny("llama", folder, shard="8KB" if "index" in file else "5GB", **small)
        tiny("gpt2", folder / "gpt2", shard="8KB" if "index" in file else "5GB", n_layer=1, n_embd=16)
        return [(folder / file).read_bytes(), (folder / "gpt2" / file).read_bytes()]

    return seeds


def gguf_header(content: bytes) -> Opened:
    """The header of a GGUF file: all up to its last tensor's name, and what is said of that."""
    end = content.rfind(b".weight") + 48
    return content[:end], lambda text: text + content[end:]


def gguf_files(folder: Path) -> list[bytes]:
    small = {"num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 32, "head_dim": 8}
    first = tiny("llama", folder / "llama", **small), gguf.GGMLQuantizationType.Q4_0
    second = tiny("gpt2", folder / "gpt2", n_layer=1, n_embd=32), gguf.GGMLQuantizationType.F32
    return [write_gguf(model, folder / f"{kind}.seed", kind).read_bytes() for model, kind in (first, second)]


def read_gguf(path: Path) -> None:
    table = ModelTable(id=str(path))
    assert library.summary(table).id == table.id
    for entry in inspect(path, table).packed.values():
        assert entry.read().shape == entry.shape


def special(folder: Path) -> list[bytes]:
    model("config.json")(folder)
    found = {"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": False, "special": True}, "pad_token": "a"}
    return [json.dumps({**found, "additional_special_tokens": ["<x>"]}).encode()]


def read_model(path: Path) -> None:
    source = inspect(path.parent, ModelTable(id=str(path.parent)))
    for file in set(source.weights.values()):
        for entry in read_header(file).values():
            assert entry.read().shape == entry.shape


def read_tokenizer(path: Path) -> None:
    """Loads the tokenizer as it is before a run, and writes a conversation and some text with it."""
    found = load_tokenizer(path.parent)
    found("a cat", verbose=False)
    if found.chat_template:
        render(conversation(TALK, path.name), found, path.name)


def read_ends(path: Path) -> None:
    assert all(isinstance(end, int) for end in end_tokens(inspect(path.parent, ModelTable(id=str(path.parent)))))


def read_gguf_tokenizer(path: Path) -> None:
    found = load_tokenizer(path)
    found("a cat", verbose=False)
    if found.chat_template:
        render(conversation(TALK, path.name), found, path.name)


GGUF = words(
    "general.architecture general.alignment llama gpt2 gemma3 phi3 mamba llama.block_count llama.attention.head_count "
    "tokenizer.ggml.tokens tokenizer.ggml.merges tokenizer.ggml.model tokenizer.ggml.pre tokenizer.ggml.scores smollm "
    "tokenizer.ggml.eos_token_id blk.0.attn_q.weight output.weight rope_freqs.weight split.count llama.expert_count"
)
TOKENIZER = words(
    "version truncation padding added_tokens normalizer pre_tokenizer post_processor decoder model type BPE Sequence "
    "NFC Replace pattern String Regex content ByteLevel vocab merges unk_token byte_fallback normalizers special id "
    "tokenizer_class PreTrainedTokenizerFast eos_token bos_token pad_token model_max_length auto_map chat_template "
    "extra_special_tokens added_tokens_decoder fast_tokenizer_files backend lstrip __type AddedToken default tool_use"
)
GENERATION = words(
    "eos_token_id bos_token_id pad_token_id temperature do_sample top_p max_length compile_config cache_implementation "
    "watermarking_config transformers_version _from_model_config stop_strings bad_words_ids guidance_scale custom"
)
FOLDER = ("any_damage", "model type")  # pytest's folder, or the architecture that cannot be built
CONFIG = words(
    "num_hidden_layers hidden_size vocab_size num_attention_heads num_key_value_heads head_dim intermediate_size dtype "
    "torch_dtype rope_scaling rope_theta max_position_embeddings layer_types num_labels id2label auto_map model_type "
    "quantization_config llama gpt2 gpt_neo mamba bert t5 qwen2_moe mixtral attention_types is_encoder_decoder "
    "architectures hidden_act tie_word_embeddings text_config use_bfloat16 pruned_heads chunk_size_feed_forward"
)
INDEX = words("weight_map metadata total_size ../model.safetensors /etc/passwd model.safetensors config.json .. .")

# --- recipes ---

RECIPES = words(
    "version [model] [data] [mask] [estimator] [update] [loop] [run] [[data]] id bits device compute source template "
    "columns answers rule density file text epsilon learning_rate steps seed name folder sensitive saved all sgd nan "
    "inf -inf 1979-05-27T07:32:00Z true 0x7f 1e400 ./ ../ ~ ~nobody/x \\u0000 {a=1} [1,2] a.b.c. = == data. loop."
)
RECIPE = """version = 1
[model]
id = "./model"
bits = 8
[data]
source = "~/data.csv"
template = '''{{ text }}
is'''
columns = { answer = "label" }
answers = ["yes", "no"]
[mask]
rule = "random"
density = 1e-3
[loop]
steps = 100
[run]
name = "r"
"""
SETTINGS = "loop.steps=100\nmask.rule=random\ndata.columns={ answer = 'label' }\ndata.answers=['a', 'b']\nrun.name=a b"


def read_settings(path: Path) -> None:
    recipe.with_settings(Recipe(), path.read_bytes().decode("utf-8", "surrogateescape").splitlines())


# --- data ---

ROWS = [{"text": 'a film, "fine"', "label": ("good", "bad")[row % 2], "n": row, "o": {"p": [1.5]}} for row in range(6)]
TALK = [{"role": role, "content": "hi"} for role in ("system", "user", "assistant", "user", "assistant")]
CSV = "text,label\n" + "".join(f'"a ""film"", {row}",{("good", "bad")[row % 2]}\n' for row in range(6))
TSV = "text\tlabel\n" + "".join(f'so "he" says {row}\t{("good", "bad")[row % 2]}\n' for row in range(6))
JSONL = "\n".join(map(json.dumps, ROWS))
CHAT = "\n".join([json.dumps({"messages": TALK}), json.dumps({"messages": json.dumps(TALK)})] * 3)
SHARED = "\n".join([json.dumps({"conversations": [{"from": who, "value": "a"} for who in ("human", "gpt")]})] * 3)
DATA = words("text label good bad messages role content assistant user from value gpt None 1.0 -1 true")


def contents(*texts: str) -> Callable[[Path], list[bytes]]:
    return lambda _: [text.encode() for text in texts]


def packed(module: Any, *texts: str, **facts: Any) -> Callable[[Path], list[bytes]]:
    return lambda _: [module.compress(text.encode(), **facts) for text in texts]


def gz(content: bytes) -> Opened:
    return gzip.decompress(content), lambda text: gzip.compress(text, mtime=0)


def xz(content: bytes) -> Opened:
    return lzma.decompress(content), lzma.compress


def parquet_files(folder: Path) -> list[bytes]:
    import pyarrow
    from datasets import ClassLabel, Dataset, Features, Value, disable_progress_bars
    from pyarrow import parquet

    disable_progress_bars()
    features = Features({"text": Value("string"), "label": ClassLabel(names=["bad", "good"])})
    Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, 1]}, features=features).to_parquet(folder / "1")
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), folder / "2", compression="gzip")
    return [(folder / "1").read_bytes(), (folder / "2").read_bytes()]


def rows(**table: Any) -> Callable[[Path], None]:
    """Reads data as the window does before a run: rows, splits, examples and their tokens."""

    def read(path: Path) -> None:
        found = preview(DataTable(source=str(path), **table), byte_pairs())
        if found.problem:
            raise UserError(f"{path.name}: {found.problem}")  # it is told beside the file's rows

    return read


# --- templates ---

TEMPLATES = (
    "{{ text }} is{% if label %} {{ label | upper }}{% else %}?{% endif %}",
    "{{ row['text'].strip() | capital }}{{ '' if text.endswith('?') else '?' }} {{ [text, label] | join(', ') }}",
    "{{ text | replace('a', 'b') | trim }} {{ n + 1 }} {{ text[:3] }} {% raw %}{{ }}{% endraw %}{# no #}",
)
JINJA = words(
    "{{text}} {%for {%set {%macro {%if {%endif%} {%endfor%} {%include {%block {%call in range(10**9) loop text label "
    "row n o | ~ ** * // % + - == not and or is | attr('__class__') .__class__ .__init__.__globals__ .format( cycler "
    "lipsum self joiner namespace|join |center(10**9) |indent(10**9) |map('upper') |tojson |format |replace('','a') "
    "|wordwrap(1) |list |sum |batch(2) |xmlattr |default ('a'*10**9) ['a']*10**9 9**9**9 1<<9 '%1000000000d'%1 "
    "caller() super() __import__ text.join(text) | | ( ) , : [ ] {%-  -%} \\ 'a'"
)


CHATS = (*JINJA, *words(
    "{%for m in messages%} {%endfor%} {%set ns=namespace(x='a'*99)%} {%set ns.x=ns.x~ns.x%} m.role m['content'] tojson "
    "raise_exception('no') add_generation_prompt bos_token eos_token loop.last {%generation%} {%break%} strftime_now( "
    "dict( messages range(99999) lipsum(n=9999) joiner() 9**9**9 'x'*10**9"
))  # fmt: skip


def read_template(path: Path) -> None:
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    Template(text).render({**ROWS[0], "row": ROWS[0]}, "row 1")


# --- runs ---

FACTS = Facts(
    model="some/model", revision="main", fingerprint=FINGERPRINT, generator="philox", mask_hash=FINGERPRINT,
    data_hash=FINGERPRINT, parameters=9, eligible=8, tuned=7, device="CPU",
    branched=Branched(step=3, records=3, hash=FINGERPRINT),
)  # fmt: skip
RUN = words("version name created versions fingerprint branched step records factor pack_rows null 1e99 -1 NaN [] {}")
EVENTS = "\n".join(
    json.dumps(event.as_json()) for event in (
        e.Evaluation(2, "validation", {"accuracy": 0.5, "loss": 1.0}), e.Notice("ü", "warning"), e.Returned(1),
        e.GeneralText(2, 1500, 20.0, 21.0),
        e.Examples(2, "test", [{"number": 1, "loss": 0.5, "prompt": "", "expected": "a", "answer": "b"}], []),
        e.Finished(4, "early", FINGERPRINT),
    )
)  # fmt: skip
HEADER, RECORD = 128, 60
GRADIENTS = 52, 40, 30  # header, begin of a record, values


def journal_files(folder: Path) -> list[bytes]:
    with JournalWriter(folder / "seed", journal.Header(1, 0, FINGERPRINT, FINGERPRINT, "philox")) as file:
        for step in (1, 2, 3, -1, 2, 3, 4):
            if step < 0:
                file.go_back(-step)
            else:
                file.append(step=step, tokens=9, loss=1.0, rate=1e-3, seconds=0.1, memory=99, values=(0.5,))
    return [(folder / "seed").read_bytes()]


def unsealed(content: bytes) -> Opened:
    """A journal whose checksums are made anew after the change, so that it is not them alone that refuse it."""

    def seal(text: bytes) -> bytes:
        parts = [text[: HEADER - 4], *(text[at : at + RECORD - 4] for at in range(HEADER, len(text), RECORD))]
        return b"".join(part + zlib.crc32(part).to_bytes(4, "little") for part in parts)

    return content, seal


def read_journal(path: Path) -> None:
    found = journal.read(path)
    assert len(found.steps) == found.step - found.header.start
    assert (found.steps["step"] == range(found.header.start + 1, found.step + 1)).all() and found.returns is not None


def gradient_files(folder: Path) -> list[bytes]:
    writer = gradients.GradientWriter(folder / "seed", GRADIENTS[2], FINGERPRINT, 1 << 20)
    for step in (1, 2, 3):
        writer.append(step, step / 3, gradients.rounded(torch.linspace(-step, 1, GRADIENTS[2])))
    return [(folder / "seed").read_bytes()]


def unsealed_gradients(content: bytes) -> Opened:
    """Gradients whose checksums are made anew after the change, as far as the lengths say where they are."""

    def seal(text: bytes) -> bytes:
        head, begin, _ = GRADIENTS
        found, at = text[: head - 4] + zlib.crc32(text[: head - 4]).to_bytes(4, "little"), head
        while at + begin <= len(text):
            end = at + begin + 2 * int.from_bytes(text[at + 24 : at + 32], "little")
            fields = text[at : at + 32] + zlib.crc32(text[at + begin : end]).to_bytes(4, "little")
            found += fields + zlib.crc32(fields).to_bytes(4, "little") + text[at + begin : end]
            at = end
        return found

    return content, seal


def read_gradients(path: Path) -> None:
    found = gradients.read(path, GRADIENTS[2], FINGERPRINT)
    for step, at in found.places:
        record = np.zeros(1, journal.record_dtype(1))
        record["step"], record["time"] = step, at
        values = found.of(record[0])
        assert (
            values is None or values.unpacked(torch.zeros(GRADIENTS[2])) is None or len(values.numbers) <= GRADIENTS[2]
        )
    if found.fault:
        raise UserError(found.fault)


def frame_files(folder: Path) -> list[bytes]:
    start = torch.ones(50)
    states = ((None, None), (None, (0.5, 3)), ((0.5,), (torch.zeros(50), 1)))
    known = FINGERPRINT, FINGERPRINT
    return [checkpoints.write(folder, 1, 1, start, 2 * start, state, *known).read_bytes() for state in states]


def read_frame(path: Path) -> None:
    made = checkpoints.Checkpoint(path, 1, 1)
    found = checkpoints.read(made, torch.ones(50), torch.empty(50), FINGERPRINT, FINGERPRINT)
    assert found is None or len(found) == 2  # a frame that cannot be used is passed over without a word


def run_files(folder: Path) -> list[bytes]:
    (folder / "recipe.toml").write_text(RECIPE)
    return [FACTS.model_dump_json().encode()]


def read_run(path: Path) -> None:
    summary(path.parent)  # as the list of runs shows it, whatever is wrong with it
    assert open_run(path.parent).facts.tuned is not None


def event_files(folder: Path) -> list[bytes]:
    create(folder, Recipe(), FACTS.model_dump(exclude={"version", "name", "created", "versions", "branched"}))
    return [EVENTS.encode()]


def shared_files(folder: Path) -> list[bytes]:
    event_files(folder)
    (folder / "events.jsonl").write_text(EVENTS)
    (folder / "journal.bin").write_bytes(journal_files(folder)[0])
    masks.Mask(INDICES, {"rule": "random"}, FINGERPRINT, 16).save(folder / "mask.safetensors")
    share(open_run(folder), folder / "seed.zip")
    return [(folder / "seed.zip").read_bytes()]


def read_shared(path: Path) -> None:
    folder = path.parent / "here"
    shutil.rmtree(folder, ignore_errors=True)
    receive(path, folder)


FORMATS = {
    "mask": Format("m.safetensors", mask_files, read_mask, header, TENSORS),
    "overlay": Format("o.safetensors", overlay_files, read_overlay, header, TENSORS),
    "weights": Format("model.safetensors", model("model.safetensors"), read_model, header, TENSORS, FOLDER),
    "config": Format("config.json", model("config.json"), read_model, words=CONFIG, named=FOLDER),
    "index": Format(
        "model.safetensors.index.json", model("model.safetensors.index.json"), read_model, words=INDEX, named=FOLDER
    ),
    "generation": Format(
        "generation_config.json", model("generation_config.json"), read_ends, words=GENERATION, named=FOLDER, every=3
    ),
    "tokenizer": Format(
        "tokenizer.json", model("tokenizer.json"), read_tokenizer, words=TOKENIZER, named=FOLDER, every=6
    ),
    "tokenizer config": Format(
        "tokenizer_config.json", model("tokenizer_config.json"), read_tokenizer, words=TOKENIZER, named=FOLDER, every=3
    ),
    "special tokens": Format(
        "special_tokens_map.json", special, read_tokenizer, words=TOKENIZER, named=FOLDER, every=3
    ),
    "chat template": Format(
        "chat_template.jinja", model("chat_template.jinja"), read_tokenizer, words=CHATS, named=FOLDER, every=3
    ),
    "gguf": Format("m.gguf", gguf_files, read_gguf, gguf_header, GGUF),
    "gguf tokenizer": Format("m.gguf", gguf_files, read_gguf_tokenizer, gguf_header, GGUF, every=6),
    "recipe": Format("r.toml", contents(RECIPE), recipe.load, words=RECIPES),
    "settings": Format("settings", contents(SETTINGS), read_settings, words=RECIPES, named=("--set",)),
    "csv": Format("a.csv", contents(CSV, CSV.replace(",", ";")), rows(), words=DATA),
    "tsv": Format("a.tsv", contents(TSV), rows(), words=DATA),
    "json": Format("a.json", contents(json.dumps(ROWS), json.dumps({"data": ROWS}), JSONL), rows(), words=DATA),
    "jsonl": Format("a.jsonl", contents(JSONL), rows(), words=DATA),
    "text": Format("a.txt", contents("one\ntwo\n\nthree\n", "one\ntwo\n" * 5), rows(task="text"), words=DATA),
    "csv.gz": Format("a.csv.gz", packed(gzip, CSV, mtime=0), rows(), gz, DATA),
    "jsonl.xz": Format("a.jsonl.xz", packed(lzma, JSONL), rows(), xz, DATA),
    "parquet": Format("a.parquet", parquet_files, rows(), words=DATA),
    "chat": Format("a.jsonl", contents(CHAT, SHARED), rows(task="chat"), words=DATA),
    "journal": Format("journal.bin", journal_files, read_journal, unsealed),
    "gradients": Format("gradients.bin", gradient_files, read_gradients, unsealed_gradients),
    "frame": Format("1-1.safetensors", frame_files, read_frame, header, TENSORS),
    "run": Format("run.json", run_files, read_run, words=RUN, named=("any_damage",)),
    "events": Format("events.jsonl", event_files, lambda path: summary(path.parent), words=RUN),
    "shared": Format("s.zip", shared_files, read_shared, words=RUN, named=("here",)),
    "template": Format("template", contents(*TEMPLATES), read_template, words=JINJA, named=("[data] template",)),
}
"""Adding a format adds one line here."""
