"""The link between workers: `torch.distributed`, with gloo for what is in memory and NCCL for what is on a GPU.

The leader's orders are JSON and tensors, which all helpers receive; answers go to the leader alone. No pickle is sent.
A helper waits for orders for as long as it takes, since a run may be paused. The leader waits for a helper for half an
hour, or as long as the environment variable `PATIENCE` says.
"""

from __future__ import annotations

import json
import math
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, Any, Literal

import torch
import torch.distributed as dist
from pydantic import BaseModel, Field, NonNegativeInt
from torch import Tensor
from torch.distributed import PrefixStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from sparsezo_gui.engine import device as devices
from sparsezo_gui.errors import LostWorker, UserError

PATIENCE = "SPARSEZO_PATIENCE"  # seconds that the leader waits for a helper
USUAL = "1800"
FOREVER = timedelta(days=365)
CPU = torch.device("cpu")
LARGEST, LONGEST = 1 << 28, 1 << 13  # bytes of an order besides its tensors, and of a complaint
WELL, FAULT = 0, 1
SAME = "Install the same version of SparseZO on all computers."


class Order(BaseModel):
    """What every order has, besides what it asks for: what to ``do``, and dtype and shape of its ``tensors``."""

    do: Literal["load", "open", "begin", "restore", "learn", "advance", "forward", "backward", "end"]
    tensors: list[
        tuple[
            Literal["uint8", "int64", "float16", "bfloat16", "float32", "float64"],
            Annotated[list[NonNegativeInt], Field(max_length=8)],
        ]
    ]


@dataclass
class Link:
    """This process among ``size`` workers; ``sent`` and ``received`` count bytes, of all that the leader exchanges."""

    rank: int
    size: int
    sent: int = 0
    received: int = 0
    between: bool = field(default=True, init=False)
    """Whether all wait for the leader's next order, none for an answer."""

    @classmethod
    def join(cls) -> Link:
        """Waits for all workers that ``torchrun`` started. Raises `LostWorker`, and `UserError`."""
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        backend, link = "gloo", cls(rank, size)
        if torch.cuda.is_available() and dist.is_nccl_available():
            backend = "cpu:gloo,cuda:nccl"
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        timeout = FOREVER if rank else _patience()
        with link._watched():
            dist.init_process_group(backend, store=meeting(timeout), rank=rank, world_size=size, timeout=timeout)
            dist.barrier()
        return link

    def leave(self) -> None:
        """Ends the link; the others find that out when they wait for this process."""
        dist.destroy_process_group()

    def tell(self, order: dict[str, Any], tensors: Sequence[Tensor] = ()) -> None:
        """Gives every helper an ``order`` of the leader, which goes with ``tensors``. Raises `LostWorker`."""
        order = {**order, "tensors": [[str(each.dtype).removeprefix("torch."), list(each.shape)] for each in tensors]}
        text = torch.frombuffer(bytearray(json.dumps(order).encode()), dtype=torch.uint8)
        with self._watched():
            for part in (torch.tensor([len(text)]), text, *map(_bytes, tensors)):
                if part.numel():
                    dist.broadcast(part, 0)
                    self.sent += part.nbytes * (self.size - 1)

    def told(self) -> tuple[dict[str, Any], list[Tensor]]:
        """The leader's next order, for a helper. Raises `LostWorker`, and `UserError` for what is no order."""
        with self._watched(0):
            length = torch.zeros(1, dtype=torch.int64)
            dist.broadcast(length, 0)
            if not 0 < length <= LARGEST:
                raise UserError(f"The leader's order cannot be read. {SAME}")
            text = torch.zeros(int(length), dtype=torch.uint8)
            dist.broadcast(text, 0)
        order, kinds = _read(text.numpy().tobytes())
        with self._watched(0):
            tensors = [torch.zeros(shape, dtype=dtype) for shape, dtype in kinds]
            for each in tensors:
                if each.numel():
                    dist.broadcast(_bytes(each), 0)
        return order, tensors

    def answer(self, found: Tensor) -> None:
        """Sends what an order asked for, fp64 (numbers,), from a helper to the leader."""
        with self._watched(0):
            dist.send(torch.tensor([WELL, found.numel()]), 0)
            if found.numel():
                dist.send(found, 0)

    def complain(self, sentence: str) -> None:
        """Sends why an order could not be obeyed instead."""
        text = f"{socket.gethostname()}: {sentence}".encode()[:LONGEST]
        with self._watched(0):
            dist.send(torch.tensor([FAULT, len(text)]), 0)
            dist.send(torch.frombuffer(bytearray(text), dtype=torch.uint8), 0)

    def answers(self, counts: Sequence[int] | None = None) -> Iterator[Tensor]:
        """What each helper `answer`s, in order of their ranks: so many numbers as ``counts`` says (None: none). Raises
        `UserError` for what one `complain`s about."""
        self.between = False
        for rank, count in enumerate(counts or [0] * (self.size - 1), 1):
            with self._watched(rank):
                head = torch.zeros(2, dtype=torch.int64)
                dist.recv(head, rank)
                kind, length = head.tolist()
                if not (0 < length <= LONGEST if kind == FAULT else length == count):
                    raise UserError(f"Worker {rank} of {self.size} did not answer what it was asked. {SAME}")
                found = torch.zeros(length, dtype=torch.uint8 if kind == FAULT else torch.float64)
                if length:
                    dist.recv(found, rank)
                self.received += head.nbytes + found.nbytes
            if kind == FAULT:
                text = found.numpy().tobytes().decode(errors="replace")
                raise UserError(f"Worker {rank} of {self.size} cannot go on. {text}")
            yield found
        self.between = True

    def pass_on(self, sums: Tensor, to: int) -> None:
        """Sends ``sums`` to the worker ``to``, on the device where they are."""
        with self._watched(to):
            dist.send(sums, to)
        self.sent += sums.nbytes if self.rank == 0 else 0

    def take_over(self, sums: Tensor, source: int) -> None:
        """Receives ``sums`` from the worker ``source``."""
        with self._watched(source):
            dist.recv(sums, source)
        self.received += sums.nbytes if self.rank == 0 else 0

    @contextmanager
    def _watched(self, other: int | None = None) -> Iterator[None]:
        """Turns errors of the network, of ``other`` (None: any), into `LostWorker`."""
        try:
            yield
        except (RuntimeError, ValueError) as error:
            self.between = False
            who = "another worker" if other is None else f"worker {other} of {self.size}"
            raise LostWorker(
                f"The connection to {who} is lost. All steps up to the last one are saved. Resume the run, with "
                "as many workers as you like."
            ) from error


def meeting(timeout: timedelta) -> Any:
    """Where workers publish their addresses: the store of ``torchrun``, which still has those of the workers before a
    restart."""
    store, _, _ = next(rendezvous("env://", timeout=timeout))
    return PrefixStore(f"start-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def _patience() -> timedelta:
    given = os.environ.get(PATIENCE, USUAL)
    try:
        found = timedelta(seconds=float(given))
    except (ValueError, OverflowError):
        found = timedelta()
    if not timedelta() < found <= FOREVER:
        raise UserError(f"{PATIENCE}={given}: not a number of seconds. Set one, such as 600, or none.")
    return found


def _bytes(tensor: Tensor) -> Tensor:
    """The bytes of a contiguous tensor on the CPU."""
    return tensor.view(-1).view(torch.uint8)


def _read(text: bytes) -> tuple[dict[str, Any], list[tuple[list[int], torch.dtype]]]:
    """An order, and shape and dtype of its tensors. Raises `UserError` for what is none."""
    try:
        head = Order.model_validate_json(text)
        kinds = [(shape, getattr(torch, dtype)) for dtype, shape in head.tensors]
        if sum(math.prod(shape) * dtype.itemsize for shape, dtype in kinds) > devices.memory_total(CPU):
            raise ValueError("larger than the computer's memory")
        return json.loads(text), kinds
    except ValueError as error:
        raise UserError(f"The leader's order cannot be read. {SAME}") from error
