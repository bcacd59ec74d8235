"""The Python code that comes with a model, read once: the same bytes are shown, hashed and run.

transformers would run such code from copies of files that may have changed since the user reviewed them, and would also
load it from other repositories. So its own mechanism is always off (see `auto`), and modules are created here from the
bytes in memory, including what they import from each other. `consent` decides what may run.
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
"""The classes of transformers that a model can replace with its own, by the file that names them."""
MOST_BYTES = 5 << 20  # of all code files together
MOST_ENTRIES = 20_000  # files to search for code
_LARGEST_CONFIG = 10 << 20
_PACKAGE = "sparsezo_model_code"


@dataclass(frozen=True)
class Code:
    """All Python ``files`` in ``folder``, by relative path, and the ``classes`` (module.Class) to use, by the class of
    transformers that each replaces.

    ``commit`` is the one on the Hub, or empty. ``hash`` is the SHA-256 (hex) of the sorted names and contents, so that
    any change needs a new consent.
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
        """Runs the module of the model's own class for transformers' ``auto``, and returns the class. Only `consent`
        may call it."""
        module, _, name = self.classes[auto].rpartition(".")
        root = f"{_PACKAGE}_{self.hash}"
        if root not in sys.modules:
            about = f"<code of {self.model}, {self.hash[:8]}>"
            sys.meta_path.insert(0, _Modules(root, about, self.files))
        return getattr(importlib.import_module(f"{root}.{module.replace('/', '.')}"), name)


def find_code(table: ModelTable, folder: Path) -> Code | None:
    """The code that the model in ``folder`` needs and ``table`` names; None if there is none. Raises `UserError`."""
    classes = _classes(folder) if table.trust_remote_code else {}
    if not classes:
        return None
    commit = folder.name if folder.parent.name == "snapshots" else ""
    files = _files(folder)
    return Code(table.id, commit, folder, _hash(files), classes, files)


def has_code(folder: Path) -> bool:
    """Whether the model in ``folder`` names code of its own."""
    try:
        return bool(_classes(folder))
    except UserError:
        return True


def named_type(folder: Path) -> str:
    """The model type in config.json in ``folder``; empty if there is none."""
    kind = _settings(folder / "config.json").get("model_type")
    return kind if isinstance(kind, str) else ""


def _classes(folder: Path) -> dict[str, str]:
    found = {}
    for name, autos in NAMED_IN.items():
        own = _settings(folder / name).get("auto_map")
        own = {"AutoTokenizer": own} if isinstance(own, list) else own  # the old form in tokenizer_config.json
        for auto in autos:
            reference = own.get(auto) if isinstance(own, dict) else None
            if isinstance(reference, list):  # a slow and a fast tokenizer
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
    """Imports the package ``root`` from ``files`` in memory. Tracebacks show file names below ``about``, which does not
    exist on the disk: so the source shown is always the one that was read."""

    def __init__(self, root: str, about: str, files: Mapping[str, bytes]) -> None:
        self.root, self.about, self.files = root, about, files

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """The spec of a module of this package; None for other packages and for missing files."""
        if fullname != self.root and not fullname.startswith(f"{self.root}."):
            return None
        if not self.is_package(fullname) and self._file(fullname) not in self.files:
            return None
        spec = ModuleSpec(fullname, self, origin=self.get_filename(fullname), is_package=self.is_package(fullname))
        spec.has_location = True
        return spec

    def is_package(self, fullname: str) -> bool:
        """Whether it is a folder. As in Python, a file of the same name wins over a folder without __init__.py."""
        place = self._place(fullname)
        if not place or f"{place}/__init__.py" in self.files:
            return True
        return f"{place}.py" not in self.files and any(name.startswith(f"{place}/") for name in self.files)

    def get_filename(self, fullname: str) -> str:
        """The file name for tracebacks."""
        return f"{self.about}/{self._file(fullname)}"

    def get_source(self, fullname: str) -> str:
        """The source text; empty for the model's folder, whose __init__.py must not run."""
        content = self.files.get(self._file(fullname), b"") if fullname != self.root else b""
        return decode_source(content)

    def _place(self, fullname: str) -> str:
        return fullname[len(self.root) + 1 :].replace(".", "/")

    def _file(self, fullname: str) -> str:
        place = self._place(fullname)
        return f"{place}/__init__.py".lstrip("/") if self.is_package(fullname) else f"{place}.py"
