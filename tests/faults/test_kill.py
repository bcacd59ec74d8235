"""SIGKILL at any moment, also inside of writes: at most the step under way is lost, and nothing is half-written."""

from __future__ import annotations

import random
import shutil
import signal
import time

import pytest

from sparsezo_gui import recipe
from sparsezo_gui.engine import drafts
from sparsezo_gui.engine.export.adapter import CONFIG, WEIGHTS, read
from sparsezo_gui.engine.export.overlay_file import read_overlay
from sparsezo_gui.engine.pretrained.gguf.header import read_gguf
from sparsezo_gui.engine.pretrained.weights import read_header
from sparsezo_gui.engine.runs import checkpoints, journal
from sparsezo_gui.engine.runs.folder import open_run
from sparsezo_gui.engine.runs.listing import is_run
from tests.faults import child
from tests.faults.child import Fault

pytestmark = pytest.mark.slow

LONGEST = 120  # touches of files in a run of 40 steps, about
TOUCHES = {"overlay": 5, "peft": 25, "hf": 60, "gguf": 20}  # in an export, about


def check_folder(folder):
    """Whatever stands under a final name is whole."""
    for path in folder.rglob("recipe.toml"):
        recipe.load(path)
    for path in folder.rglob("*.safetensors"):
        if not path.name.startswith("."):
            read_header(path)
    for path in folder.rglob("run.json"):
        open_run(path.parent)
    for path in folder.rglob("journal.bin"):
        assert "middle" not in journal.read(path).fault


def faults(count):
    """Half of them after a time, half at a touch of a file."""
    chance = random.Random(count)
    for number in range(count):
        yield number, chance.uniform(0, 2.0) if number % 2 else 0.0, chance.randint(1, LONGEST)


@pytest.mark.parametrize("kind", ["scalars", "exact gradients"])
def test_a_run_survives_being_killed_at_any_moment(request, tmp_path, pytestconfig, kind):
    names = ("exact_file", "exact_whole") if kind == "exact gradients" else ("recipe_file", "whole")
    recipe_file, whole = map(request.getfixturevalue, names)
    tried = killed = lost = 0
    for number, delay, touch in faults(pytestconfig.getoption("--faults")):
        folder, out = tmp_path / f"run{number}", tmp_path / "out"
        arguments = ["train", recipe_file, "--run", folder, "--json"]
        for _ in range(3):  # a run that is killed again while it is resumed
            fault = Fault(str(folder), 0 if delay else touch)
            process = child.start(arguments, out, tmp_path / "home", fault)
            if delay:
                time.sleep(delay)
                process.kill()
            code = child.end(process)
            tried += 1
            killed += code == -signal.SIGKILL
            assert code in (0, -signal.SIGKILL), (tmp_path / "out.err").read_text()
            check_folder(tmp_path)
            steps = [event["step"] for event in child.told(out) if event["event"] == "step"]
            if (folder / "run.json").exists():
                there = journal.read(folder / "journal.bin").step if (folder / "journal.bin").exists() else 0
                lost = max(lost, max(steps, default=0) - there)
            if is_run(folder):
                arguments = ["resume", folder, "--json"]
        if not is_run(folder):
            shutil.rmtree(folder, ignore_errors=True)  # what was killed before it had its recipe is begun anew
            arguments = ["train", recipe_file, "--run", folder, "--json"]
        code, events, error = child.run(arguments, out, tmp_path / "home")
        assert (code, error) == (0, ""), error
        assert events[-1]["hash"] == whole[1]
        frames, found = checkpoints.listed(folder), journal.read(open_run(folder).journal)
        assert frames and all(frame.on(found) for frame in frames)
        shutil.rmtree(folder)
    assert killed and lost == 0  # every step that was told is there
    print(f"{tried} processes, {killed} killed, {lost} told steps lost")


def test_a_run_killed_while_its_mask_is_found_is_listed_and_resumed(tmp_path):
    out, home = tmp_path / "out", tmp_path / "home"
    small = ("loop.steps=2", "mask.sequences=8", "data.train=32", "data.validation=8", "data.test=8")
    process = child.start(["train", "starter", "--json", *(f"--set={each}" for each in small)], out, home)
    while not any("sensitive" in event.get("stage", "") for event in child.told(out)):
        time.sleep(0.01)
    process.kill()
    child.end(process)
    folder = next(event["run"] for event in child.told(out) if event["event"] == "preparing")
    _, (listed,), _ = child.run(["runs", "--json"], out, home)
    assert (listed["path"], listed["state"], listed["step"]) == (folder, "interrupted", 0)
    code = child.end(child.start(["resume", folder, "--json"], out, home), 240)
    last = child.told(out)[-1]
    assert (code, last["event"], last["reason"], last["step"]) == (0, "finished", "done", 2)


@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 1.0], ids=["before", "in its head", "in its numbers", "after"])
def test_a_process_killed_between_a_gradient_and_its_step_loses_none(exact_file, exact_whole, tmp_path, part):
    """And a second time while it is resumed: each step is taken again, and replayed from its own gradient."""
    folder, out = tmp_path / "run", tmp_path / "out"
    arguments = ["train", exact_file, "--run", folder, "--json"]
    for count, steps in ((7, 6), (5, 10)):
        fault = Fault(gradient=count, part=part)
        assert child.end(child.start(arguments, out, tmp_path / "home", fault)) == -signal.SIGKILL
        assert journal.read(folder / "journal.bin").step == steps
        check_folder(tmp_path)
        arguments = ["resume", folder, "--json"]
    code, events, error = child.run(arguments, out, tmp_path / "home")
    assert (code, error, events[-1]["hash"]) == (0, "", exact_whole[1])
    exact_file.with_name("data.jsonl").rename(tmp_path / "data.jsonl")
    try:
        code, (found,), error = child.run(["verify", folder, "--json"], out, tmp_path / "home")
    finally:
        (tmp_path / "data.jsonl").rename(exact_file.with_name("data.jsonl"))
    assert (code, found["same"], found["recorded"], found["again"]) == (0, True, 40, 0), error


@pytest.mark.parametrize("form", TOUCHES)
def test_an_export_is_there_whole_or_not_at_all(whole, tmp_path, pytestconfig, form):
    out, made = tmp_path / "out", 0
    chance = random.Random(0)
    count = max(pytestconfig.getoption("--faults") // 2, 4)
    for number in range(count):
        target = tmp_path / f"export{number}"
        # The last one is not killed, so that what is whole is looked at, too.
        place = target.name if form in ("overlay", "gguf") else drafts.PREFIX  # where it is written
        fault = Fault(place, chance.randint(1, TOUCHES[form]) if number < count - 1 else 0)
        code = child.end(child.start(
            ["export", whole[0], "--format", form, "--out", target, "--json"], out, tmp_path / "home", fault
        ))  # fmt: skip
        assert code in (0, -signal.SIGKILL), (tmp_path / "out.err").read_text()
        if target.exists():
            made += 1
            if form == "overlay":
                read_overlay(target)
            elif form == "peft":
                assert {path.name for path in target.iterdir()} == {CONFIG, WEIGHTS, "README.md"}
                assert read(target).tensors
            elif form == "gguf":
                assert len(read_gguf(target).tensors) > 10
            else:
                names = {path.name for path in target.iterdir()}
                assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= names
                read_header(target / "model.safetensors")
        assert target.exists() or code != 0
    assert 0 < made < count
    print(f"{count} exports, {made} whole")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGSTOP])
def test_signals_end_or_stop_a_run_at_a_step_border(recipe_file, whole, tmp_path, number):
    """SIGSTOP and SIGCONT are what a laptop that sleeps and wakes does to a process."""
    import os

    arguments = ["train", recipe_file, "--run", tmp_path / "run", "--json", "--set", "loop.steps=40"]
    process = child.start(arguments, tmp_path / "out", tmp_path / "home")
    while not any(event["event"] == "step" for event in child.told(tmp_path / "out")):
        time.sleep(0.01)
    os.kill(process.pid, number)
    if number == signal.SIGSTOP:
        time.sleep(1)
        os.kill(process.pid, signal.SIGCONT)
    assert child.end(process) == 0
    last = child.told(tmp_path / "out")[-1]
    if number == signal.SIGSTOP:
        assert (last["reason"], last["hash"]) == ("done", whole[1])
        return
    assert last["reason"] == "stopped" and last["step"] < 40
    code, events, error = child.run(["resume", tmp_path / "run", "--json"], tmp_path / "out", tmp_path / "home")
    assert (code, error, events[-1]["hash"]) == (0, "", whole[1])
