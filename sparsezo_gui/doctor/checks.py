"""What is wrong with the facts, and the command that fixes it: a function for each check, listed in `CHECKS`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator

from sparsezo_gui.answers import Finding
from sparsezo_gui.doctor.facts import Facts
from sparsezo_gui.sizes import size

DRIVERS = {13: 580, 12: 525, 11: 450}
"""The oldest NVIDIA driver for each CUDA (https://docs.nvidia.com/deploy/cuda-compatibility)."""
INDEX = "https://download.pytorch.org/whl"
LEAST_DISK = 2 * 2**30
LEAST_MEMORY = 2**30
NOT_BY_RULE = dict.fromkeys(("libglib-2.0.so.0", "libgthread-2.0.so.0", "libgobject-2.0.so.0"), "libglib2.0-0")
"""Debian's package of libraries whose name does not follow from theirs."""

Check = Callable[[Facts], Iterator[Finding]]


def examine(facts: Facts) -> list[Finding]:
    """What all checks find."""
    return [finding for check in CHECKS for finding in check(facts)]


def python(facts: Facts) -> Iterator[Finding]:
    """The version of Python."""
    problem = ""
    if not _allows(facts.python_needed, facts.python):
        problem = f"This is Python {facts.python}, but SparseZO needs {facts.python_needed}."
    command = "python3 -m venv .venv && .venv/bin/pip install -e ." if problem else ""
    yield Finding("Python", facts.python, problem, command)


def packages(facts: Facts) -> Iterator[Finding]:
    """The versions of all required packages."""
    from packaging.requirements import Requirement

    if not facts.required:
        yield Finding("Packages", "", "SparseZO is not installed in this Python.", f"{_pip(facts)} -e .")
        return
    wanted = [each for line in facts.required if (each := Requirement(line)).marker is None or each.marker.evaluate()]
    fitting = 0
    for each in wanted:
        version = facts.installed.get(each.name, "")
        if version and _allows(str(each.specifier), version):
            fitting += 1
            continue
        what = f"{each.name} {version} is installed" if version else f"{each.name} is not installed"
        pinned = f"{each.name}{each.specifier}"
        yield Finding(each.name, version, f"{what}; SparseZO needs {pinned}.", f"{_pip(facts)} '{pinned}'")
    yield Finding("Packages", f"{fitting} of {len(wanted)} as required")


def pytorch(facts: Facts) -> Iterator[Finding]:
    """Whether PyTorch can use an NVIDIA GPU with this driver."""
    version = facts.installed.get("torch")
    if not version:
        return
    found = f"{version} for {'CPUs' if facts.cpu_only else f'CUDA {facts.cuda}' if facts.cuda else 'other GPUs'}"
    found += f", NVIDIA driver {facts.driver}" if facts.driver else ""
    driver, problem = _number(facts.driver), ""
    if driver and facts.cpu_only:
        problem = f"There is an NVIDIA GPU (driver {facts.driver}), but PyTorch {version} supports CPUs only."
    elif driver and driver < (least := DRIVERS.get(_number(facts.cuda), 0)):
        problem = f"The NVIDIA driver {facts.driver} is too old for CUDA {facts.cuda} of PyTorch, which needs {least}."
    yield Finding("PyTorch", found, problem, _for_driver(facts, driver) if problem else "")


def _for_driver(facts: Facts, driver: int) -> str:
    """Installs the PyTorch that suits the driver."""
    pinned = next((line for line in facts.required if line.startswith("torch=")), "torch")
    for cuda, index in ((13, "cu130"), (12, "cu126")):
        if driver >= DRIVERS[cuda]:
            return f"{_pip(facts)} --force-reinstall '{pinned}' --index-url {INDEX}/{index}"
    return "sudo ubuntu-drivers install" if facts.installer == "apt-get" else ""


def qt(facts: Facts) -> Iterator[Finding]:
    """The system libraries that the window needs."""
    if not facts.libraries:
        yield Finding("Qt's libraries", "complete")
        return
    names = ", ".join(facts.libraries)
    command = ""
    if facts.installer == "apt-get":
        command = " ".join(("sudo apt install", *sorted(set(map(_debian, facts.libraries)))))
    elif facts.installer == "dnf":
        command = " ".join(("sudo dnf install", *(f"'{name}()(64bit)'" for name in facts.libraries)))
    yield Finding("Qt's libraries", f"{len(facts.libraries)} missing", f"The window needs {names}.", command)


def _debian(library: str) -> str:
    """Debian's package of a library, named by the rule of its policy: libxcb-icccm.so.4 is in libxcb-icccm4."""
    name, _, version = library.partition(".so.")
    between = "-" if name[-1].isdigit() else ""
    return NOT_BY_RULE.get(library, f"{name}{between}{version}".lower().replace("_", "-"))


def folders(facts: Facts) -> Iterator[Finding]:
    """Whether there is space, and the right to write."""
    for each in facts.folders:
        problem = command = ""
        if not each.writable:
            problem = f"You cannot write to {each.path}. Choose another folder."
            command = f"export {each.variable}=~/{each.variable.lower()}"
        elif each.free < LEAST_DISK:
            problem = f"Only {size(each.free)} are free for {each.path}. Remove what is kept there, or other files."
            command = "sparsezo cache"
        yield Finding(each.name, f"{each.path}, {size(each.free)} free", problem, command)


def offline(facts: Facts) -> Iterator[Finding]:
    """Whether downloads are forbidden while there is nothing to use instead."""
    names = " and ".join(facts.offline)
    if facts.offline and not facts.downloaded:
        problem = f"Downloads are forbidden by {names}, but nothing was downloaded before."
        yield Finding("Downloads", f"forbidden by {names}", problem, f"unset {' '.join(facts.offline)}")
    else:
        yield Finding("Downloads", f"forbidden by {names}" if names else "allowed")


def memory(facts: Facts) -> Iterator[Finding]:
    """Memory of the computer."""
    if facts.memory:
        short = facts.available < LEAST_MEMORY
        problem = f"Only {size(facts.available)} of memory are free. Close other programs." if short else ""
        yield Finding("Memory", f"{size(facts.memory)}, {size(facts.available)} free", problem)


def token(facts: Facts) -> Iterator[Finding]:
    """Whether there is a token for the Hub; most models need none."""
    yield Finding("Token for the Hub", f"from {facts.token}" if facts.token else "none; public models need none")


CHECKS: tuple[Check, ...] = (python, packages, pytorch, qt, folders, offline, memory, token)


def _allows(specifiers: str, version: str) -> bool:
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(specifiers).contains(version, prereleases=True)


def _number(version: str) -> int:
    """The first part of a version; 0 if there is none."""
    return int(found[0]) if (found := re.match(r"\d+", version)) else 0


def _pip(facts: Facts) -> str:
    python = shlex.quote(facts.executable)
    return f"{python} -m pip install" if facts.pip else f"uv pip install --python {python}"
