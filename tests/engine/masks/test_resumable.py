"""A search for a mask that is interrupted goes on where it was, to the same mask."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time

import filelock
import pytest
import torch
from safetensors import safe_open

from sparsezo_gui import cli
from sparsezo_gui.engine.layers.blocks import Blocks
from sparsezo_gui.engine.masks.resumable import Unfinished, unfinished
from sparsezo_gui.engine.masks.rule import Search
from sparsezo_gui.engine.masks.select import Selection
from sparsezo_gui.engine.masks.sensitive import Sensitive
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.events import Progress
from sparsezo_gui.recipe.recipe import DataTable
from tests.engine.conftest import finish

SEARCH = Search(0, DataTable())


@pytest.fixture
def counted(monkeypatch):
    """Numbers of the blocks that were run."""
    runs, original = [], Blocks.run
    monkeypatch.setattr(Blocks, "run", lambda self, number, *rest: runs.append(number) or original(self, number, *rest))
    return runs


@pytest.mark.parametrize("scope", ["global", "tensor"])
@pytest.mark.parametrize("stop", range(2, 17, 3))
def test_an_interrupted_search_goes_on(frozen_tiny, home, counted, scope, stop):
    model, rule = frozen_tiny("gemma2", 4), Sensitive(density=0.02, scope=scope, sequences=3, tokens=32)
    whole = finish(rule.find(model, SEARCH))
    passes = len(counted)
    assert passes == 2 * 2 * 3 and kept(home) == []
    work = rule.find(model, SEARCH)
    seen = [event for _, event in zip(range(stop), work, strict=False)]
    work.close()
    done = max(event.done for event in seen)
    assert len(kept(home)) == 1
    counted.clear()
    assert finish(rule.find(model, SEARCH)).hash == whole.hash
    assert len(counted) <= passes and (done < 12 or len(counted) < passes)
    assert kept(home) == []


def test_progress_goes_up_to_its_end(frozen_tiny, home):
    rule = Sensitive(density=0.02, sequences=3, tokens=32)
    told = [event for event in rule.find(frozen_tiny("llama", 4), SEARCH) if isinstance(event, Progress)][1:]
    done = [event.done for event in told]
    assert done == sorted(done) and told[-1].done == told[-1].total and len({event.total for event in told}) == 1


def kept(home):
    """Names of the unfinished searches."""
    return [path.name for path in (home / "searches").iterdir() if path.is_dir()]


def hash_of(path):
    with safe_open(path, framework="pt") as file:
        return file.metadata()["hash"]


@pytest.mark.slow
def test_killed_in_the_middle(home, tmp_path):
    command = [sys.executable, "-m", "sparsezo_gui.cli", "mask", "starter", "--out", str(tmp_path / "mask.safetensors"),
               "--set", "mask.sequences=8", "--set", "mask.tokens=128", "--again"]  # fmt: skip
    assert cli.main(command[3:]) == 0
    whole = hash_of(tmp_path / "mask.safetensors")
    (tmp_path / "mask.safetensors").unlink()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        states = [json.loads(path.read_text()) for path in (home / "searches").glob("*/state.json")]
        if states and states[0]["gradient"] >= 2:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.005)
    assert process.wait() == -signal.SIGKILL and not (tmp_path / "mask.safetensors").exists()
    again = subprocess.run(command, check=True, capture_output=True, text=True, timeout=200)
    assert hash_of(tmp_path / "mask.safetensors") == whole
    done, total = map(int, re.search(r"(\d+)/(\d+) passes", again.stderr + again.stdout).groups())
    assert done > total / 3, "it went on after the forward passes"


def test_one_unfinished_search_is_kept(home):
    def interrupt(key):
        with pytest.raises(KeyboardInterrupt), unfinished(key) as work:
            (work.folder / "state.json").write_text("{}")
            raise KeyboardInterrupt

    interrupt("a")
    interrupt("b")
    assert kept(home) == ["b"]
    with filelock.FileLock(home / "searches" / ".lock"):  # as another process would hold it
        with unfinished("b") as beside:
            assert home not in beside.folder.parents
        assert kept(home) == ["b"] and not beside.folder.exists()
    interrupt("b")
    with unfinished("b"):
        pass
    assert kept(home) == []


@pytest.mark.parametrize("state", ["", "{", "[]", '{"version": 2, "hidden": 3, "gradient": 1}', '{"version": 1}'])
def test_a_damaged_state_begins_anew(tmp_path, state):
    (tmp_path / "state.json").write_text(state)
    work = Unfinished(tmp_path)
    assert (work.hidden, work.gradients) == (0, 0)


def test_a_disk_without_room_is_told_at_once(frozen_tiny, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1000))
    with pytest.raises(UserError, match=r"needs .* of disk .* fewer \[mask\] sequences"):
        finish(Sensitive(sequences=2, tokens=16).find(frozen_tiny("llama", 4), SEARCH))


@pytest.mark.parametrize("scope", ["global", "tensor"])
def test_a_selection_is_brought_back(tmp_path, scope):
    shapes = {"b": (3, 4), "a": (5, 2), "c": (2, 2)}
    scores = {name: torch.randn(shape, generator=torch.Generator().manual_seed(1)) for name, shape in shapes.items()}
    whole, part, rest = (Selection(0.3, scope, shapes) for _ in range(3))
    for name in ("c", "a"):
        whole.offer(name, scores[name])
        part.offer(name, scores[name])
    part.save(tmp_path / "selection")
    rest.load(tmp_path / "missing")
    rest.load(tmp_path / "selection")
    for selection in (whole, rest):
        selection.offer("b", scores["b"])
    expected = whole.result()
    assert list(rest.result()) == list(expected) and all(torch.equal(rest.result()[n], expected[n]) for n in expected)
