"""Opens one pickle of weights and writes its tensors as safetensors: a script that runs in a separate process.

``python -I unpickle.py PACKAGES SOURCE TARGET``, where PACKAGES is the folder that contains torch. A pickle is a
program of which torch runs only the part that builds tensors. Should a hostile one run more, this process has an empty
working folder, no token in its environment, and limited memory. It imports nothing of SparseZO. If it refuses a file,
it writes the reason to standard output and exits with 1.
"""

from __future__ import annotations

import pickle
import re
import sys
import zipfile
from typing import Any

HEADER = 100_000_000  # bytes that the header of a safetensors file may have
ROOM = 4 * 2**30  # bytes for Python and torch themselves


def main(source: str, target: str) -> None:
    """Converts ``source`` to ``target``; ends the process with a reason if it refuses."""
    import torch
    from safetensors.torch import save_file

    torch.set_num_threads(1)  # no thread can be started later
    try:
        with open(source, "rb") as file:
            packed, size = file.read(4) == b"PK\x03\x04", file.seek(0, 2)
        if packed and any(part.compress_type for part in zipfile.ZipFile(source).infolist()):
            raise ValueError("parts of it are compressed")  # a memory map would contain the compressed bytes
        confine(size)
        found = torch.load(source, weights_only=True, mmap=packed, map_location="cpu")
        save_file(plain(found, size), target, {"format": "pt"})
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        sys.exit(refuse(f"it would run {wanted[1]}" if wanted else "it contains more than tensors"))
    except Exception as error:  # a broken or hostile file may cause any
        sys.exit(refuse(str(error).strip().split("\n")[0] or type(error).__name__))


def confine(size: int) -> None:
    """Forbids new processes, threads and core dumps, and limits open files, memory, and files written to about
    ``size`` bytes."""
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return
    limits = {"CORE": 0, "NPROC": 0, "NOFILE": 64, "FSIZE": size + HEADER, "DATA": 3 * size + ROOM}
    for name, most in limits.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


def plain(found: Any, size: int) -> dict[str, Any]:
    """The tensors by name; of tied ones only the first. Raises `ValueError` for anything else."""
    import torch

    if not isinstance(found, dict):
        raise ValueError("it contains no table of tensors")
    tensors: dict[str, Any] = {}
    seen: set[Any] = set()
    for name, tensor in found.items():
        usual = type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.layout == torch.strided
        if not isinstance(name, str) or not usual or tensor.is_quantized or tensor.is_complex() or not tensor.is_cpu:
            raise ValueError(f"{name!a} in it is not a plain tensor")
        same = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if tensor.numel() and same in seen:
            continue
        seen.add(same)
        size -= tensor.numel() * tensor.element_size()
        if size < 0:
            raise ValueError("its tensors are larger than the file")
        memory = tensor.untyped_storage().data_ptr()
        tensors[name] = tensor.detach().clone() if memory in seen else tensor.detach().contiguous()
        seen.add(memory)
    return tensors


def refuse(reason: str) -> int:
    """Writes the reason to standard output, for the parent process; returns the exit code."""
    print(ascii(reason)[1:-1])
    return 1


if __name__ == "__main__":
    sys.path.append(sys.argv[1])  # -I ignores the user's own packages
    main(*sys.argv[2:])
