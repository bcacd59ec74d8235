"""The command line in a process of its own that can be killed, starved or cut off; forked from one that has it loaded.

Loading the engine takes seconds, forking a process that has it takes milliseconds, so that hundreds of faults can be
tried for real.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sparsezo_gui import cli
from sparsezo_gui.engine import evaluate, generate, training  # noqa: F401 (loaded once, for all children)
from sparsezo_gui.engine.export import adapter, merged, overlay_file, trained  # noqa: F401
from sparsezo_gui.engine.runs import branch, checkpoints, gradients, share  # noqa: F401

TOUCHING = {"open", "os.rename", "os.remove", "os.mkdir", "os.truncate", "os.rmdir"}
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([__name__])


@dataclass(frozen=True)
class Fault:
    """``kill_at``: SIGKILL at the n-th touch of a file in ``folder``; ``memory``: bytes of address space more than now;
    ``gradient``: SIGKILL at the n-th gradient, after ``part`` of its bytes are written, and before its step is.

    ``watch``: no setting aside of room on the disk, so that writes themselves fail; waits are short.
    """

    folder: str = ""
    kill_at: int = 0
    memory: int = 0
    gradient: int = 0
    part: float = 1.0
    watch: bool = True


def start(arguments: list[str], out: Path, home: Path, fault: Fault = Fault()) -> multiprocessing.Process:
    """Starts the command line; what it prints goes to ``out`` and ``out`` + '.err'."""
    process = _context.Process(target=_run, args=([str(each) for each in arguments], str(out), str(home), fault))
    process.start()
    return process


def end(process: multiprocessing.Process, seconds: float = 60) -> int:
    """Waits for the end; its exit code, negative for a signal."""
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise AssertionError(f"still running after {seconds} s")
    return process.exitcode


def run(arguments: list[str], out: Path, home: Path, fault: Fault = Fault()) -> tuple[int, list[dict], str]:
    """Exit code, objects and sentences of a command."""
    code = end(start(arguments, out, home, fault))
    return code, told(out), Path(f"{out}.err").read_text()


def told(out: Path) -> list[dict]:
    """The objects that a command printed; a last line that was cut off is left out."""
    lines = out.read_text().split("\n") if out.exists() else []
    return [json.loads(line) for line in lines[:-1] if line.startswith("{")]


def _run(arguments: list[str], out: str, home: str, fault: Fault) -> None:
    os.environ.update(SPARSEZO_HOME=home, HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1")
    for path, number in ((out, 1), (f"{out}.err", 2)):
        handle = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(handle, number)
    sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.fsync = os.fstat  # a killed process loses nothing that it wrote; power cuts are tried in test_power
    checkpoints.spacing = lambda size, again=False: 5
    if not fault.watch:
        from sparsezo_gui.engine import watch
        from sparsezo_gui.engine.loop import running

        watch.ROOM, running.POLL = 0, 0.05
    if fault.kill_at:
        _kill_at(fault.folder, fault.kill_at)
    if fault.gradient:
        _kill_at_gradient(fault.gradient, fault.part)
    if fault.memory:
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + fault.memory,) * 2)
    code = cli.main(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _kill_at_gradient(count: int, part: float) -> None:
    write, left = gradients.write_all, count

    def killed(file: BinaryIO, content: bytes) -> None:
        nonlocal left
        left -= 1
        write(file, content[: round(part * len(content))] if left == 0 else content)
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    gradients.write_all = killed


def _kill_at(folder: str, count: int) -> None:
    left = count

    def hook(event: str, arguments: tuple) -> None:
        nonlocal left
        if event in TOUCHING and any(isinstance(each, str | os.PathLike) and folder in str(each) for each in arguments):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
