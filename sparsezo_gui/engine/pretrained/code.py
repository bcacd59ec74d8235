"""The Python code that comes with a model, read once: the same bytes are shown, hashed and run.

transformers runs such code from a copy of files that may have changed since anyone looked at them, and takes it from
other repositories too. So its own way stays shut (see `auto`), and modules are made here, of the bytes in memory; what
they import from each other comes from there as well. Nothing here runs by itself; `consent` decides what may.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.abc import ExecutionLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import decode_source
from pathlib import Path
from typing import Any

from sparsezo_gui.engine.files import refuse_links
from sparsezo_gui.errors import UserError, quoted
from sparsezo_gui.recipe.recipe import ModelTable
from sparsezo_gui.sizes import size

NAMED_IN = {"config.json": ("AutoConfig", "AutoModelForCausalLM"), "tokenizer_config.json": ("AutoTokenizer",)}
"""Which classes of its own a model can name in which file, by the class of transformers that each stands in for."""
MOST_BYTES = 5 << 20  # of all code files together
MOST_ENTRIES = 20_000  # files to search for code
_LARGEST_CONFIG = 10 << 20
_PACKAGE = "sparsezo_model_code"


@dataclass(frozen=True)
class Code:
    """Every Python file in ``folder``, by its name from there on, and the ``classes`` (module.Class) that are wanted.

    ``commit`` is that on the Hub, or empty. ``hash`` is the SHA-256 (hex) of the sorted names and contents: one changed
    byte, or one file more, is another code.
    """

    model: str
    commit: str
    folder: Path
    hash: str
    classes: Mapping[str, str] = field(compare=False)
    files: Mapping[str, bytes] = field(compare=False, repr=False)

    @property
    def missing(self) -> str:
        """Name of a missing file that should define a class; empty if all exist."""
        names = (f"{reference.rpartition('.')[0]}.py" for reference in self.classes.values())
        return next((name for name in names if name not in self.files), "")

    def run(self, auto: str) -> Any:
        """The model's own class for transformers' ``auto``, which runs its module. Only `consent` may ask for it."""
        module, _, name = self.classes[auto].rpartition(".")
        root = f"{_PACKAGE}_{self.hash}"
        if root not in sys.modules:
            about = f"<code of {self.model}, {self.hash[:8]}>"
            sys.meta_path.insert(0, _Modules(root, about, self.files))
        return getattr(importlib.import_module(f"{root}.{module.replace('/', '.')}"), name)


def find_code(table: ModelTable, folder: Path) -> Code | None:
    """The code that the model in ``folder`` runs by ``table``; None if it runs none. Raises `UserError`."""
    classes = _classes(folder) if table.trust_remote_code else {}
    if not classes:
        return None
    commit = folder.name if folder.parent.name == "snapshots" else ""
    files = _files(folder)
    return Code(table.id, commit, folder, _hash(files), classes, files)


def named_type(folder: Path) -> str:
    """The model type that config.json in ``folder`` gives; empty where there is none."""
    kind = _settings(folder / "config.json").get("model_type")
    return kind if isinstance(kind, str) else ""


def _classes(folder: Path) -> dict[str, str]:
    found = {}
    for name, autos in NAMED_IN.items():
        own = _settings(folder / name).get("auto_map")
        own = {"AutoTokenizer": own} if isinstance(own, list) else own  # an old form of tokenizer_config.json
        for auto in autos:
            reference = own.get(auto) if isinstance(own, dict) else None
            if isinstance(reference, list):  # of tokenizers: a slow one, a fast one
                reference = next((each for each in reversed(reference) if each), None)
            if reference is not None:
                found[auto] = _checked(folder / name, reference)
    return found


def _checked(path: Path, reference: object) -> str:
    if not isinstance(reference, str) or "." not in reference:
        raise UserError(
            f"{path}: {quoted(reference)} is not the name of a class in the model's folder. Download "
            "or copy the model again."
        )
    if "--" in reference:
        raise UserError(
            f"{path}: uses code from another repository ('{reference.split('--')[0]}'), which can change "
            "at any time. Choose a copy of the model with the code in its own folder."
        )
    return reference


def _settings(path: Path) -> dict[str, Any]:
    """Content of a config file; empty if unreadable, which is reported when the model is loaded."""
    try:
        with path.open("rb") as file:
            table = json.loads(file.read(_LARGEST_CONFIG))
    except (OSError, ValueError, RecursionError):
        return {}
    return table if isinstance(table, dict) else {}


def _files(folder: Path) -> dict[str, bytes]:
    paths = list(_python_files(folder))
    refuse_links(folder, paths)
    files, left = {}, MOST_BYTES
    for path in paths:
        try:
            with path.open("rb") as file:
                content = file.read(left + 1)
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}). Change its permissions.") from error
        left -= len(content)
        if left < 0:
            raise UserError(
                f"{folder}: contains more than {size(MOST_BYTES)} of Python code, too much to review. "
                "Move code that does not belong to the model elsewhere."
            )
        files[path.relative_to(folder).as_posix()] = content
    return files


def _hash(files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(json.dumps([name, hashlib.sha256(content).hexdigest()]).encode())
    return digest.hexdigest()


def _python_files(folder: Path) -> Iterator[Path]:
    seen = 0
    for place, _, names in os.walk(folder):
        seen += 1 + len(names)
        if seen > MOST_ENTRIES:
            raise UserError(
                f"{folder}: contains more than {MOST_ENTRIES:,} files, too many to search for the "
                "model's code. Move the model to a separate folder."
            )
        yield from (path for name in names if name.endswith(".py") and (path := Path(place, name)).is_file())


class _Modules(MetaPathFinder, ExecutionLoader):
    """Makes the package ``root`` of ``files``. Tracebacks show them as files of ``about``, a place that is not there:
    whoever asks for the source of a class gets what was read, not what the disk holds by then."""

    def __init__(self, root: str, about: str, files: Mapping[str, bytes]) -> None:
        self.root, self.about, self.files = root, about, files

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """How to make the module; None for those of others, and for files that are not there."""
        if fullname != self.root and not fullname.startswith(f"{self.root}."):
            return None
        if not self.is_package(fullname) and self._file(fullname) not in self.files:
            return None
        spec = ModuleSpec(fullname, self, origin=self.get_filename(fullname), is_package=self.is_package(fullname))
        spec.has_location = True
        return spec

    def is_package(self, fullname: str) -> bool:
        """Whether it is a folder; as in Python, a file beside it goes first where the folder has no __init__.py."""
        place = self._place(fullname)
        if not place or f"{place}/__init__.py" in self.files:
            return True
        return f"{place}.py" not in self.files and any(name.startswith(f"{place}/") for name in self.files)

    def get_filename(self, fullname: str) -> str:
        """The file name for tracebacks."""
        return f"{self.about}/{self._file(fullname)}"

    def get_source(self, fullname: str) -> str:
        """The text. The model's folder is no package by itself, so that its __init__.py does not run."""
        content = self.files.get(self._file(fullname), b"") if fullname != self.root else b""
        return decode_source(content)

    def _place(self, fullname: str) -> str:
        return fullname[len(self.root) + 1 :].replace(".", "/")

    def _file(self, fullname: str) -> str:
        place = self._place(fullname)
        return f"{place}/__init__.py".lstrip("/") if self.is_package(fullname) else f"{place}.py"
