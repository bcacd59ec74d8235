"""Workers of a run, each in a process that can be killed, over connections that can be slowed down and cut."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import threading
import time
from collections.abc import Container
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from sparsezo_gui.engine.team import helper, leader, link  # noqa: F401 (loaded once, for all children)
from sparsezo_gui.errors import UserError
from tests.faults import child

ADDRESS = re.compile(rb"\x02\x00(..)\x7f\x00\x00\x01", re.DOTALL)  # of a listening socket, as gloo publishes it
LONGEST = 300.0  # seconds that anything may take on a busy computer
LOOK = 0.02  # seconds between two looks at whether the cable is cut


@dataclass
class Cable:
    """What the connection between two workers goes through: ``delay`` seconds for each piece, until it is ``cut``, or
    ``silent``: open, and nothing arrives."""

    delay: float = 0.0
    cut: Any = field(default_factory=lambda: child._context.Event())
    silent: Any = field(default_factory=lambda: child._context.Event())

    def to(self, port: int, rank: int) -> int:
        """A port that leads to ``port``. Of two workers, the one whose port is lower than the other's published one
        waits for the other to connect, so the leader's is below all others, and the helper's above, also byte by byte
        from the last."""
        listening = next(filter(None, map(_server, range(0xFFFF, 0, -256) if rank else range(0x400, 0xFFFF, 256))))
        threading.Thread(target=self._accept, args=(listening, port), daemon=True).start()
        return int(listening.getsockname()[1])

    def _accept(self, listening: socket.socket, port: int) -> None:
        while True:
            ends = listening.accept()[0], socket.create_connection(("127.0.0.1", port))
            threading.Thread(target=self._forward, args=ends, daemon=True).start()

    def _forward(self, one: socket.socket, other: socket.socket) -> None:
        across = {one: other, other: one}
        while not self.cut.is_set():
            for end in select.select(list(across), [], [], LOOK)[0]:
                piece = b"" if self.silent.is_set() else end.recv(1 << 16)
                if not piece and not self.silent.is_set():
                    return self._close(*across)
                time.sleep(self.delay or (LOOK if self.silent.is_set() else 0))
                across[end].sendall(piece)
        return self._close(*across)

    def _close(self, *ends: socket.socket) -> None:
        for end in ends:
            end.close()


def _server(port: int) -> socket.socket | None:
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError:  # taken
        return None


class Detour(dist.Store):
    """A store in which workers publish the address of a cable instead of their own."""

    def __init__(self, store: dist.Store, cable: Cable) -> None:
        super().__init__()
        self.store, self.cable = store, cable

    def set(self, key: str, value: bytes) -> None:
        def led(found: re.Match[bytes]) -> bytes:
            port = self.cable.to(int.from_bytes(found[1], "big"), int(os.environ["RANK"]))
            return found[0][:2] + port.to_bytes(2, "big") + found[0][4:]

        self.store.set(key, ADDRESS.sub(led, bytes(value)))

    def get(self, key: str) -> bytes:
        return self.store.get(key)

    def add(self, key: str, amount: int) -> int:
        return self.store.add(key, amount)

    def wait(self, keys: list[str], *timeout: Any) -> None:
        self.store.wait(keys, *timeout)

    def set_timeout(self, timeout: Any) -> None:
        self.store.set_timeout(timeout)


@dataclass
class Workers:
    """``size`` workers that run the command line with ``arguments``; what they print goes to files in ``folder``.

    Those ``without_trust`` are as if on a computer of their own, where the user allowed no code of a model to run. One
    that is ``alone`` knows of no other.
    """

    size: int
    arguments: list[Any]
    folder: Path
    cable: Cable | None = None
    environment: dict[str, str] = field(default_factory=dict)
    without_trust: Container[int] = ()
    alone: bool = False

    def start(self) -> Workers:
        """Starts them."""
        self.folder.mkdir(exist_ok=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.processes: list[BaseProcess] = []
        for rank in range(self.size):
            environment = {
                "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(self.size), "MASTER_ADDR": "127.0.0.1",
                "LOCAL_WORLD_SIZE": str(self.size), "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo",
            }  # fmt: skip
            environment = self.environment if self.alone else {**environment, **self.environment}
            told, home = [str(each) for each in self.arguments], self.folder / "home"
            if rank in self.without_trust:
                told, home = [each for each in told if each != "--trust-remote-code"], self.folder / "elsewhere"
            process = child._context.Process(
                target=_work, args=(told, str(self.out(rank)), str(home), environment, self.cable)
            )
            process.start()
            self.processes.append(process)
        return self

    def out(self, rank: int) -> Path:
        """Where a worker's standard output goes; its errors go to the same name with '.err'."""
        return self.folder / f"out{rank}"

    def end(self) -> list[int]:
        """Waits for all of them; their exit codes."""
        return [self.ended(rank) for rank in range(self.size)]

    def ended(self, rank: int) -> int:
        """Waits for one of them; its exit code."""
        return child.end(self.processes[rank], LONGEST)

    def events(self) -> list[dict[str, Any]]:
        """What the leader printed so far."""
        return child.told(self.out(0))

    def error(self, rank: int = 0) -> str:
        """What a worker printed as errors."""
        return Path(f"{self.out(rank)}.err").read_text()

    def at_step(self, step: int, seconds: float = LONGEST) -> None:
        """Waits until the leader took a step."""
        until = time.monotonic() + seconds
        while not any(event["event"] == "step" and event["step"] >= step for event in self.events()):
            assert time.monotonic() < until and self.processes[0].is_alive(), self.error()
            time.sleep(0.01)

    def kill(self, rank: int, number: int = signal.SIGKILL) -> None:
        """Sends a signal."""
        os.kill(self.processes[rank].pid, number)


def _work(arguments: list[str], out: str, home: str, environment: dict[str, str], cable: Cable | None) -> None:
    os.environ.update(environment)
    if cable:
        meeting = link.meeting
        link.meeting = lambda timeout: Detour(meeting(timeout), cable)
    child._run(arguments, out, home, child.Fault())


def leaders_words(order: bytes | int | None = None, answer: tuple[int, int] = (0, 0)) -> str:
    """What the leader says after an ``order`` that no leader gives (a number: only its length), or if a helper answers
    with the head ``answer``."""
    here, there = child._context.Pipe(False)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    processes = [child._context.Process(target=_exchange, args=(rank, port, order, answer, there)) for rank in (0, 1)]
    for process in processes:
        process.start()
    try:
        assert here.poll(LONGEST)
        return str(here.recv())
    finally:
        for process in processes:
            process.kill()
            process.join()


def _exchange(rank: int, port: int, order: bytes | int | None, answer: tuple[int, int], there: Any) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    joined = link.Link.join()
    if rank and order is None:
        dist.send(torch.tensor(answer), 0)
        signal.pause()
    elif rank:
        helper.Helper(joined).serve()
        signal.pause()
    if order is not None:
        dist.broadcast(torch.tensor([order if isinstance(order, int) else len(order)]), 0)
    if isinstance(order, bytes):
        dist.broadcast(torch.frombuffer(bytearray(order), dtype=torch.uint8), 0)
    try:
        there.send(f"all is well: {list(joined.answers([3]))}")
    except UserError as error:
        there.send(str(error))
