"""Memory that runs out while loading, finding the mask, training or exporting: a sentence, and all steps are kept."""

from __future__ import annotations

import random
import re
import sys

import pytest

from sparsezo_gui.engine.runs import journal
from sparsezo_gui.errors import out_of_memory
from tests.faults import child
from tests.faults.child import Fault
from tests.faults.test_kill import check_folder

MB = 2**20
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="needs limits of the address space that hold"),
]


def test_a_process_that_gets_no_memory_says_so(recipe_file, whole, tmp_path, pytestconfig):
    """With 0.1 to 16 MB more than the libraries take: hardly enough to begin, or for all but the largest part."""
    chance, count = random.Random(3), pytestconfig.getoption("--faults")
    told = 0
    for number in range(count):
        fault = Fault(memory=round(chance.uniform(0.1, 16) * MB))
        folder = tmp_path / f"run{number}"
        commands = (
            ["train", recipe_file, "--run", folder, "--json", "--set", "mask.rule=sensitive", "--set",
             "mask.sequences=4"],
            ["estimate", recipe_file, "--measure", "--json"],
            ["export", whole[0], "--format", "hf", "--out", tmp_path / f"hf{number}", "--json"],
            ["evaluate", whole[0], "--json"],
        )  # fmt: skip
        code, _, error = child.run(commands[number % 4], tmp_path / "out", tmp_path / "home", fault)
        # What is written in Rust, such as tokenizers, ends the process where it gets no memory; what is written in C
        # forgets to say why it failed. Neither can be told better, and neither may leave anything half-written.
        assert code in (0, 2) or "memory allocation of" in error or "NULL without setting an exception" in error, error
        if code == 2:
            told += 1
            assert re.search("Memory ran out|too little memory", error) and len(error.splitlines()) == 1, error
        check_folder(tmp_path)
        if (folder / "run.json").exists():
            code, events, error = child.run(["resume", folder, "--json"], tmp_path / "out", tmp_path / "home")
            assert (code, error, events[-1]["step"]) == (0, "", 40)
    assert told
    print(f"{told} of {count} ran out of memory")


def test_out_of_memory_in_the_middle_of_a_run_keeps_its_steps(recipe_file, whole, tmp_path, monkeypatch):
    """As a GPU tells it, which only a GPU can do for real."""
    import torch

    from sparsezo_gui import recipe
    from sparsezo_gui.engine import session, training

    measure, calls = session.Session.estimate, []

    def scarce(self, *arguments):
        calls.append(1)
        if len(calls) == 18:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return measure(self, *arguments)

    monkeypatch.setattr(session.Session, "estimate", scarce)
    with pytest.raises(torch.OutOfMemoryError) as raised:
        list(training.train(recipe.load(recipe_file), folder=tmp_path / "run"))
    assert out_of_memory(raised.value)
    assert journal.read(tmp_path / "run" / "journal.bin").step == 17
    assert list(training.resume(tmp_path / "run"))[-1].hash == whole[1]


@pytest.mark.parametrize(
    ("error", "expected"),
    [(MemoryError(), True), (RuntimeError("[enforce] DefaultCPUAllocator: can't allocate memory: you tried"), True),
     (OSError(12, "Cannot allocate memory"), True), (RuntimeError("shapes differ"), False), (OSError(2, "x"), False)],
)  # fmt: skip
def test_what_says_that_memory_ran_out(error, expected):
    assert out_of_memory(error) is expected
