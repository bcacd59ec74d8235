"""The program of the confined process: answers requests from its parent, each within limits.

``python -I child.py PACKAGES…``, where PACKAGES are the folders to import from. A request is its length (8 bytes,
little-endian), then marshalled: the name of the work, its arguments, and the seconds and bytes it may use. An answer is
its length, a status byte (`DONE`, `REFUSED`, `MEMORY`), and UTF-8 text. The first answer is sent without a
request, once the child is ready.
"""

from __future__ import annotations

import marshal
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

try:
    import resource
except ImportError:  # Windows; there, and on macOS, only the parent limits memory
    resource = None  # type: ignore[assignment]

WORD = "--confined"
"""The only argument with which a frozen program, which comes without a Python, starts itself as the child."""
DONE, REFUSED, MEMORY = b"d", b"r", b"m"
SPARE_SECONDS = 2  # of processor time beyond a request's, after which a child whose parent died exits


def main() -> int:
    """Serves until the parent closes its end; returns the exit code."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a library prints is not an answer
    work = _work()
    statm = os.open("/proc/self/statm", os.O_RDONLY) if sys.platform == "linux" else None
    _answer(answers, DONE, b"")
    while head := requests.read(8):
        _answer(answers, *_worked(work, statm, requests.read(int.from_bytes(head, "little"))))
    return 0


def _work() -> dict[str, Callable[..., str]]:
    from sparsezo_gui.engine.sandbox import conversation, prompt, tokens

    return {
        "prompt": prompt.render,
        "ending": conversation.ending,
        "split": conversation.split,
        "tokenizer": tokens.check,
    }


def _worked(work: dict[str, Callable[..., str]], statm: int | None, request: bytes) -> tuple[bytes, bytes]:
    """Status and text."""
    name, arguments, seconds, memory = marshal.loads(request)
    try:
        with _limited(statm, seconds, memory):
            return DONE, work[name](*arguments).encode("utf-8", "surrogatepass")
    except MemoryError:
        return MEMORY, b""
    except Exception as error:  # an untrusted file can make its reader raise anything
        return REFUSED, _reason(name, error).encode("utf-8", "surrogatepass")


def _reason(name: str, error: Exception) -> str:
    if name == "tokenizer":
        return str(error).strip() or type(error).__name__
    from sparsezo_gui.engine.sandbox import faults

    return faults.told(error)


def _answer(answers: BinaryIO, how: bytes, text: bytes) -> None:
    answers.write((len(text) + 1).to_bytes(8, "little") + how)
    answers.write(text)
    answers.flush()


@contextmanager
def _limited(statm: int | None, seconds: float, memory: int) -> Iterator[None]:
    """Inside, allocations fail beyond ``memory`` bytes on top of what is held now (on Linux)."""
    if resource is not None:
        _limit(resource.RLIMIT_CPU, int(time.process_time() + seconds) + SPARE_SECONDS)
    if statm is None:
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_DATA)
    held = int(os.pread(statm, 100, 0).split()[5]) * resource.getpagesize()
    _limit(resource.RLIMIT_DATA, held + memory)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def _limit(kind: int, most: int) -> None:
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


if __name__ == "__main__":
    sys.path[:0] = sys.argv[1:]  # -I leaves out the user's own packages
    main()
