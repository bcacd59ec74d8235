"""A disk that gets full at every moment, and one that cannot be written: real small file systems, real processes."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from contextlib import contextmanager, suppress

import pytest

from sparsezo_gui.engine.runs import journal
from tests.faults import child
from tests.faults.child import Fault
from tests.faults.test_kill import check_folder

can_mount = hasattr(os, "geteuid") and os.geteuid() == 0 and subprocess.run(
    ["sh", "-c", "mkdir -p /tmp/sparsezo-probe && mount -t tmpfs -o size=64k none /tmp/sparsezo-probe "
                 "&& umount /tmp/sparsezo-probe"], capture_output=True, check=False,
).returncode == 0  # fmt: skip
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not can_mount, reason="needs the right to mount a small file system"),
]


@contextmanager
def small(folder, size):
    """Within: ``folder`` is a file system of ``size`` bytes; gives what changes its options."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], check=True)
    try:
        yield lambda options: subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def sizes(count):
    """Of disks on which a run of 40 steps, of about 150 kB, gets stuck at one place or another."""
    chance = random.Random(1)
    return [4096 * chance.randint(1, 36) for _ in range(count)]


@pytest.mark.parametrize("kind", ["scalars", "exact gradients"])
def test_a_full_disk_is_told_and_loses_nothing(request, tmp_path, pytestconfig, kind):
    names = ("exact_file", "exact_whole") if kind == "exact gradients" else ("recipe_file", "whole")
    recipe_file, whole = map(request.getfixturevalue, names)
    full = 0
    for size in sizes(pytestconfig.getoption("--faults")):
        with small(tmp_path / "disk", size) as remount:
            folder = tmp_path / "disk" / "run"
            arguments = ["train", recipe_file, "--run", folder, "--json"]
            ends = Fault(watch=False)
            code, events, error = child.run(
                [*arguments, "--set", "run.pause_on=[]"], tmp_path / "out", tmp_path / "home", ends
            )
            assert code in (0, 2), error
            if code == 2:
                full += 1
                assert "the disk is full" in error and len(error.splitlines()) == 1
            check_folder(tmp_path / "disk")
            told = [event["step"] for event in events if event["event"] == "step"]
            if (folder / "journal.bin").exists():
                assert journal.read(folder / "journal.bin").step >= max(told, default=0)
            remount("size=100m")
            if (folder / "run.json").exists():
                arguments = ["resume", folder, "--json"]
            code, events, error = child.run(arguments, tmp_path / "out", tmp_path / "home")
            assert (code, error) == (0, "")
            assert events[-1]["hash"] == whole[1]
    assert full
    print(f"{full} full disks")


def test_a_run_waits_for_room_and_goes_on_by_itself(recipe_file, whole, tmp_path, pytestconfig):
    waited = 0
    for size in sizes(pytestconfig.getoption("--faults")):
        with small(tmp_path / "disk", size) as remount:
            folder, out = tmp_path / "disk" / "run", tmp_path / "out"
            out.unlink(missing_ok=True)
            process = child.start(
                ["train", recipe_file, "--run", folder, "--json"], out, tmp_path / "home", Fault(watch=False)
            )
            end = time.monotonic() + 60
            while process.is_alive() and time.monotonic() < end:
                if any(event["event"] == "paused" for event in child.told(out)):
                    waited += 1
                    time.sleep(0.2)
                    remount("size=100m")
                    break
                time.sleep(0.02)
            code = child.end(process)
            error = (tmp_path / "out.err").read_text()
            assert code == 0 or "the disk is full" in error  # before there was a run to wait
            if code == 0:
                assert child.told(out)[-1]["hash"] == whole[1]
    assert waited
    print(f"{waited} runs waited")


@pytest.mark.parametrize(
    "command", [("branch", "RUN", "--step", "20"), ("share", "RUN", "--out", "DISK/s.zip"),
                ("note", "RUN", "--text", "x" * 9000), ("mask", "RECIPE", "--out", "DISK/m.safetensors"),
                ("export", "RUN", "--format", "hf", "--out", "DISK/hf"),
                ("export", "RUN", "--format", "peft", "--out", "DISK/peft"),
                ("export", "RUN", "--format", "overlay", "--out", "DISK/o.safetensors"),
                ("export", "RUN", "--format", "gguf", "--out", "DISK/m.gguf"),
                ("receive", "ZIP", "--run", "DISK/r")],
    ids=lambda command: command[0] + (command[3] if command[0] == "export" else ""),
)  # fmt: skip
@pytest.mark.parametrize("what", ["full", "read-only"])
def test_no_command_leaves_half_a_file(recipe_file, whole, tmp_path, command, what):
    disk = tmp_path / "disk"
    assert child.run(["share", whole[0], "--out", tmp_path / "s.zip"], tmp_path / "out", tmp_path / "home")[0] == 0
    with small(disk, "100m") as remount:
        shutil.copytree(whole[0], disk / "run")
        before = sorted(disk.rglob("*"))
        if what == "full":
            with (disk / "filler").open("wb", buffering=0) as filler, suppress(OSError):
                while True:
                    filler.write(bytes(4096))
        else:
            remount("ro")
        words = {"RUN": disk / "run", "RECIPE": recipe_file, "ZIP": tmp_path / "s.zip"}
        arguments = [words.get(each, each.replace("DISK", str(disk))) for each in command]
        code, _, error = child.run(arguments, tmp_path / "out", tmp_path / "home")
        assert code == 2, error
        sentence = ("the disk is full", "are free on the disk") if what == "full" else ("cannot be written",)
        assert any(each in error for each in sentence) and "Traceback" not in error, error
        if what == "full":
            (disk / "filler").unlink()
        assert [path for path in sorted(disk.rglob("*")) if path not in before and path.is_file()] == []


def test_a_run_on_a_disk_that_cannot_be_written_is_told(recipe_file, whole, tmp_path):
    with small(tmp_path / "disk", "20m") as remount:
        shutil.copytree(whole[0], tmp_path / "disk" / "run")
        remount("ro")
        run = tmp_path / "disk" / "run"
        for arguments in (["resume", run], ["train", recipe_file, "--run", tmp_path / "disk" / "x"]):
            code, _, error = child.run(arguments, tmp_path / "out", tmp_path / "home")
            assert code == 2 and "cannot be written" in error, error
        # To look at it and to take something of it, no right to write is needed.
        (tmp_path / "home" / "runs").mkdir(parents=True)
        (tmp_path / "home" / "runs" / "linked").symlink_to(run)
        for arguments in (
            ["verify", run], ["generate", run, "--prompt", "a"], ["evaluate", run, "--step", "20"],
            ["export", run, "--format", "hf", "--out", tmp_path / "hf"], ["share", run, "--out", tmp_path / "s.zip"],
        ):  # fmt: skip
            code, _, error = child.run([*arguments, "--json"], tmp_path / "out", tmp_path / "home")
            assert code == 0, error
        code, (listed,), _ = child.run(["runs", "--json"], tmp_path / "out", tmp_path / "home")
        assert (code, listed["state"], listed["step"], listed["path"]) == (0, "done", 40, str(run))
