"""Tensors set aside for the backward pass: on their device while that has room, else in the host's memory or a file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

import torch
from torch import Tensor

from sparsezo_gui.engine import device as devices
from sparsezo_gui.engine.files import cannot_write, home, make_folder

SHARE = 0.5  # of the free memory of a device that may be used


class Kept:
    """A stack of tensors that belong on ``device``, held on ``place`` or in ``file``."""

    def __init__(self, device: torch.device, place: torch.device, file: IO[bytes] | None = None) -> None:
        self.device, self.place, self.file = device, place, file
        self._held: list[tuple[Tensor, int]] = []

    def push(self, tensor: Tensor) -> None:
        """Sets ``tensor`` aside. Raises `UserError` if the disk is full."""
        first = 0
        if self.file is not None:
            content = tensor.detach().cpu().contiguous().view(torch.uint8).numpy()
            try:
                first = self.file.seek(0, 2)
                self.file.write(content.data)
                self.file.flush()
            except OSError as error:
                raise cannot_write(home(), error) from error
        self._held.append((tensor.to(self.place), first))

    def pop(self) -> Tensor:
        """The last tensor set aside, on the device."""
        tensor, first = self._held.pop()
        if self.file is None:
            return tensor.to(self.device)
        self.file.seek(first)
        content = bytearray(self.file.read(tensor.nbytes))
        return torch.frombuffer(content, dtype=tensor.dtype).view(tensor.shape).to(self.device)


@contextmanager
def kept(device: torch.device, nbytes: int) -> Iterator[Kept]:
    """A stack for ``nbytes`` in all, where there is room for them; dropped at the end. Raises `UserError` if a file
    cannot be made."""
    for place in dict.fromkeys((device, torch.device("cpu"))):
        if nbytes <= SHARE * devices.memory_free(place):
            yield Kept(device, place)
            return
    try:
        make_folder(home())
        file = tempfile.TemporaryFile(dir=home())  # noqa: SIM115
    except OSError as error:
        raise cannot_write(home(), error) from error
    try:
        yield Kept(device, torch.device("meta"), file)
    finally:
        with suppress(OSError):  # of a full disk, which has been reported, while the last bytes still wait
            file.close()
