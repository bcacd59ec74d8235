"""Reasons for a run to wait automatically: on battery, disk nearly full, or another program on the GPU."""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection
from pathlib import Path

import psutil
import torch

EVERY = 2.0  # seconds between checks
ROOM = 32 << 20  # free bytes below which the disk counts as full, before a write fails
OTHERS = 512 << 20  # bytes of GPU memory that other programs may take after the run started


class Watch:
    """Checks for the ``kinds`` of reasons: 'battery', 'disk' (of ``folder``) and 'gpu' (``device``)."""

    def __init__(self, kinds: Collection[str], folder: Path, device: torch.device) -> None:
        self._kinds, self._folder, self._device = kinds, folder, device
        self._others = others_on(device)
        self._looked, self._found, self._snoozed = -EVERY, "", ""

    def reason(self) -> str:
        """Why the run should wait now, in words; empty if it should not."""
        if time.monotonic() - self._looked >= EVERY:
            self._looked = time.monotonic()
            self._found = next((why for kind in self._kinds if (why := getattr(self, f"_{kind}")())), "")
        if self._found != self._snoozed:
            self._snoozed = ""
        return "" if self._snoozed else self._found

    def snooze(self) -> None:
        """Ignores the current reason until it has ended."""
        self._snoozed = self._found

    def _battery(self) -> str:
        battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
        return "the computer is on battery power" if battery is not None and battery.power_plugged is False else ""

    def _disk(self) -> str:
        return "the disk is nearly full" if shutil.disk_usage(self._folder).free < ROOM else ""

    def _gpu(self) -> str:
        return "another program is using the GPU" if others_on(self._device) > self._others + OTHERS else ""


def others_on(device: torch.device) -> int:
    """Bytes of GPU memory that are not tensors of this process: those of other programs and the constant part of CUDA
    itself; 0 on a CPU.

    The driver's process lists are not used: in a container they name this process by another number, and on Windows
    they do not say how much each has.
    """
    if device.type != "cuda":
        return 0
    free, total = torch.cuda.mem_get_info(device)
    return total - free - torch.cuda.memory_reserved(device)
