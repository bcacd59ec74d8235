"""The memory formula against what a loaded model holds, and how it answers changes."""

from __future__ import annotations

import dataclasses
import gc
import mmap
import sys

import pytest
import torch
from transformers import LlamaConfig

from sparsezo_gui import resources
from sparsezo_gui.console import Console
from sparsezo_gui.engine import device as devices
from sparsezo_gui.engine import frozen, planning
from sparsezo_gui.engine.data import load_task
from sparsezo_gui.engine.data.readers import read
from sparsezo_gui.engine.forward import BACKWARD_LOGITS_BYTES, LOGITS_BYTES
from sparsezo_gui.engine.general import general_text
from sparsezo_gui.engine.memory import CANDIDATE_BYTES, GENERAL_TOKENS, RUNTIME, estimate
from sparsezo_gui.engine.objective import count_tokens, packs_of
from sparsezo_gui.engine.passes import kept_for_backward
from sparsezo_gui.engine.pretrained import finite
from sparsezo_gui.engine.pretrained.spec import spec
from sparsezo_gui.engine.zo.batches import shuffled_batch
from sparsezo_gui.recipe.registry import ESTIMATORS, UPDATES
from sparsezo_gui.recipe.tables import build
from tests.engine.conftest import finish
from tests.models import FAMILIES, module

LLAMA = spec(module("llama").config)


def found(
    parts=LLAMA, device="cpu", longest=64, batch=512, scored=16, available=2**40, streamed=False, more=None, **tables
):
    recipe = build({"mask": {"rule": "random", "density": 0.001}, **tables})
    return estimate(recipe, parts, device, longest, batch, scored_tokens=scored, streamed=streamed,
                    available=available, capacity=2**40, **(more or {}))  # fmt: skip


def part(result, name, *default):
    return next((part.bytes for part in result.parts if part.name == name), *default)


@pytest.mark.parametrize("bits", [4, 8, 32])
@pytest.mark.parametrize("family", FAMILIES)
def test_weights_are_what_the_loaded_model_holds(family, bits, frozen_tiny):
    model = frozen_tiny(family, bits)
    result = found(model.spec, model={"bits": bits})
    stores = sum(layer.frozen.nbytes for layer in model.layers.values())
    assert part(result, "Frozen weights") + part(result, "Quantisation statistics") == stores
    rest = {parameter.data_ptr(): parameter.nbytes for parameter in model.module.parameters()}
    biases = sum(layer.bias.nbytes for layer in model.layers.values() if layer.bias is not None)
    held = sum(rest.values()) + biases
    assert part(result, "Embeddings and head") + part(result, "Other weights") == held


def test_a_seven_billion_model_fits_where_the_paper_says():
    """Llama-2-7B at 4 bits, 0.1 % tuned, batches of 16: below 8 GiB on a GPU (arXiv 2406.02913, table 4)."""
    result = found(spec(LlamaConfig()), "cuda", 256, 4096, available=8 * 2**30)
    assert result.total < 8 * 2**30
    assert 3.4e9 < part(result, "Frozen weights") + part(result, "Quantisation statistics") < 3.7e9
    assert result.total < result.others["qlora"] < result.others["lora"] < result.others["full"]
    assert result.others["full"] > 100e9


def test_parts_add_up_and_explain_themselves():
    result = found()
    assert result.total == sum(part.bytes for part in result.parts)
    assert all(part.why.endswith(".") and part.bytes >= 0 for part in result.parts)
    assert part(result, "Runtime") >= RUNTIME["cpu"]
    assert result.as_json()["total"] == result.total
    assert set(result.others) == {"lora", "qlora", "full"}


def test_the_verdict_follows_what_is_available():
    total = found().total
    assert found(available=2 * total).verdict == "fits"
    assert found(available=total + 1).verdict == "tight"
    assert found(available=total - 1).verdict == "too large"


def test_what_costs_more_is_told_as_more():
    base = found().total
    assert found(longest=4096).total > base
    assert found(scored=64, longest=4096).total >= found(longest=4096).total
    assert found(model={"bits": 32}).total > found(model={"bits": 16}).total > base
    assert found(mask={"rule": "random", "density": 1.0}).total > base
    assert found(estimator={"rule": "two-sided", "directions": 4}).total > base

    def model_alone(**options):
        return sum(part.bytes for part in found(**options).parts if part.name != "Runtime")

    assert model_alone(device="cuda", available=2**40) < model_alone()  # 16-bit numbers where a CPU has 32


def test_a_large_weight_is_made_dense_in_spans_on_a_cpu():
    large = dataclasses.replace(LLAMA, largest=4096 * 11008)
    assert part(found(large, "cuda"), "Workspace") > 2 * 4096 * 11008
    assert 16 * 2**20 <= part(found(large), "Workspace") < 17 * 2**20


def test_the_device_is_asked_when_nothing_is_said():
    result = estimate(build({}), LLAMA, "cpu", 64, 512)
    assert 0 < result.available <= result.capacity * 1.05


def test_the_processor_is_told():
    cpu = devices.choose("cpu")
    assert devices.name(cpu).startswith("CPU")
    assert 0 < devices.memory_used(cpu) < devices.memory_total(cpu)
    assert 0 < devices.memory_free(cpu) <= devices.memory_total(cpu)


def test_what_an_update_remembers_and_tries_is_counted():
    plain = part(found(), "Tuned values")
    tuned = round(0.001 * LLAMA.eligible)
    sizes = {rule: part(found(update={"rule": rule}), "Tuned values") - plain for rule in UPDATES}
    assert sizes == {
        "sgd": 0, "scalar-normalised": 0, "sign": 0, "momentum": 4 * tuned, "adam": 8 * tuned,
        "conservative": 2 * 4 * tuned,  # a third side, as directions of it and as values
    }  # fmt: skip
    more = [part(found(batch=256, update={"rule": rule}), "Activations") for rule in ("sgd", "conservative")]
    assert more[0] < more[1]


def test_what_is_kept_for_the_way_back_is_counted():
    kept = {rule: part(found(estimator={"rule": rule}), "Backpropagation", 0) for rule in ESTIMATORS}
    backwards = {rule for rule in ESTIMATORS if ESTIMATORS[rule].backwards}
    assert backwards == {rule for rule, size in kept.items() if size} == {
        "first-order", "forward-gradient", "elastic", "addax",
    }  # fmt: skip
    assert kept["elastic"] < kept["first-order"], "one block instead of all"


@pytest.mark.parametrize(
    "tables",
    [{"estimator": {"rule": "addax"}}, {"estimator": {"rule": "forward-gradient"}, "update": {"rule": "conservative"}},
     {"estimator": {"rule": "first-order"}, "selection": {"rule": "coreset"}}],
)  # fmt: skip
def test_forward_passes_beside_a_backward_pass_have_their_own_rows(tables):
    activations = [part(found(batch=2048, **each), "Activations") for each in ({}, tables)]
    exact = part(found(batch=2048, estimator={"rule": "first-order"}), "Activations")
    assert exact < 0.6 * activations[0] and activations[1] > 0.9 * activations[0]


def test_a_backward_pack_is_not_halved_by_the_other_side(make):
    chosen = make(estimator={"rule": "elastic"}, loop={"batch_size": 8, "pass_rows": 64})
    train = finish(load_task(chosen.data, finish(frozen.load(chosen.model)).tokenizer)).train.encoded
    batches = [shuffled_batch(chosen.loop, step, train) for step in range(1, 7)]
    largest = max(sum(map(count_tokens, pack)) for batch in batches for pack in packs_of(batch, 64, 1))
    (why,) = [each.why for each in planning.estimate(chosen).parts if each.name == "Backpropagation"]
    assert largest > 32 and f"for {largest} tokens" in why


@pytest.mark.parametrize("rule", list(ESTIMATORS))
def test_every_estimator_can_be_measured(make, rule):
    measured = finish(planning.measure(make(estimator={"rule": rule})))
    assert measured.total > 0


def test_the_longest_passage_of_the_general_text_is_measured_too(make, monkeypatch):
    seen, real = [], planning.objective.measure
    monkeypatch.setattr(planning.objective, "measure", lambda *each: [seen.append(each), real(*each)][1])
    finish(planning.measure(recipe := make()))
    model, pack = seen[-1]
    assert pack == general_text(model, recipe.data.max_tokens)


def eight_billion(**settings):
    return spec(LlamaConfig(
        hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8,
        vocab_size=128256, dtype=torch.bfloat16, **settings,
    ))  # fmt: skip


def test_one_long_chat_example_for_a_large_model_takes_no_more_than_its_weights_and_a_little():
    """Embeddings and head in the checkpoint's 16 bits, and logits by chunks; both as a whole took 12.5 GiB."""
    parts = eight_billion()
    result = found(parts, longest=2048, batch=2048, scored=2048)
    assert part(result, "Embeddings and head") == 2 * 2 * 128256 * 4096
    assert 0 < part(result, "Logits") <= LOGITS_BYTES, "a chunk of them"
    assert result.total < 7.2 * 2**30
    whole = dataclasses.replace(parts, halved=False)
    assert part(found(whole), "Embeddings and head") == 2 * 4 * 128256 * 4096


def test_logits_are_told_by_the_chunk():
    wide = dataclasses.replace(LLAMA, vocabulary=2**20)
    short = {"data": {"max_tokens": 8}}  # the general text too
    told = [part(found(wide, longest=2048, batch=2048, scored=scored, **short), "Logits") for scored in (1, 16, 2048)]
    assert told[0] < told[1] == told[2] <= LOGITS_BYTES
    backwards = part(found(wide, longest=2048, scored=16, estimator={"rule": "first-order"}, **short), "Logits")
    assert 0 < backwards <= 2 * BACKWARD_LOGITS_BYTES, "smaller chunks, with their gradient"


def test_an_evaluation_is_part_of_what_is_told():
    short = found(longest=8, batch=8, scored=1)
    assert found(longest=8, batch=8, scored=1, more={"evaluated": (8, 1)}).total == short.total
    assert found(longest=8, batch=8, scored=1, more={"evaluated": (1000, 900)}).total > short.total


def test_the_general_text_is_part_of_what_is_told():
    longest = max(len(str(record.values["text"])) for record in read(resources.ROOT / "text" / "check.jsonl"))
    assert longest // 4 == GENERAL_TOKENS
    few = found(longest=8, batch=8, scored=1)
    logits = part(few, "Logits")
    assert logits == 4 * GENERAL_TOKENS * LLAMA.vocabulary, "logits at every token of a passage"
    one = found(longest=8, batch=8, scored=1, data={"max_tokens": 8})
    assert part(one, "Logits") == 4 * 8 * LLAMA.vocabulary
    large = found(longest=512, batch=512, scored=1)
    assert part(large, "Logits") == logits and part(large, "Activations") > part(few, "Activations")
    on_gpu = found(longest=512, batch=512, scored=1, device="cuda")
    assert part(on_gpu, "Logits") < logits, "there, they begin in what activations leave"


def test_what_the_process_takes_before_any_model_counts():
    usual = part(found(), "Runtime")
    assert part(found(more={"program": RUNTIME["cpu"] + 10}), "Runtime") == usual + 10
    assert part(found(more={"program": 10}), "Runtime") == usual, "the engine's own libraries are still to come"


def test_the_search_for_a_mask_is_part_of_what_is_told():
    parts = eight_billion()
    block = parts.eligible // parts.layers
    sizes = [part(found(parts, mask={"rule": rule}), "Finding the mask", 0) for rule in ("random", "sensitive")]
    many = [
        part(found(parts, mask={"rule": "random", "density": 0.1, "scope": scope}), "Finding the mask", 0)
        for scope in ("global", "row")
    ]
    assert many[0] > many[1] == 0, "candidates among all weights"
    assert sizes[0] == 0 and 8 * block < sizes[1] + 2**30 < 12 * block + 2**30
    in_rows = sizes[1] - CANDIDATE_BYTES * parts.eligible // 1000
    assert part(found(parts, mask={"rule": "multi-task"}), "Finding the mask") > in_rows + 3 * block


def test_other_methods_are_told_as_their_users_run_them():
    """With gradient checkpointing, and with logits at the learned places alone."""
    parts = eight_billion()
    few, many = (found(parts, longest=1024, batch=1024, scored=scored).others for scored in (1, 1001))
    assert many["lora"] - few["lora"] == 1000 * 10 * parts.vocabulary
    longer = found(parts, longest=2048, batch=2048, scored=1).others
    kept = 2 * 1024 * (parts.hidden * parts.layers + kept_for_backward(parts))
    assert longer["qlora"] - few["qlora"] == kept and kept < 2**30


def test_the_program_is_what_was_there_before_the_first_model(monkeypatch):
    monkeypatch.setattr(devices, "_program", [])
    monkeypatch.setattr(devices, "memory_used", lambda device: 700)
    assert devices.program_bytes() == 700 + devices.BUFFERS
    devices.note_program()
    monkeypatch.setattr(devices, "memory_used", lambda device: 9_000)
    devices.note_program()
    assert devices.program_bytes() == 700 + devices.BUFFERS


def test_a_measured_estimate_says_so_and_an_estimated_one_too(make, capsys):
    chosen = make()
    for work, how in ((planning.estimating, "estimated"), (planning.measure, "measured")):
        result = finish(work(chosen))
        assert result.measured == (how == "measured")
        Console(as_json=False).memory(result)
        lines = capsys.readouterr().out.splitlines()
        assert [line for line in lines if line.startswith("Total") and f"  {how}, " in line]
        others = [line for line in lines if line.startswith("With ") and not line.startswith("With less memory")]
        assert len(others) == len(result.others) == 3 and all(line.endswith("  estimated") for line in others)


def test_what_is_estimated_is_not_among_what_was_measured(make, monkeypatch, capsys):
    monkeypatch.setattr(planning.memory, "search_bytes", lambda *_: 2**50)
    result = finish(planning.measure(make()))
    assert result.search > 2**49 > result.total == sum(part.bytes for part in result.parts)
    assert result.verdict == "too large", "the mask is found on this computer, too"
    assert not any("stimated" in part.why for part in result.parts)
    Console(as_json=False).memory(result)
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if line.startswith("Finding the mask")]
    assert "  estimated; " in line and lines.index(line) > len(result.parts)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is let go")
def test_a_mapped_file_that_was_read_is_let_go_and_can_be_read_again(tmp_path):
    file, size = tmp_path / "weights", 32 * 2**20
    file.write_bytes(b"x" * size)
    (tmp_path / "link").symlink_to(file)
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert mapped[:].count(b"x") == size
        before = devices.memory_used(devices.choose("cpu"))
        devices.let_go([tmp_path / "link"])
        assert devices.memory_used(devices.choose("cpu")) < before - size // 2
        assert mapped[:].count(b"x") == size


@pytest.mark.parametrize("frozen_before", [True, False])
@pytest.mark.parametrize(("release", "least", "most"), [(0, 14, 14), (40_000, 2, 12), (finite.RELEASE, 1, 1)])
def test_what_the_loader_leaves_of_weights_is_given_back(make, monkeypatch, frozen_before, release, least, most):
    """Before the first of 14 weights, and then whenever enough came, about: the loader has several threads."""
    given, gone, thawed = [], [], []
    monkeypatch.setattr(finite, "RELEASE", release)
    monkeypatch.setattr(finite, "give_back_freed", lambda: given.append(1))
    monkeypatch.setattr(finite, "let_go", gone.extend)
    monkeypatch.setattr(gc, "get_freeze_count", lambda: int(frozen_before))
    monkeypatch.setattr(gc, "freeze", lambda: thawed.append(False))
    monkeypatch.setattr(gc, "unfreeze", lambda: thawed.append(True))
    assert len(finish(frozen.load(make().model)).layers) == 14 and least <= len(given) <= most
    assert {path.name for path in gone} == {"model.safetensors"}
    assert thawed == [False, True, False][: 3 if frozen_before else 2], "frozen after it where it was before"


def test_an_evaluation_that_writes_answers_is_part_of_what_is_told():
    parts = eight_billion()
    token = 2 * 32 * 8 * 128 * 4  # keys and values of each of 32 layers
    long = part(found(parts, longest=2048, batch=2048, more={"written": 2048}), "Written answers")
    assert 0 < long <= 2048 * token
    assert part(found(parts, longest=2048, batch=2048), "Written answers", 0) == 0
    many = part(found(longest=64, batch=64, more={"written": 64}), "Written answers")
    few = part(found(longest=64, batch=64, more={"written": 2}), "Written answers")
    assert many > few, "several are written at once"


def test_answers_are_written_where_there_are_none_to_choose_from(make):
    chosen = make()
    pairs = make(data={"task": "pairs"})
    told = [[each.name for each in planning.estimate(recipe).parts] for recipe in (chosen, pairs)]
    assert ["Written answers" in names for names in told] == [False, True]
    data = finish(load_task(pairs.data, finish(frozen.load(pairs.model)).tokenizer))
    asked = [*data.validation.encoded, *data.test.encoded]
    longest = max(len(each.prompt) for each in asked) + max(len(each.rows[0].targets) for each in asked)
    assert planning._written(asked) == longest + 8
