"""The device a model runs on: choice, number format, and memory in bytes.

On a CPU, memory is that of the whole computer and 'used' is what this process holds; on a GPU, 'used' is what this
process has reserved there. Apple's GPU is not used: bitsandbytes and exact replay need a CPU or CUDA.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import platform
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import torch

from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.recipe import ModelTable

BUFFERS = 72 * 2**20  # bytes that libraries take with the first forward pass, and the allocator from loading (measured)
SAMPLE_EVERY = 0.002  # seconds between two looks at the process's memory


def choose(device: str) -> torch.device:
    """The device for 'auto', 'cpu', 'cuda' or 'cuda:N'; PyTorch calls AMD's GPUs 'cuda' too. Raises `UserError` for a
    GPU that is not there. Of several workers on a computer (see `sparsezo_gui.engine.team`), each takes its own GPU."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "cpu" or (device == "auto" and not count):
        return torch.device("cpu")
    if not count and torch.version.cuda is None and torch.version.hip is None:
        raise UserError(
            f"[model] device = '{device}': this PyTorch build supports CPUs only. Use 'cpu' or "
            "'auto', or install the build for your GPU (https://pytorch.org/get-started)."
        )
    if not count:
        raise UserError(
            f"[model] device = '{device}': there is no usable GPU. Check its driver with 'nvidia-smi' (or "
            "'rocm-smi' for AMD), or use 'cpu' or 'auto'."
        )
    local = int(os.environ.get("LOCAL_RANK", "0"))
    index = int(device.partition(":")[2] or local)
    if index >= count and index == local:
        raise UserError(
            f"More workers were started than this computer has GPUs ({count}). Start one for each GPU, or set [model] "
            "device = 'cpu'."
        )
    if index >= count:
        raise UserError(
            f"[model] device = '{device}': this computer has {count} GPU(s), so the highest is "
            f"'cuda:{count - 1}'. Use that or 'auto'."
        )
    return torch.device("cuda", index)


def compute_dtype(device: torch.device, table: ModelTable) -> torch.dtype:
    """Format of the forward pass: what the recipe asks for; or else fp32 on a CPU or at 32 bits, bf16 where the GPU has
    it, fp16. Computing in int8 keeps fp32 between the products. Raises `UserError` for what the device does not have.
    """
    match table.compute:
        case "bfloat16" if not _has_bfloat16(device):
            raise UserError(
                "[model] compute = 'bfloat16': this device does not support it, so it would be slower than "
                "'auto'. Use 'auto'."
            )
        case "bfloat16":
            return torch.bfloat16
        case "int8" if device.type != "cpu" or not has_int8():
            raise UserError(
                "[model] compute = 'int8': this needs a processor with VNNI instructions (AVX-512 or AVX) "
                "and device = 'cpu'. Use 'auto'."
            )
        case "auto" if device.type == "cuda" and table.bits < 32:
            return torch.bfloat16 if _has_bfloat16(device) else torch.float16
    return torch.float32


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    known = torch.cpu.get_capabilities()
    return any(known.get(name, False) for name in ("avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16"))


def has_int8() -> bool:
    """Whether products of int8 codes run in instructions made for it; without them they are slower than fp32."""
    known = torch.cpu.get_capabilities()
    return any(known.get(name, False) for name in ("avx512_vnni", "avx_vnni"))


def memory_total(device: torch.device) -> int:
    """Bytes that the device has."""
    if device.type == "cpu":
        return int(psutil.virtual_memory().total)
    return torch.cuda.get_device_properties(device).total_memory


def memory_free(device: torch.device) -> int:
    """Bytes available now without swapping out other programs."""
    return psutil.virtual_memory().available if device.type == "cpu" else torch.cuda.mem_get_info(device)[0]


def memory_used(device: torch.device) -> int:
    """Bytes that this process uses on the device."""
    return psutil.Process().memory_info().rss if device.type == "cpu" else torch.cuda.memory_reserved(device)


_program: list[int] = []  # memory of this process before its first model


def note_program() -> None:
    """Records the memory of this process before the first model is loaded."""
    if not _program:
        _program.append(memory_used(torch.device("cpu")) + BUFFERS)


def program_bytes() -> int:
    """Bytes of memory that this process takes without a model: libraries, data, and the window where there is one."""
    return _program[0] if _program else memory_used(torch.device("cpu")) + BUFFERS


def give_back_freed() -> None:
    """Frees what only cycles still hold, and returns it to the system, see `trim`.

    Loading leaves hundreds of MiB of both: transformers' loader holds the original GPT-2 weights in cycles.
    """
    gc.collect()
    trim()


def trim() -> None:
    """Returns memory that the C library keeps after it was freed (glibc only): tensors of many sizes leave gaps in it
    that nothing else fits into."""
    found = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if found is not None:
        found(0)


def let_go(files: Iterable[Path]) -> None:
    """Takes pages of the mapped ``files``, which must be unchanged, out of this process (Linux only); they are read
    again where they are needed. A loader that reads through a map would seem to hold all of the file."""
    if sys.platform != "linux":
        return
    names, libc = {str(file.resolve()) for file in files}, ctypes.CDLL(None)
    with suppress(OSError), open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        for line in maps:
            area, *_, path = line.rstrip("\n").split(maxsplit=5)
            if path in names:
                start, end = (int(place, 16) for place in area.split("-"))
                libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)


def name(device: torch.device) -> str:
    """Name of the device: that of the GPU, or 'CPU' with its model and threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    make = _cpu_make()
    return f"CPU{f' ({make})' if make else ''}, {torch.get_num_threads()} threads"


def _cpu_make() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "")
    except OSError:
        return platform.processor()


class Peak:
    """Peak memory since `start`, in ``bytes``."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.bytes = 0
        self._stop = threading.Event()
        self._process = psutil.Process()

    def start(self) -> None:
        """Starts measuring."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            self._look()  # what is over before the thread runs is measured, too
            threading.Thread(target=self._watch, daemon=True).start()

    def end(self) -> None:
        """Stops measuring."""
        self._stop.set()
        if self.device.type == "cuda":
            self.bytes = torch.cuda.max_memory_reserved(self.device)

    def _watch(self) -> None:
        while not self._stop.is_set():
            self._look()
            time.sleep(SAMPLE_EVERY)

    def _look(self) -> None:
        with suppress(MemoryError, OSError):  # just when memory is at its peak there may be none to look
            self.bytes = max(self.bytes, self._process.memory_info().rss)


@contextmanager
def watched(device: torch.device) -> Iterator[Peak]:
    """Within, after `Peak.start`: measures the peak memory of this process on ``device``."""
    peak = Peak(device)
    try:
        yield peak
    finally:
        peak.end()
