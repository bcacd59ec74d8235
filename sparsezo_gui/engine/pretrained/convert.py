"""A safetensors copy of a model whose weights are pickles.

Each pickle is opened in a separate process (see `unpickle`), never in this one: isolated from the user's Python
settings, without tokens or other environment variables, in an empty folder, and with the limits that the system offers.
Its output is checked like any untrusted file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from sparsezo_gui.engine.files import refuse_links
from sparsezo_gui.engine.pretrained import unpickle
from sparsezo_gui.engine.pretrained.folder import copy_companions, drafted
from sparsezo_gui.engine.pretrained.source import INDEX, SINGLE, read_index
from sparsezo_gui.engine.pretrained.weights import read_header
from sparsezo_gui.engine.sandbox.process import VARIABLES
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.events import Progress

PICKLE, PICKLE_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"


def convert(folder: Path, out: Path) -> Generator[Progress, None, list[str]]:
    """Writes the model in ``folder`` to ``out`` with safetensors weights; returns the names of their files.

    ``out`` must not exist or be an empty folder; it appears complete or not at all. Config, tokenizer and licence are
    copied, Python code is not. Of tied tensors, the first is written. Raises `UserError`.
    """
    pickles = _pickles(folder)
    size = sum(path.stat().st_size for path in pickles)
    done, files = 0, dict[str, str]()
    with drafted(out, size) as draft:
        for number, path in enumerate(pickles, 1):
            yield Progress("Converting", done, size, "bytes")
            name = SINGLE if len(pickles) == 1 else f"model-{number:05}-of-{len(pickles):05}.safetensors"
            _convert(path, draft / name)
            files |= dict.fromkeys(read_header(draft / name), name)
            done += path.stat().st_size
        index = {"metadata": {"total_size": size}, "weight_map": files}
        copy_companions(folder, draft, {INDEX: json.dumps(index, indent=2)} if len(pickles) > 1 else {})
        for code in draft.glob("*.py"):
            code.unlink()
    return sorted(set(files.values()))


def _pickles(folder: Path) -> list[Path]:
    """The pickles of a model, in order. Raises `UserError`."""
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: not a model folder: it has no config.json. Choose another folder.")
    refuse_links(folder, (path for path in folder.iterdir() if path.is_file()))
    if (folder / PICKLE).is_file():
        return [folder / PICKLE]
    if (folder / PICKLE_INDEX).is_file():
        return [folder / name for name in sorted(set(read_index(folder / PICKLE_INDEX, ".bin").values()))]
    raise UserError(f"{folder}: nothing to convert: it has neither {PICKLE} nor {PICKLE_INDEX}.")


def _convert(path: Path, target: Path) -> None:
    """Runs the script on one pickle, in an empty folder beside ``target``."""
    packages, size = Path(torch.__file__).parents[1], path.stat().st_size
    command = [sys.executable, "-I", unpickle.__file__, str(packages), str(path.resolve()), "weights"]
    with TemporaryDirectory(dir=target.parent) as cell, open(Path(cell, "reason"), "w+b") as said:
        variables = {name: os.environ[name] for name in VARIABLES if name in os.environ} | {"HOME": cell}
        try:
            done = subprocess.run(
                command, cwd=cell, env=variables, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.DEVNULL,
                timeout=120 + size / 1e6, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise _refused(path, "it took too long") from error
        if done.returncode:
            said.seek(0)
            raise _refused(path, said.read(500).decode(errors="replace").strip() or "the converter crashed")
        os.rename(Path(cell, "weights"), target)


def _refused(path: Path, reason: str) -> UserError:
    return UserError(f"{path}: not converted, because {reason}. Choose a copy of this model with {SINGLE}.")
