"""Exporting a step of a run, from the journal to files that plain transformers runs."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
import tempfile
from functools import cache

import pytest
import torch
from transformers import AutoModelForCausalLM

from sparsezo_gui import recipe
from sparsezo_gui.engine import training
from sparsezo_gui.engine.export import export_run
from sparsezo_gui.engine.export.ask import ask_export
from sparsezo_gui.engine.export.overlay_file import read_overlay
from sparsezo_gui.engine.runs.folder import open_run
from sparsezo_gui.engine.session.opening import open_session
from sparsezo_gui.errors import UserError
from sparsezo_gui.formats import EXPORTS, default_export, export_format, export_formats
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe.presets import PRESETS
from sparsezo_gui.recipe.registry import SPACES
from sparsezo_gui.recipe.tables import changed
from tests.engine.conftest import finish
from tests.models import tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of four steps at 32 bits, where the engine and plain transformers compute alike."""
    return finished("gpt2", tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory):
    """The same with plain linear layers, which most formats can hold."""
    return finished("llama", tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def run_for(plain_run, tmp_path_factory):
    """``run_for(form)``: a run that the format can hold."""
    low = cache(lambda: finished("llama", tmp_path_factory.mktemp("run"), {"rule": "lora", "rank": 2}))
    return lambda form: low() if export_format(form).refusal(SPACES["entries"]) else plain_run


def finished(family, home, mask=None):
    tiny(family, home / family)
    rows = [{"text": f"film {i}", "label": "yes" if i % 2 else "no"} for i in range(20)]
    for split in ("train", "validation", "test"):
        (home / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    made = recipe.build({
        "model": {"id": str(home / family), "device": "cpu", "bits": 32},
        "data": {"source": str(home), "template": "{{ text }} good?", "columns": {"answer": "label"}},
        "mask": mask or {"rule": "random", "density": 0.01},
        "update": {"rule": "sgd", "learning_rate": 1e-3},
        "loop": {"steps": 4, "batch_size": 4, "evaluate_every": 2},
        "run": {"name": "tiny"},
    })  # fmt: skip
    list(training.train(made, folder=home / "run"))
    return home / "run"


@pytest.mark.parametrize("step", [None, 2])
def test_the_merged_model_computes_what_the_run_does(run, step, tmp_path):
    report = finish(export_run(run, "hf", tmp_path / "out", step))
    assert report["step"] == (step or 4) and "tuned weights differ" in report["told"][0]
    session = finish(open_session(open_run(run), step))
    tokens = torch.tensor([[10, 20, 30, 40]])
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    with torch.no_grad(), session.tuned.applied():
        assert torch.allclose(merged(tokens).logits, session.model.module(tokens).logits, rtol=1e-4, atol=1e-4)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "# tiny" in card and "| accuracy |" in card


def test_as_trained_it_says_the_same_words(run, tmp_path):
    report = finish(export_run(run, "hf", tmp_path / "out", weights="trained"))
    assert report["told"][-1] == "In plain transformers, 8 of 8 prompts give the same tokens as in the run."
    assert "(32 bits), written in float32" in (tmp_path / "out" / "README.md").read_text()


def test_the_overlay_file_holds_the_tuned_values(run, tmp_path):
    finish(export_run(run, "overlay", tmp_path / "small", 3))
    found, session = read_overlay(tmp_path / "small"), finish(open_session(open_run(run), 3))
    for name, (indices, values) in session.tuned.changes().items():
        assert torch.equal(found.changes[name][0], indices) and torch.equal(found.changes[name][1], values)
    assert found.fingerprint == session.model.fingerprint and found.step == 3
    assert recipe.loads(found.recipe) == recipe.portable(session.recipe)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_ten_lines_from_its_card_apply_an_overlay_file(run, plain_run, tmp_path, monkeypatch, family):
    run = run if family == "gpt2" else plain_run
    finish(export_run(run, "overlay", tmp_path / "this file"))
    card, found = read_overlay(tmp_path / "this file").card, {}
    code = card.split("```python\n")[1].split("```")[0]
    assert f'from_pretrained("./{family}")' in code and "| accuracy |" in card and card.startswith("---\n")
    monkeypatch.chdir(tmp_path)
    (tmp_path / family).symlink_to(run.parent / family)
    exec(code, found)
    session, tokens = finish(open_session(open_run(run))), torch.tensor([[10, 20, 30, 40]])
    with torch.no_grad(), session.tuned.applied():
        assert torch.allclose(found["model"].eval()(tokens).logits, session.model.module(tokens).logits, atol=1e-4)


EVERY = [
    (name, {option.name: choice})
    for name, form in export_formats().items()
    for option in form.options
    for choice in option.choices
    if choice not in ("same", "lmstudio")  # which need a GGUF model, and a folder of another program
] + [(name, {}) for name, form in export_formats().items() if not form.options]


@pytest.mark.parametrize(("form", "options"), EVERY)
def test_an_export_tells_nothing_of_this_computer_and_is_for_its_owner_alone(run_for, tmp_path, form, options):
    run = run_for(form)
    config = run.parent / "llama" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "_name_or_path": str(run.parent)}))
    before = os.umask(0)
    try:
        assert finish(export_run(run, form, tmp_path / "made" / "out", **options))["told"]
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "made").rglob("*") if path.is_file()]
    assert files and not [path for path in files if str(run.parent).encode() in path.read_bytes()]
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "made", *(tmp_path / "made").rglob("*"))}
    assert modes <= {0o600, 0o700} or os.name == "nt"


def test_what_cannot_be_exported(run, tmp_path):
    with pytest.raises(UserError, match=r"Unknown export format 'hff'\. (Did you mean|Known)"):
        finish(export_run(run, "hff", tmp_path / "out"))
    with pytest.raises(UserError, match="Unknown export choice of weights 'orignal'"):
        finish(export_run(run, "hf", tmp_path / "out", weights="orignal"))
    with pytest.raises(UserError, match="no step 9"):
        finish(export_run(run, "overlay", tmp_path / "small", 9))
    with pytest.raises(UserError, match=r"not a run|no run folder"):
        finish(export_run(tmp_path, "hf", tmp_path / "out"))


every_format = pytest.mark.parametrize("form", EXPORTS)


@every_format
def test_a_name_that_is_taken_is_left_alone_and_a_free_one_offered(run_for, tmp_path, form):
    out, suffix = tmp_path / f"mine{export_formats()[form].suffix}", export_formats()[form].suffix
    out.write_text("precious")
    (tmp_path / f"mine-2{suffix}").touch()
    with pytest.raises(UserError, match=rf"already exists\. Choose another name, such as 'mine-3{suffix}'\."):
        finish(export_run(run_for(form), form, out))
    assert out.read_text() == "precious"


@every_format
@pytest.mark.parametrize(
    ("number", "calls", "told"),
    [
        (errno.ENOSPC, (os, "fsync"), "the disk is full. Free some space"),
        (errno.EROFS, (tempfile, "mkstemp", "mkdtemp"), "cannot be written"),
    ],
)
def test_a_disk_that_is_full_or_cannot_be_written(run_for, tmp_path, monkeypatch, form, number, calls, told):
    run = run_for(form)

    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    for name in calls[1:]:
        monkeypatch.setattr(calls[0], name, fail)
    with pytest.raises(UserError, match=rf"out: .*{told}"):
        finish(export_run(run, form, tmp_path / "new" / "out"))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.slow
def test_another_process_writes_the_same_bytes(run_for, tmp_path):
    made = {name: (tmp_path / f"here-{name}", tmp_path / f"there-{name}") for name in EXPORTS}
    there = [["export", str(run_for(name)), "--format", name, "--out", str(out)] for name, (_, out) in made.items()]
    code = f"from sparsezo_gui import cli\nfor each in {there!r}: assert cli.main(each) == 0"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    for name, (here, out) in made.items():
        finish(export_run(run_for(name), name, here))
        found, expected = ({str(path.relative_to(top)): path.read_bytes() for path in (top, *top.rglob("*"))
                            if path.is_file()} for top in (here, out))  # fmt: skip
        assert found and found == expected


@pytest.mark.parametrize(("space", "form"), [("entries", "overlay"), ("lora", "peft"), ("low-rank", "peft"),
                                             ("dense", "hf")])  # fmt: skip
def test_the_default_format_of_each_space(space, form):
    assert default_export(SPACES[space]) == form


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.title)
def test_the_default_format_holds_what_each_preset_tunes(preset):
    space = SPACES[changed(Recipe(), preset.settings).mask.space]
    assert export_format(default_export(space)).refusal(space) == ""


def test_without_a_format_the_run_gets_its_default(plain_run, tmp_path):
    assert finish(export_run(plain_run, None, tmp_path / "out"))["format"] == "overlay"
    assert read_overlay(tmp_path / "out").step == 4


def test_an_export_is_asked_whatever_its_base_model_is_called(make, tmp_path):
    """It is copied beside that model."""
    make()
    base = (tmp_path / "llama").rename(tmp_path / "export")
    chosen = make(model={"id": str(base)}, mask={"rule": "lora", "rank": 2}, loop={"steps": 1})
    list(training.train(chosen, folder=tmp_path / "run"))
    finish(export_run(tmp_path / "run", "peft", tmp_path / "out"))
    assert finish(ask_export(tmp_path / "run", tmp_path / "out", "a film"))
