"""The command line as its users meet it: exit codes, sentences, JSON, signals."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from huggingface_hub import constants
from transformers import AutoTokenizer

from sparsezo_gui.answers import RateReport
from sparsezo_gui.console import Console
from sparsezo_gui.engine import rate_search
from sparsezo_gui.engine.data.keys import name_of
from sparsezo_gui.engine.data.record import Record
from sparsezo_gui.engine.store import Store
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe import events as e
from sparsezo_gui.stages import starting
from tests.models import tiny


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    return tiny("llama", tmp_path_factory.mktemp("cli") / "llama")


@pytest.fixture
def recipe_file(tmp_path, tiny_folder):
    rows = [{"text": f"film {i}", "label": "yes" if i % 2 else "no"} for i in range(40)]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    path = tmp_path / "r.toml"
    path.write_text(
        f'[model]\nid = "{tiny_folder}"\ndevice = "cpu"\n'
        '[data]\nsource = "data.jsonl"\ntemplate = "{{ text }} is it?"\ncolumns = { answer = "label" }\n'
        "train = 20\nvalidation = 8\ntest = 8\n"
        '[mask]\nrule = "random"\ndensity = 0.01\n[loop]\nsteps = 5\nbatch_size = 2\nevaluate_every = 0\n'
    )
    return path


def objects(lines):
    return [json.loads(line) for line in lines]


def test_preview_as_json(run, recipe_file, tiny_folder):
    """The examples as trained, with what is learned of each, and what is noticed; progress is not told."""
    code, lines, error = run("preview", recipe_file, "--json", "--split", "validation", "--examples", 2)
    found = objects(lines)
    assert (code, error) == (0, "")
    assert [(each["event"], each.get("number")) for each in found] == [("example", 1), ("example", 2)]
    assert list(found[0]) == ["event", "number", "split", "tokens", "text", "trained", "answer"]
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    for each in found:
        assert each["split"] == "validation"
        assert each["text"].endswith(f" is it? {each['answer']}") and each["answer"] in ("yes", "no")
        assert each["trained"] == [f" {each['answer']}"]
        assert each["tokens"] == len(tokenizer(each["text"]).input_ids)
    code, lines, _ = run("preview", recipe_file, "--json", "--set", "data.template={{ text }} {label}")
    *shown, notice = objects(lines)
    assert code == 0 and len(shown) == 5
    assert (notice["event"], notice["level"]) == ("notice", "warning") and "'{label}' is plain text" in notice["text"]


def test_a_run_says_what_the_preview_says(run, recipe_file, tmp_path):
    settings = ("--set", "data.template={{ text }} {label}", "--set", "data.max_tokens=12", "--set", "loop.steps=1")
    shown = objects(run("preview", recipe_file, "--json", *settings)[1])
    code, lines, _ = run("train", recipe_file, "--run", tmp_path / "run", "--json", *settings)
    told = [each for each in objects(lines) if each["event"] == "notice"]
    noticed = [each for each in shown if each["event"] == "notice"]
    assert code == 0 and len(noticed) >= 2 and told[: len(noticed)] == noticed


def test_preview_in_words(run, recipe_file):
    code, lines, error = run("preview", recipe_file, "--examples", 1)
    assert code == 0
    assert lines[0].startswith("train example 1: ") and "⟦ " in lines[1] and lines[1].endswith("⟧")
    assert "Examples: train 20 · validation 8 · test 8." in error


def test_preview_needs_a_tokenizer_only(run, recipe_file, tiny_folder, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    for path in (*tiny_folder.glob("*token*"), *tiny_folder.glob("chat*")):
        shutil.copy(path, bare)
    code, lines, _ = run("preview", recipe_file, "--json", "--set", f"model.id={bare}")
    assert code == 0 and lines == run("preview", recipe_file, "--json")[1]
    (bare / "tokenizer.json").unlink()
    code, _, error = run("preview", recipe_file, "--set", f"model.id={bare}")
    assert code == 2 and "tokenizer cannot be loaded" in error


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("m.gguf", "GGUF", "broken or incomplete"),
        ("adapter_config.json", '{"base_model_name_or_path": "x/y"}', "is an adapter of kind 'None'"),
        ("config.json", '{"architectures": ["LlamaForSequenceClassification"]}', "is a text classifier"),
    ],
)
def test_preview_names_what_is_no_model_to_tune(run, recipe_file, tiny_folder, tmp_path, name, content, told):
    other = tmp_path / "other"
    other.mkdir()
    for path in tiny_folder.glob("*token*") if name != "m.gguf" else ():
        shutil.copy(path, other)
    (other / name).write_text(content)
    code, lines, error = run("preview", recipe_file, "--json", "--set", f"model.id={other}")
    assert code == 2 and told in objects(lines)[0]["message"] and told in error


def test_what_is_wrong_with_data_is_said_before_a_run(run, recipe_file, tmp_path):
    """By every command that reads it, in the same words, and no folder is left."""
    rows = [{"text": f"film {i}", "label": "yes" if i % 2 else "" if i % 4 else "no"} for i in range(40)]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    told = "9 of 36 rows have gaps: the column 'label' is empty. The first in the file: data.jsonl, row 3, row 7 and"
    for command in (("preview",), ("train", "--run", tmp_path / "run"), ("evaluate",)):
        code, lines, error = run(command[0], recipe_file, *command[1:], "--json")
        assert code == 2 and told in objects(lines)[-1]["message"] and told in error
    assert not (tmp_path / "run").exists()
    code, lines, _ = run("preview", recipe_file, "--json", "--set", "data.leave_out_gaps=true")
    assert code == 0 and "9 rows with gaps were left out" in objects(lines)[-1]["text"]
    code, _, error = run("preview", recipe_file, "--set", "data.leave_out_gaps=true", "--set", "data.test=0",
                         "--split", "test")  # fmt: skip
    assert code == 2 and "There are no test examples" in error


def test_preview_tells_how_many_rows_are_left_out_and_duplicates_removed(run, recipe_file, tmp_path):
    rows = [{"text": f"film {i % 30}", "label": "yes" if i % 2 else "no"} for i in range(40)]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    names = [name_of(Record(row, "", 0)) for row in (rows[0], rows[15], {"text": "gone"})]
    settings = ("--set", f"data.leave_out={names}", "--set", "data.duplicates=remove", "--set", "data.split_seed=3")
    told = [
        "3 rows were left out.",
        "1 of the rows to leave out is not in the data: it was removed, or changed and is used again.",
        "10 duplicates were removed: one of each stays, in test if it is there, else in validation or training.",
    ]
    code, lines, _ = run("preview", recipe_file, "--json", *settings)
    assert code == 0 and [each["text"] for each in objects(lines) if each["event"] == "notice"] == told
    code, _, error = run("preview", recipe_file, *settings)
    assert code == 0 and all(text in error for text in told) and "Examples: train 18 · validation 5 · test 5." in error
    code, lines, error = run("preview", recipe_file, "--set", "data.leave_out=['x']", "--json")
    assert code == 2 and "leave_out.0: must be 16 hexadecimal digits" in error


def test_examples_beyond_the_model_are_refused_before_a_run(run, recipe_file, tmp_path):
    model = tiny("gpt2", tmp_path / "gpt2", n_positions=16)
    rows = [{"text": f"{i} " + "that is great " * 9 * (i == 3), "label": "yes" if i % 2 else "no"} for i in range(36)]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    settings = ("--set", f"model.id={model}", "--set", "data.template={{ text }}")
    for command in ("preview", "estimate", "train", "evaluate"):
        code, lines, _ = run(command, recipe_file, "--json", *settings)
        assert code == 2, lines
        assert "longer than the 16 tokens that the model has positions for" in objects(lines)[-1]["message"]
    code, lines, _ = run("preview", recipe_file, "--json", *settings, "--set", "data.max_tokens=16")
    assert code == 0 and "longer than 16 tokens" in objects(lines)[-1]["text"]


def test_the_whole_way(run, recipe_file, tmp_path, tiny_folder):
    """Estimate, train, evaluate, generate, export, and the export in plain transformers."""
    code, lines, _ = run("estimate", recipe_file, "--json")
    assert code == 0
    assert objects(lines)[0]["total"] > 0
    code, lines, _ = run("estimate", recipe_file, "--measure", "--json")
    assert code == 0
    assert objects(lines)[-1]["verdict"] == "fits"
    code, lines, error = run("train", recipe_file, "--run", tmp_path / "run", "--json")
    assert (code, error) == (0, "")
    steps = [each for each in objects(lines) if each["event"] == "step"]
    assert [step["step"] for step in steps] == [1, 2, 3, 4, 5]
    assert {"event", "step", "loss", "seconds", "memory_bytes"} <= steps[0].keys()
    assert all(step["slope"] == step["projected_gradient"] for step in steps)  # its old name
    code, lines, _ = run("evaluate", tmp_path / "run", "--json")
    found = objects(lines)[-1]
    assert set(found) == {"base", "tuned"}
    assert 0 <= found["tuned"]["accuracy"] <= 1
    code, lines, _ = run("evaluate", tmp_path / "run", "--step", 0, "--json")
    assert objects(lines)[-1]["base"] == objects(lines)[-1]["tuned"] == found["base"]
    code, lines, _ = run("verify", tmp_path / "run", "--json")
    assert (code, objects(lines)[-1]["same"], objects(lines)[-1]["step"]) == (0, True, 5)
    code, lines, _ = run("evaluate", recipe_file, "--json")
    assert set(objects(lines)[-1]) == {"base"}
    code, lines, _ = run("generate", tmp_path / "run", "--prompt", "the cat", "--tokens", 5, "--json")
    first, second = objects(lines)[-1]["answers"]
    assert (code, first["text"]) == (0, objects(lines)[-1]["text"])
    assert {first["text"], second["text"]} == {"yes", "no"}
    assert first["probability"] > second["probability"] == pytest.approx(1 - first["probability"])
    code, lines, _ = run("generate", tmp_path / "run", "--prompt", "the cat", "--tokens", 5, "--raw", "--json")
    assert code == 0
    assert objects(lines)[-1].keys() == {"text"}
    code, _, error = run("export", tmp_path / "run", "--format", "hf", "--out", tmp_path / "merged")
    assert code == 0, error
    code, lines, error = run("export", tmp_path / "run", "--out", tmp_path / "o.safetensors", "--json")
    assert (code, objects(lines)[-1]["format"]) == (0, "overlay"), error
    from transformers import AutoModelForCausalLM

    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    base = AutoModelForCausalLM.from_pretrained(tiny_folder)
    differing = sum(int((a != b).sum()) for a, b in zip(merged.parameters(), base.parameters(), strict=True))
    assert 0 < differing <= 0.011 * sum(each.numel() for each in base.parameters())
    code, lines, _ = run("export", tmp_path / "run", "--format", "hf", "--out", tmp_path / "merged")
    assert code == 2


def test_an_export_of_a_32_bit_run_writes_the_same_tokens_in_plain_transformers(run, recipe_file, tmp_path):
    settings = ["--set", "model.bits=32", "--set", "update.learning_rate=0.05", "--set", "mask.density=0.2"]
    assert run("train", recipe_file, "--run", tmp_path / "run", *settings)[0] == 0
    assert run("export", tmp_path / "run", "--format", "hf", "--out", tmp_path / "merged")[0] == 0
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", attn_implementation="eager")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    for prompt in ("the cat sat on", "question: is it warm today?"):
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        plain = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False)
        expected = tokenizer.decode(plain[0, ids.shape[1] :], skip_special_tokens=True)
        _, lines, _ = run("generate", tmp_path / "run", "--prompt", prompt, "--tokens", 24, "--raw", "--json")
        assert objects(lines)[-1]["text"] == expected


def test_a_mask_is_found_once_and_reused(run, recipe_file, tmp_path):
    code, lines, _ = run("mask", recipe_file, "--out", tmp_path / "m.safetensors", "--json")
    assert code == 0
    found = objects(lines)[-1]
    use = ["--set", "mask.rule=saved", "--set", f"mask.file={tmp_path / 'm.safetensors'}"]
    code, lines, _ = run("train", recipe_file, "--run", tmp_path / "run", *use, "--json")
    started = next(each for each in objects(lines) if each["event"] == "started")
    assert (code, started["tuned"]) == (0, found["tuned"])
    assert run("mask", recipe_file, "--out", tmp_path / "m.safetensors")[0] == 2


def test_a_mask_that_the_program_keeps_is_not_searched_again(run, recipe_file, tmp_path):
    search = ["--set", "mask.rule=weight-activation", "--set", "mask.sequences=2", "--set", "mask.tokens=32"]

    def found(number, *more):
        command = ("mask", recipe_file, *search, "--out", tmp_path / f"{number}.safetensors", *more)
        code, lines, _ = run(*command, "--json")
        assert code == 0
        return objects(lines)[-1]

    first, second, third = found(1), found(2), found(3, "--again")
    assert [each["kept"] for each in (first, second, third)] == [False, True, False]
    assert first["hash"] == second["hash"] == third["hash"] and first["seconds"] == second["seconds"]
    code, lines, _ = run("mask", recipe_file, *search, "--out", tmp_path / "4.safetensors")
    assert code == 0 and "found before (--again searches again), in" in lines[0]
    code, lines, _ = run("train", recipe_file, *search, "--run", tmp_path / "run", "--json")
    assert any(each.get("text", "").startswith("The mask was found before") for each in objects(lines))


@pytest.mark.parametrize("command", ["runs", "recipes", "models", "methods"])
def test_lists(run, command):
    assert run(command)[0] == 0
    code, lines, error = run(command, "--json")
    assert (code, error) == (0, "")
    assert all(objects(lines))


@pytest.mark.slow
def test_help_and_version_answer_without_the_engine():
    code = (
        "import sys\nfrom sparsezo_gui import cli\n"
        "try: cli.main(sys.argv[1:])\nexcept SystemExit: pass\n"
        "print('torch' in sys.modules, 'PySide6' in sys.modules)"
    )
    for arguments in (["--help"], ["--version"], ["train", "--help"], ["recipes"]):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
        assert done.stdout.endswith("False False\n")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["model.id=/no/such/folder"], "There is no model folder '/no/such/folder'"),
        (["data.source=/no/such.csv"], "/no/such.csv"),
        (["data.columns={answer='lable'}"], "lable"),
        (["loop.stpes=3"], "Did you mean 'steps'?"),
        (["mask.density=3"], "[mask] density: must be 1 or less, not 3."),
        (["mask.rule=all"], "4-bit weights cannot be updated in place. Set [model] bits = 32 or 16, or [mask] rule ="),
        (["mask.rule=saved", "mask.file=/no/mask"], "There is no mask file '/no/mask'"),
        (["data.task=chats"], "Did you mean 'chat'?"),
        (["model.device=cuda"], "cuda"),
    ],
)
def test_bad_input_gets_a_sentence_and_leaves_nothing(run, recipe_file, tmp_path, settings, sentence):
    options = [part for setting in settings for part in ("--set", setting)]
    code, _, error = run("train", recipe_file, "--run", tmp_path / "run", *options)
    assert code == 2
    assert sentence in error
    assert not (tmp_path / "run").exists()


def test_other_wrong_arguments(run, recipe_file, tmp_path):
    assert run("train")[0] == 2
    assert run("train", tmp_path / "no.toml")[0] == 2
    assert run("resume", tmp_path)[0] == 2
    assert run("evaluate", tmp_path / "nothing")[0] == 2
    assert run("export", tmp_path, "--format", "zip", "--out", tmp_path / "x")[0] == 2
    assert run("generate", tmp_path / "no", "--prompt", "x", "--tokens", 0)[0] == 2


def test_an_unexpected_failure_is_one_line_and_a_file(run, recipe_file, tmp_path, home, monkeypatch):
    from sparsezo_gui.engine import training

    monkeypatch.setattr(training, "load_data", lambda *_: 1 / 0)
    code, _, error = run("train", recipe_file, "--run", tmp_path / "run")
    assert code == 1
    assert "ZeroDivisionError" in error
    assert "1 / 0" in next((home / "logs").iterdir()).read_text()
    assert not (tmp_path / "run").exists()


def start(recipe_file, folder, *settings):
    command = [sys.executable, "-m", "sparsezo_gui.cli", "train", str(recipe_file), "--run", str(folder), "--json"]
    return subprocess.Popen([*command, *settings], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_step(process, number):
    for line in process.stdout:
        event = json.loads(line)
        if event["event"] == "step" and event["step"] >= number:
            return
    raise AssertionError(process.stderr.read())


@pytest.mark.slow
def test_ctrl_c_stops_at_a_step_border_and_resume_goes_on(run, recipe_file, tmp_path):
    process = start(recipe_file, tmp_path / "run", "--set", "loop.steps=100000")
    wait_for_step(process, 5)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=60)
    last = json.loads(out.splitlines()[-1])
    assert (process.returncode, error) == (0, "")
    assert (last["event"], last["reason"]) == ("finished", "stopped")
    _, lines, _ = run("branch", tmp_path / "run", "--set", f"loop.steps={last['step'] + 3}", "--json")
    code, lines, _ = run("resume", objects(lines)[-1]["run"], "--json")
    steps = [each["step"] for each in objects(lines) if each["event"] == "step"]
    assert (code, steps) == (0, [last["step"] + k for k in (1, 2, 3)])


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL on Windows")
def test_a_killed_run_loses_at_most_one_step_and_ends_with_the_same_bits(run, recipe_file, tmp_path):
    settings = ["--set", "loop.steps=60"]
    assert run("train", recipe_file, "--run", tmp_path / "whole", *settings)[0] == 0
    process = start(recipe_file, tmp_path / "run", *settings)
    wait_for_step(process, 7)
    time.sleep(0.05)
    process.kill()
    rest, _ = process.communicate()
    told = max([7, *(each["step"] for each in objects(rest.splitlines()[:-1]) if each["event"] == "step")])
    code, lines, _ = run("resume", tmp_path / "run", "--json")
    events = objects(lines)
    assert code == 0
    assert next(each for each in events if each["event"] == "started")["first"] >= told
    whole = json.loads((tmp_path / "whole" / "events.jsonl").read_text().splitlines()[-1])
    assert events[-1]["hash"] == whole["hash"]


def test_time_travel_branches_and_sharing(run, recipe_file, tmp_path, tiny_folder):
    settings = ["--set", "loop.evaluate_every=2", "--set", "update.learning_rate=0.01"]
    assert run("train", recipe_file, "--run", tmp_path / "run", *settings)[0] == 0
    code, lines, _ = run("evaluate", tmp_path / "run", "--step", "best", "--split", "validation", "--json")
    best = objects(run("runs", "--json")[1]) or None
    assert (code, best) == (0, None)  # it lies elsewhere than the runs of this computer
    assert set(objects(lines)[-1]) == {"base", "tuned"}
    code, lines, _ = run("branch", tmp_path / "run", "--step", 2, "--set", "loop.seed=7", "--name", "b", "--json")
    made = objects(lines)[-1]
    assert (code, made["name"], made["step"]) == (0, "b", 2)
    code, lines, _ = run("resume", made["run"], "--json")
    assert [each["step"] for each in objects(lines) if each["event"] == "step"] == [3, 4, 5]
    code, lines, _ = run("resume", tmp_path / "run", "--step", 3, "--json")
    assert [each["step"] for each in objects(lines) if each["event"] == "step"] == [4, 5]
    for each in (made["run"], tmp_path / "run"):
        assert objects(run("verify", each, "--json")[1])[-1]["same"]
    code, _, error = run("resume", made["run"], "--step", 1)
    assert code == 2 and "branched off at step 2" in error
    assert run("note", made["run"], "--text", "seed 7")[0] == 0
    assert run("note", made["run"])[1] == ["seed 7"]
    code, lines, _ = run("share", made["run"], "--out", tmp_path / "given.zip", "--json")
    assert (code, objects(lines)[-1]["with_mask"]) == (0, True)
    held = {each["file"]: each["holds"] for each in objects(lines)[-1]["contents"]}
    assert "branches/b/journal.bin" in held and "notes" in held["branches/b/notes.md"]
    code, lines, told = run("share", made["run"], "--out", tmp_path / "whole.zip", "--with-examples")
    assert "EXAMPLES of your data" in told and "EXAMPLES of your data" in "\n".join(lines)
    code, lines, _ = run("receive", tmp_path / "given.zip", "--run", tmp_path / "there", "--json")
    assert (code, objects(lines)[-1]["lacks"]) == (0, ["model.id", "data.source"])
    places = ["--set", f"model.id={tiny_folder}", "--set", f"data.source={tmp_path / 'data.jsonl'}"]
    code, lines, _ = run("receive", tmp_path / "given.zip", *places, "--json")
    assert (code, objects(lines)[-1]["lacks"]) == (0, [])
    got = objects(lines)[-1]["run"]
    assert objects(run("verify", got, "--json")[1])[-1]["same"]
    assert run("branch", got, "--step", 4, "--name", "[/b] \x1b[31mred")[0] == 0
    code, lines, _ = run("runs")
    assert "[/b]" in "\n".join(lines) and "\x1b" not in "\n".join(lines)
    assert [line.split()[0] for line in lines if "stopped" in line or "done" in line] == ["r", "b", "[/b]"]


def test_a_run_that_was_tampered_with_does_not_verify(run, recipe_file, tmp_path):
    assert run("train", recipe_file, "--run", tmp_path / "run")[0] == 0
    told = (tmp_path / "run" / "events.jsonl").read_text()
    (tmp_path / "run" / "events.jsonl").write_text(told.replace('"hash": "', '"hash": "0'))
    code, lines, error = run("verify", tmp_path / "run", "--json")
    assert (code, objects(lines)[-1]["same"], error) == (1, False, "")
    assert "but the run recorded" in run("verify", tmp_path / "run")[1][0]


def test_wrong_arguments_of_runs_are_told(run, recipe_file, tmp_path):
    assert run("train", recipe_file, "--run", tmp_path / "run", "--set", "data.validation=0")[0] == 0
    for arguments, sentence in (
        (("resume", "RUN", "--step", "99"), "there is no step 99"),
        (("evaluate", "RUN", "--step", "best"), "there is no best step"),
        (("evaluate", "RUN", "--set", "loop.steps=5"), "--set works on recipes only"),
        (("evaluate", "starter", "--step", "5"), "--step works on runs only"),
        (("bench", "steps", "--shape", "tiny", "opt-6.7b"), "one --shape at a time"),
        (("generate", "RUN", "--prompt", "x", "--step", "many"), "step number or 'best'"),
        (("branch", "RUN"), "needs more steps"),
        (("branch", "RUN", "--step", "2", "--set", "mask.density=0.5"), "cannot change in a branch"),
        (("branch", "RUN", "--step", "2", "--set", "loop.stepz=5"), "Did you mean 'steps'"),
        (("share", "RUN", "--out", "/dev/null/x.zip"), "/dev/null/x.zip: cannot be written"),
        (("share", "nothing", "--out", "x.zip"), "There is no run folder"),
        (("receive", "nothing.zip"), "There is no file"),
        (("note", "nothing"), "There is no run folder"),
        (("note", "n" * 300), "this file name is too long"),
        (("verify", "nothing"), "There is no run folder"),
    ):
        code, lines, error = run(*(tmp_path / "run" if each == "RUN" else each for each in arguments))
        assert (code, lines) == (2, []), arguments
        assert sentence in error


def test_the_ways_to_tune_are_compared(run, recipe_file):
    code, lines, _ = run("plan", recipe_file, "--json")
    *found, last = map(json.loads, lines)
    assert code == 0 and {each["event"] for each in found} == {"way"} and last["event"] == "recommendation"
    assert [each["way"] for each in found if each["recommended"]] == [last["way"]] == ["exact"]
    assert all(each["step_seconds"] > 0 and each["memory_measured"] and each["memory_bytes"] > 0 for each in found)
    code, lines, error = run("plan", recipe_file, "--formula", "--set", "objective.rule=accuracy")
    text = "\n".join(lines)
    assert code == 0 and "Measuring" not in error and "(measured)" not in text
    assert "→ Forward passes in a gradient subspace" in text
    assert "Exact gradients: [estimator] rule = 'first-order'" in text
    start = shlex.split(lines[-1].partition(": ")[2])
    assert start == ["sparsezo", "train", str(recipe_file), "--set=objective.rule=accuracy",
                     "--set=mask.rule=gradient-subspace", "--set=mask.blocks=half", "--set=loop.steps=250"]  # fmt: skip


def test_the_recipes_own_way_needs_no_settings(run, recipe_file):
    _, lines, _ = run("plan", recipe_file, "--formula", "--set", "loop.steps=2000")
    assert "  The recipe as it is." in lines and "  " not in lines


def test_the_recommended_command_starts(run, recipe_file, tmp_path):
    _, lines, _ = run("plan", recipe_file)
    command = shlex.split(lines[-1].partition(": ")[2])[1:]
    code, _, error = run(*command, "--set=loop.steps=1", "--run", tmp_path / "run")
    assert code == 0 and "Done after step 1." in error


def test_auto_is_told_before_a_run(run, recipe_file, tmp_path):
    auto = "--set=estimator.rule=auto"
    code, _, error = run("estimate", recipe_file, auto)
    assert code == 0 and "Chosen automatically: exact gradients in all blocks" in error
    code, _, error = run("mask", recipe_file, auto, "--out", tmp_path / "m.safetensors")
    assert code == 0 and "Chosen automatically: exact gradients" in error
    code, lines, error = run("train", recipe_file, auto, "--set=loop.steps=1", "--run", tmp_path / "run", "--json")
    told = [each["text"] for each in map(json.loads, lines) if each["event"] == "notice"]
    assert code == 0 and any(text.startswith("Chosen automatically") for text in told)


@pytest.mark.parametrize(("value", "told"), [("1", True), ("0", False), ("", False)])
def test_auto_can_be_a_users_default(run, recipe_file, monkeypatch, value, told):
    monkeypatch.setenv("SPARSEZO_AUTO", value)
    code, _, error = run("estimate", recipe_file)
    assert code == 0 and ("Chosen automatically" in error) == told


def test_rates_are_tried_and_told(run, recipe_file):
    code, lines, _ = run("rates", recipe_file, "--steps", 2, "--json")
    (found,) = objects(lines)
    assert code == 0 and {"rungs", "base", "steps", "rate", "lowered", "passes"} == found.keys() and found["steps"] == 2
    assert {"rate", "loss", "stable", "steps", "losses"} == found["rungs"][0].keys()
    code, lines, _ = run("rates", recipe_file, "--steps", 1)
    assert code == 0 and lines[0].startswith(("Learning rate ", "No learning rate ")) and " 1 steps  loss " in lines[1]


def test_noise_is_measured_and_told(run, recipe_file):
    code, lines, _ = run("noise", recipe_file, "--json")
    (found,) = objects(lines)
    assert code == 0 and {"event", "wanted", "epsilon", "trials"} == found.keys() and len(found["trials"]) == 3
    assert [each["epsilon"] / found["wanted"] for each in found["trials"]] == pytest.approx([1, 3, 10])
    code, lines, _ = run("noise", recipe_file)
    assert code == 0 and lines[0].startswith("Epsilon ") and " noise " in lines[3] and len(lines) == 4


def test_the_rate_that_was_found_is_told_with_what_it_was_found_for(run, recipe_file, monkeypatch):
    report = RateReport((), 1.0, 2, 3e-3)
    monkeypatch.setattr(RateReport, "words", "Good.")
    monkeypatch.setattr(rate_search, "find_rate", lambda *_: (each for each in range(0)))
    monkeypatch.setattr(Console, "finish", lambda *_: report)
    code, lines, _ = run("rates", recipe_file, "--set", "run.name=a b")
    told = ["sparsezo", "train", str(recipe_file), "--set=run.name=a b", "--set=update.learning_rate=0.003"]
    assert code == 0 and shlex.split(lines[-1].removeprefix("To use it: ")) == told


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("RECIPE", "--steps", "0"), "must be 1 or more"),
        (("nothing.toml",), "nothing"),
        (("RECIPE", "--steps", "2", "--set", "data.train=1"), "too few training examples"),
        (("RECIPE", "--set", "loop.steps=20"), "[loop] steps = 20: a tenth of them is too little"),
        (("RECIPE", "--set", "update.rule=sgt"), "'sgt' is not a known rule"),
    ],
)
def test_rates_of_a_bad_recipe_are_refused(run, recipe_file, arguments, sentence):
    code, lines, error = run("rates", *(recipe_file if each == "RECIPE" else each for each in arguments))
    assert (code, lines) == (2, []) and sentence in error


@pytest.mark.parametrize(
    ("options", "out"), [([], ""), (["--json"], '{"event": "error", "message": "Interrupted."}\n')]
)
def test_ctrl_c_while_libraries_load_ends_quietly(options, out):
    code = (
        "import os, signal, sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'pydantic':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "from sparsezo_gui import start\n"
        "assert 'logging' not in sys.modules, 'loads slowly, before Ctrl-C is handled'\n"
        "sys.exit(start.terminal())\n"
    )
    command = [sys.executable, "-c", code, "methods", *options]
    process = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (process.returncode, process.stdout, process.stderr) == (130, out, "Interrupted.\n")


@pytest.mark.slow
def test_ctrl_c_ends_the_search_for_a_rate(recipe_file):
    command = [sys.executable, "-m", "sparsezo_gui.cli", "rates", str(recipe_file), "--steps", "100000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if line.startswith("Trying"):
            break
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "") and "Interrupted." in error and "Traceback" not in error


def test_with_json_an_error_is_an_object_too(run, recipe_file, tmp_path, monkeypatch):
    secret = "https://me:pass@host/rows.csv"
    recipe_file.write_text(recipe_file.read_text().replace("data.jsonl", secret))
    for arguments, said, code in (
        (("train", recipe_file), "no data file", 2),
        (("train", "nowhere"), "nowhere", 2),
        (("train",), "the following arguments are required: RECIPE", 2),
        (("generate", "r", "--prompt", "a", "--tokens", "x"), "--tokens", 2),
        (("wrong",), "invalid choice: 'wrong'", 2),
        (("resume", tmp_path, secret), "unrecognized arguments: https://•••@host", 2),
    ):
        found, lines, error = run(*arguments, "--json")
        content = objects(lines)[-1]
        assert found == code and content["event"] == "error" and said in content["message"]
        assert content["message"].splitlines()[-1] in error and "pass@" not in error + str(content)
        assert run(*arguments)[:2] == (code, [])
    monkeypatch.setattr("sparsezo_gui.recipe.load", lambda *_: 1 / 0)
    code, lines, _ = run("estimate", "starter", "--json")
    assert code == 1 and "Unexpected error: ZeroDivisionError" in objects(lines)[0]["message"]
    panic = type("PanicException", (BaseException,), {})  # of a library in Rust
    monkeypatch.setattr("sparsezo_gui.recipe.load", lambda *_: (_ for _ in ()).throw(panic("broken")))
    code, lines, _ = run("estimate", "starter", "--json")
    assert code == 1 and "Unexpected error: PanicException: broken" in objects(lines)[0]["message"]
    monkeypatch.setattr("sparsezo_gui.recipe.load", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    code, lines, _ = run("estimate", "starter", "--json")
    assert code == 130 and objects(lines) == [{"event": "error", "message": "Interrupted."}]


@pytest.mark.parametrize("half", ["--js", "--trust"])
def test_half_a_word_is_no_option(run, recipe_file, half):
    code, _, error = run("estimate", recipe_file, half)
    assert code == 2 and f"unrecognized arguments: {half}" in error


def test_json_holds_no_words_that_json_does_not_know(capsys):
    Console(as_json=True).metrics({"base": {"loss": float("nan"), "perplexity": float("inf"), "accuracy": 0.5}})
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["base"] == {
        "loss": None, "perplexity": None, "accuracy": 0.5,
    }  # fmt: skip


def test_links_that_lead_in_a_circle_are_told(run, recipe_file, tmp_path):
    loop, folder = tmp_path / "loop", tmp_path / "folder"
    loop.symlink_to(loop)
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "data", "a.csv", "run.json", "recipe.toml", "journal.bin"):
        (folder / name).symlink_to(folder / name)
    text = recipe_file.read_text()
    for place in (loop, loop / "inner", folder):
        model = tmp_path / "m.toml"
        model.write_text(text.replace(text.split('"')[1], str(place)))
        data = tmp_path / "d.toml"
        data.write_text(text.replace("data.jsonl", str(place)))
        relative = tmp_path / "relative.toml"
        relative.write_text(text.replace("data.jsonl", f"./{place.relative_to(tmp_path)}"))
        commands = [("train", model), ("estimate", model), ("train", data), ("train", relative), ("resume", place)]
        commands += [("train", recipe_file, "--run", place), ("convert", place, "--out", tmp_path / "out")]
        commands += [(name, place) for name in ("verify", "evaluate", "receive", "train")]
        for arguments in commands:
            code, _, error = run(*arguments)
            assert code == 2 and 0 < len(error.splitlines()[-1]) < 900, (arguments, error)
    assert run("runs")[0] == 0


def test_a_run_that_says_nothing_of_it_is_tuned_is_damaged(run, recipe_file, tmp_path):
    folder = tmp_path / "run"
    assert run("train", recipe_file, "--run", folder)[0] == 0
    facts = json.loads((folder / "run.json").read_text())
    for fact in ("parameters", "eligible", "tuned", "examples", "pack_rows"):
        (folder / "run.json").write_text(json.dumps({**facts, fact: 0}))
        for command in ("resume", "verify", "evaluate"):
            code, _, error = run(command, folder)
            assert code == 2 and f"run.json: damaged ({fact}: " in error


def train_on(run, folder, model, rows, **data):
    """Folder of a run of one step."""
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    keys = "\n".join(f"{key} = {json.dumps(value)}" for key, value in data.items())
    (folder / "ask.toml").write_text(
        f'[model]\nid = "{model}"\ndevice = "cpu"\n[data]\nsource = "rows.jsonl"\n{keys}\n'
        '[mask]\nrule = "random"\ndensity = 0.01\n[loop]\nsteps = 1\nbatch_size = 2\nevaluate_every = 0\n'
    )
    code, _, error = run("train", folder / "ask.toml", "--run", folder / "asked")
    assert code == 0, error
    return folder / "asked"


def test_candidates_are_those_of_the_data_and_a_list_for_people(run, tmp_path, tiny_folder):
    rows = [{"text": f"film {i}", "label": ("dull", "good one", "bad")[i % 3]} for i in range(12)]
    made = train_on(run, tmp_path, tiny_folder, rows)
    code, lines, _ = run("generate", made, "--prompt", "film 3", "--json")
    answers = objects(lines)[-1]["answers"]
    assert (code, {each["text"] for each in answers}) == (0, {"dull", "good one", "bad"})
    assert sum(each["probability"] for each in answers) == pytest.approx(1)
    code, lines, _ = run("generate", made, "--prompt", "film 3")
    assert lines == [f"{each['text']:<8}  {100 * each['probability']:5.1f} %" for each in answers]
    assert objects(run("generate", made, "--prompt", "film 3", "--base", "--json")[1])[-1]["answers"] != answers
    (tmp_path / "rows.jsonl").unlink()
    code, lines, error = run("generate", made, "--prompt", "film 3", "--tokens", 3, "--json")
    assert (code, objects(lines)[-1].keys()) == (0, {"text"})
    assert "which lists its answers, cannot be read; the model generates freely. There is no data file" in error
    assert run("generate", made, "--prompt", "film 3", "--tokens", 3, "--raw", "--json")[2] == ""


def test_candidates_are_shown_with_their_escape_sequences(capsys):
    Console(False).choices([("red\x1b[31m", 0.75), ("no", 0.25)])
    assert capsys.readouterr().out.splitlines() == ["red\\x1b[31m   75.0 %", "no            25.0 %"]


def test_data_that_changed_gives_candidates_only_on_request(run, tmp_path, tiny_folder):
    rows = [{"text": f"film {i}", "label": ("dull", "good")[i % 2]} for i in range(12)]
    made = train_on(run, tmp_path, tiny_folder, rows)
    more = [*rows, {"text": "film", "label": "new"}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, more)))
    code, _, error = run("generate", made, "--prompt", "film 3")
    assert code == 2 and "training examples" in error and "--changed-inputs" in error
    code, lines, _ = run("generate", made, "--prompt", "film 3", "--changed-inputs", "--json")
    assert code == 0 and "train" in objects(lines)[-1]["changed"]
    assert "new" in {each["text"] for each in objects(lines)[-1]["answers"]}


def test_several_columns_are_asked_as_an_object(run, tmp_path, tiny_folder):
    rows = [{"passage": f"film {i}", "question": "is it", "label": i % 2 == 0} for i in range(12)]
    made = train_on(run, tmp_path, tiny_folder, rows, task="boolq")
    code, _, error = run("generate", made, "--prompt", "film 3")
    assert code == 2 and 'Write them as a JSON object: {"passage": "…", "question": "…"}' in error
    question = json.dumps({"passage": "film 3", "question": "is it"})
    code, lines, _ = run("generate", made, "--prompt", question, "--json")
    assert code == 0 and {each["text"] for each in objects(lines)[-1]["answers"]} == {"Yes", "No"}


def test_a_chat_is_asked_in_the_models_template(run, tmp_path, tiny_folder):
    turns = [{"role": "user", "content": "Is it?"}, {"role": "assistant", "content": "Yes"}]
    made = train_on(run, tmp_path, tiny_folder, [{"messages": turns}] * 6, task="chat")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    text = tokenizer.apply_chat_template(turns[:1], add_generation_prompt=True, tokenize=False)
    asked, raw, other = (
        objects(run("generate", made, "--prompt", prompt, "--tokens", 12, "--json", *more)[1])[-1]["text"]
        for prompt, more in (("Is it?", ()), (text, ("--raw",)), ("Is it?", ("--raw",)))
    )
    assert asked == raw != other


def test_caches_are_listed_and_removed(run, monkeypatch, tmp_path):
    monkeypatch.setenv("SPARSEZO_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert run("cache") == (0, ["Nothing is kept."], "")
    Store("0123456789abcdef").put(b"key", bytes(10_000))
    code, out, _ = run("cache", "--json")
    assert (
        code == 0
        and [json.loads(line)["kind"] for line in out] == ["activations"]
        and json.loads(out[0])["bytes"] > 10_000
    )
    code, _, err = run("cache", "--remove", "0123")
    assert code == 2 and "There is no cache '0123'. Known: 0123456789ab." in err
    code, out, _ = run("cache", "--remove", "all")
    assert code == 0 and out[0].startswith("Removed 1 cache, ")
    assert run("cache", "--remove", "0123")[2].strip().endswith("There is no cache '0123'. Nothing is kept.")


def test_until_the_first_step_a_terminal_shows_one_bar(capsys, monkeypatch):
    """And then one for each kind of work; without a terminal, every stage is a line that says which one it is."""

    def course(console):
        yield e.Progress("Loading the model", 0, 10, "layers"), "Loading the model", "0 of 10 layers"
        yield e.Progress("Reading data"), "Reading data", ""
        yield e.Progress("Drawing the mask", 2, 4, "layers"), "Drawing the mask", "2 of 4 layers"
        yield e.Progress("Evaluating on validation", 1, 2, "examples"), "Evaluating on validation", "1 of 2 examples"

    for terminal in (False, True):
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal)
        console, bars, fractions = Console(as_json=False), set(), []
        console.prepare(starting(Recipe(update={"find_rate": True})))
        for number, (event, stage, detail) in enumerate(course(console)):
            console.event(event)
            if terminal:
                (task,) = console._bar.tasks
                bars.add(console._bar)
                fractions.append(task.completed)
                assert (task.description, task.fields["detail"], task.total) == (stage, detail, 1000)
                assert task.fields["left"].startswith(f"stage {(2, 3, 4, 6)[number]} of 6")
        if terminal:
            assert len(bars) == 1 and fractions == sorted(fractions)
            console.event(e.Step(1, 1.0, 1.0, 1e-3, 0.1, 1, 1))
            (task,) = console._bar.tasks
            assert (task.description, task.completed, console._bar in bars) == ("Tuning", 1, False)
            console.end_progress()
        else:
            lines = capsys.readouterr().err.splitlines()
            assert lines[:2] == ["Loading the model 0/10 layers (stage 2 of 6)", "Reading data (stage 3 of 6)"]
            assert lines[3] == "Evaluating on validation 1/2 examples (stage 6 of 6)"
