"""The parent's side: starts the confined process, sends it requests, and kills it when one exceeds its limits."""

from __future__ import annotations

import atexit
import marshal
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

from sparsezo_gui.engine.sandbox import child
from sparsezo_gui.errors import UserError

VARIABLES = ("PATH", "SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TZ")  # what a process needs to start
_PACKAGES = ("sparsezo_gui", "jinja2", "markupsafe", "tokenizers")
_START_SECONDS, _IDLE_SECONDS = 60, 30
_TICK = 0.02  # seconds between checks of what a request uses
_PATIENCE = 20  # wall-clock time allowed, as a multiple of processor time: the computer may be busy


class Exceeded(Exception):
    """A request exceeded a limit; the message says which: ``time`` or ``memory``."""


class Refused(Exception):
    """A library rejected an untrusted file; the message is the library's."""


@dataclass(eq=False)
class _Request:
    seconds: float
    memory: int
    exceeded: str = ""


class Sandbox:
    """The process, started on the first request."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._request: _Request | None = None
        self._last = 0.0
        self._held = 0  # bytes the process held before the request

    def ask(self, work: str, *arguments: Any, seconds: float, memory: int) -> str:
        """The result of ``work`` for ``arguments`` (plain values), within ``seconds`` of processor time and ``memory``
        bytes. Raises `Exceeded`, or `Refused` with what was wrong."""
        content = marshal.dumps((work, arguments, seconds, memory))
        with self._lock:
            process = self._process if self._process and self._process.poll() is None else self._start()
            with suppress(psutil.Error):  # it just exited, which the exchange will notice
                self._held = psutil.Process(process.pid).memory_info().rss
            request = self._request = _Request(seconds, memory)
            try:
                how, text = self._exchange(process, content)
            except BaseException:  # the answer to an interrupted request would be taken for the next one's
                self.close()
                raise
            finally:
                self._request, self._last = None, time.monotonic()
            if how in (b"", child.MEMORY):  # killed or crashed
                late = not how and process.wait() == -getattr(signal, "SIGXCPU", 0)  # before the watch noticed
                self.close()
                raise Exceeded("time" if late else request.exceeded or "memory")
        if how == child.REFUSED:
            raise Refused(text)
        return text

    def close(self) -> None:
        """Kills the process, even during a request."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with suppress(OSError):
                    if pipe:
                        pipe.close()

    def _exchange(self, process: subprocess.Popen[bytes], content: bytes) -> tuple[bytes, str]:
        assert process.stdin
        try:
            process.stdin.write(len(content).to_bytes(8, "little") + content)
            process.stdin.flush()
        except OSError:
            return b"", ""
        return _answer(process)

    def _start(self) -> subprocess.Popen[bytes]:
        self.close()
        environment = {name: os.environ[name] for name in VARIABLES if name in os.environ}
        self._process = process = subprocess.Popen(
            _command(), cwd=tempfile.gettempdir(), env=environment | {"TOKENIZERS_PARALLELISM": "false"},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )  # fmt: skip
        self._request, self._last = _Request(_START_SECONDS, sys.maxsize), time.monotonic()
        threading.Thread(target=self._watch, args=(process,), name="confined", daemon=True).start()
        if _answer(process)[0] != child.DONE:
            self.close()
            raise UserError(
                "The process that runs templates and tokenizers did not start. Close other programs to free memory, "
                "and try again."
            )
        return process

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        """Kills the process when a request exceeds its limits, and when it has been idle for long."""
        seen, spent, began = None, 0.0, 0.0
        with suppress(psutil.Error):  # it exited between two checks, or before the first one
            usage = psutil.Process(process.pid)
            while process.poll() is None:
                request, used, held = self._request, sum(usage.cpu_times()[:2]), usage.memory_info().rss
                if request is not seen:
                    seen, spent, began = request, used, time.monotonic()
                if request is None:
                    self._close_idle(process)
                elif held - self._held > request.memory:
                    request.exceeded = "memory"
                elif used - spent > request.seconds or time.monotonic() - began > _PATIENCE * request.seconds:
                    request.exceeded = "time"
                if request and request.exceeded:
                    process.kill()
                time.sleep(_TICK)

    def _close_idle(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            if self._process is process and time.monotonic() - self._last > _IDLE_SECONDS:
                self.close()


def _command() -> list[str]:
    if getattr(sys, "frozen", False):
        return [sys.executable, child.WORD]
    origins = [spec.origin for name in _PACKAGES if (spec := find_spec(name))]
    homes = {str(Path(origin).parents[1]) for origin in origins if origin}
    return [sys.executable, "-I", child.__file__, *sorted(homes)]


def _answer(process: subprocess.Popen[bytes]) -> tuple[bytes, str]:
    """Status and text; both empty if the process exited."""
    assert process.stdout
    head = process.stdout.read(8)
    content = process.stdout.read(int.from_bytes(head, "little"))
    return content[:1], content[1:].decode("utf-8", "surrogatepass")


sandbox = Sandbox()
"""The process that all templates share."""
atexit.register(sandbox.close)
