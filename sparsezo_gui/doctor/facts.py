"""What is installed on this computer, read without importing it."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

PACKAGE = "sparsezo-gui"
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
PLATFORMS = {"WAYLAND_DISPLAY": "wayland", "DISPLAY": "xcb"}
"""Qt's plugin for each variable that names a display."""
PATIENCE = 10  # seconds for another program to answer


@dataclass(frozen=True)
class Folder:
    """A folder that the program writes into: what it is, its bytes ``free``, and the variable that moves it."""

    name: str
    path: Path
    free: int
    writable: bool
    variable: str


@dataclass(frozen=True)
class Facts:
    """What `look` found; '' stands for what is not there."""

    python: str
    """Version."""
    executable: str
    """Path of the Python that runs this."""
    pip: bool
    """Whether that Python has pip; one in an environment made by uv has none."""
    python_needed: str
    """As in pyproject.toml, such as '>=3.11'."""
    required: tuple[str, ...]
    """Requirements without extras, such as 'torch==2.13.*'; none if the program is not installed."""
    installed: Mapping[str, str]
    """Version of each required package that is installed."""
    cuda: str
    """Version of CUDA that PyTorch was built for."""
    cpu_only: bool
    """Whether PyTorch was built for CPUs only."""
    driver: str
    """Version of NVIDIA's driver."""
    libraries: tuple[str, ...]
    """File names of the system libraries that Qt needs and that are missing, such as 'libEGL.so.1'."""
    installer: str
    """'apt-get' or 'dnf'."""
    folders: tuple[Folder, ...]
    offline: tuple[str, ...]
    """Variables that forbid downloads."""
    downloaded: bool
    """Whether the cache of the Hub has a model or data set."""
    memory: int
    """Bytes of the computer."""
    available: int
    """Bytes of memory that are free."""
    token: str
    """Where the token for the Hub comes from."""


def look(token: str = "") -> Facts:
    """Looks at this computer, in well under a second. ``token`` says where the token comes from: only the caller knows
    whether it may ask the keyring, which may ask the user."""
    needed, required, installed = _packages()
    cuda, cpu_only = _torch_build()
    cache = _cache()
    return Facts(
        python=platform.python_version(), executable=sys.executable, pip=find_spec("pip") is not None,
        python_needed=needed, required=required,
        installed=installed, cuda=cuda, cpu_only=cpu_only, driver=_driver(), libraries=_missing_libraries(),
        installer=next(filter(shutil.which, ("apt-get", "dnf")), ""), folders=_folders(cache),
        offline=tuple(name for name in OFFLINE if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")),
        downloaded=cache is not None and any(cache.glob("*--*")), **_memory(), token=token,
    )  # fmt: skip


def _packages() -> tuple[str, tuple[str, ...], dict[str, str]]:
    """The Python that is needed, the requirements, and the installed version of each."""
    try:
        about = metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError:
        return "", (), {}
    required = tuple(line for line in about.requires or () if "extra ==" not in line)
    installed = {}
    for line in required:
        name = re.split(r"[^\w.-]", line, maxsplit=1)[0]
        with suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(name)
    return about.metadata["Requires-Python"], required, installed


def _torch_build() -> tuple[str, bool]:
    """The CUDA version that PyTorch was built for, and whether it supports CPUs only."""
    try:
        text = Path(str(metadata.distribution("torch").locate_file("torch/version.py"))).read_text(encoding="utf-8")
    except (metadata.PackageNotFoundError, OSError):
        return "", False
    found = dict(re.findall(r"^(cuda|hip|xpu)\b[^=\n]*= *'([^']+)'", text, re.MULTILINE))
    return found.get("cuda", ""), not found and sys.platform != "darwin"


def _driver() -> str:
    """Version of NVIDIA's driver: from the kernel, else (in WSL and on Windows) from nvidia-smi."""
    with suppress(OSError):
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8")
        if found := re.search(r"Kernel Module.*?\s(\d+\.\d[\d.]*)", text):
            return found[1]
    text = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return found[0] if (found := re.match(r"\d+\.\d[\d.]*", text)) else ""


def _missing_libraries() -> tuple[str, ...]:
    """Of Qt itself, and of the plugin for the display: with several displays, of the one that lacks the fewest."""
    if sys.platform != "linux":
        return ()
    try:
        qt = Path(str(metadata.distribution("pyside6-essentials").locate_file("PySide6/Qt")))
    except metadata.PackageNotFoundError:
        return ()
    base = [qt / "lib" / f"libQt6{name}.so.6" for name in ("Gui", "Widgets")]
    chosen = os.environ.get("QT_QPA_PLATFORM", "")  # such as 'wayland;xcb' or 'offscreen:size=800x600'
    plugins = re.findall(r"(?:^|;)(\w+)", chosen) or [name for key, name in PLATFORMS.items() if os.environ.get(key)]
    choices = [_lacking(*base, qt / "plugins" / "platforms" / f"libq{name}.so") for name in plugins or ["offscreen"]]
    fewest = min(choices, key=len)
    return tuple(sorted(fewest))


def _lacking(*files: Path) -> set[str]:
    return set(re.findall(r"^\s*(\S+) => not found", _output("ldd", *map(str, files)), re.MULTILINE))


def _output(*command: str) -> str:
    """What a program prints; '' if it is not there or fails."""
    with suppress(OSError, subprocess.SubprocessError):
        variables = {**os.environ, "LC_ALL": "C"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=variables, check=True)
        return done.stdout
    return ""


def _cache() -> Path | None:
    with suppress(ImportError):
        from huggingface_hub import constants

        return Path(constants.HF_HUB_CACHE)
    return None


def _folders(cache: Path | None) -> tuple[Folder, ...]:
    found = []
    with suppress(ImportError):
        from sparsezo_gui.engine.files import home

        found.append(_folder("Program's folder", home(), "SPARSEZO_HOME"))
    if cache is not None:
        found.append(_folder("Cache of the Hub", cache, "HF_HUB_CACHE"))
    return tuple(found)


def _folder(name: str, path: Path, variable: str) -> Folder:
    there = next(each for each in (path.absolute(), *path.absolute().parents) if os.path.exists(each))
    writable = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    return Folder(name, path, shutil.disk_usage(there).free, writable, variable)


def _memory() -> dict[str, int]:
    with suppress(ImportError):
        import psutil

        memory = psutil.virtual_memory()
        return {"memory": memory.total, "available": memory.available}
    return {"memory": 0, "available": 0}
